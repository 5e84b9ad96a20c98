"""Stages: results that are named by their keys before anything is computed.

A stage knows its key, the stages that it reads, and the entries that it leaves in the store. So the
stages of a study are its task graph. Nothing is computed before :meth:`Stage.result` or
:meth:`Stage.ensure`. Both look in the store first, and compute what is missing together with all
that it reads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wemem.store.key import Key

if TYPE_CHECKING:
    from wemem.pipeline.artifacts import MemorizationScores, TrainedModels

T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """The size of a stage's computation, known before it runs.

    Args:
        kind: the kind of the computation; stages of one kind take time in proportion to ``amount``.
        amount: records times models, times expected epochs where models are trained.
        work: the share of ``amount`` that is training, in the measure of
            :class:`~wemem.pipeline.cost.CostModel`; 0 for stages that train nothing.
        models: the number of models that are trained.
        step_time: the time of one training step, relative to an ordinary step.
    """

    kind: str
    amount: float = 0.0
    work: float = 0.0
    models: int = 0
    step_time: float = 1.0

    @classmethod
    def training(cls, kind: str, work: float, models: int, step_time: float = 1.0) -> "Effort":
        """The effort of a stage that trains models."""
        return cls(kind, work, work, models, step_time)


#: The effort of a stage that only puts results of others together.
NONE = Effort("none")


class Stage(ABC, Generic[T]):
    """A result with a key.

    Args:
        title: the name in the progress display.
        key: the key of everything that determines the result.
        needs: the stages that it reads when it is computed.
        effort: the size of its computation.
    """

    def __init__(self, title: str, key: Key, needs: Sequence["Stage[Any]"], effort: Effort = NONE) -> None:
        self.title, self.key, self.needs, self.effort = title, key, tuple(needs), effort

    @property
    def stores(self) -> tuple[Key, ...]:
        """The keys of the entries that it leaves in the store; none if it only reads others."""
        return ()

    @property
    def deletes(self) -> tuple[Key, ...]:
        """The keys of entries that it stores on the way and deletes again."""
        return ()

    @abstractmethod
    def ensure(self) -> None:
        """Make sure that all that the result is read from is in the store, computing what is missing."""

    @abstractmethod
    def read(self) -> T:
        """Read the result, after :meth:`ensure`."""

    def result(self) -> T:
        """The result, computed and stored first unless the store has it."""
        self.ensure()
        return self.read()

    def ensure_needs(self) -> None:
        """Make sure that all that the stage reads is in the store."""
        for need in self.needs:
            need.ensure()

    def upstream(self) -> "Iterator[Stage[Any]]":
        """All stages that this one reads, directly or not, each after those that it reads itself."""
        seen: set[int] = set()
        pending = [(need, False) for need in reversed(self.needs)]
        while pending:
            stage, expanded = pending.pop()
            if expanded:
                yield stage
            elif id(stage) not in seen:
                seen.add(id(stage))
                pending.append((stage, True))
                pending += [(need, False) for need in reversed(stage.needs)]


class Derived(Stage[T]):
    """A result that is put together from others, and not stored.

    Args:
        key: the key of everything that determines the result.
        needs: the stages that it is put together from.
        derive: puts it together, once all of them are in the store.
        keep: True to put it together once and keep it as long as this object lives.
    """

    def __init__(
        self, key: Key, needs: Sequence[Stage[Any]], derive: Callable[[], T], *, keep: bool = False
    ) -> None:  # fmt: skip
        super().__init__("", key, needs)
        self._derive, self._keep = derive, keep

    def ensure(self) -> None:
        self.ensure_needs()

    def read(self) -> T:
        return self._kept if self._keep else self._derive()

    @cached_property
    def _kept(self) -> T:
        return self._derive()


def given(value: "TrainedModels | MemorizationScores") -> Derived[Any]:
    """A result that is at hand, as a stage."""
    return Derived(value.key, (), lambda: value)
