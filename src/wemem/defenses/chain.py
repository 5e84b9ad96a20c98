"""Composition: each part plans on what the part before it left; at most one of them has a loss of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from wemem.data.batches import Group
from wemem.data.teachers import Teachers
from wemem.defenses.base import Batch, Defense, InferenceAdversary, OwnDenseModel, TrainingRecords, Undefended
from wemem.defenses.clipping import Clipping
from wemem.errors import InputError


@dataclass(frozen=True)
class Chain(Defense):
    """Several defenses as one. SWMR is ``Chain((SlidingWindow(...), MemoryRegularizer(...)))``.

    Raises:
        InputError: fewer than two parts, two of a kind, two that both replace the loss or make the gradient, or equally
            named settings.
    """

    parts: tuple[Defense, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InputError(f"a chain needs two or more different defenses, got {' + '.join(names) or 'none'}")
        losses = [part.name for part in self.parts if part.replaces_loss]
        if len(losses) > 1:
            raise InputError(f"{losses[0]} and {losses[1]} both replace the loss; chain only one of them")
        makers = [part.name for part in self.parts if part.clipping is not None]
        if makers and len(both := list(dict.fromkeys(makers + losses))) > 1:
            raise InputError(f"{both[0]} and {both[1]} both make a step's gradient; chain only one of them")
        settings = [setting for part in self.parts for setting in part.settings]
        if len(set(settings)) < len(settings):
            twice = next(name for name in settings if settings.count(name) > 1)
            raise InputError(f"expected different settings in {' + '.join(names)}, got {twice!r} twice; rename one")

    @property
    def name(self) -> str:
        """``swmr`` for the paper's chain, else the parts' names joined by ``+``."""
        names = "+".join(part.name for part in self.parts)
        return "swmr" if names == "rsw+rmr" else names

    @property
    def needs_scores(self) -> bool:
        """True if a part needs them."""
        return any(part.needs_scores for part in self.parts)

    @property
    def observes(self) -> bool:
        """True if a part does."""
        return any(part.observes for part in self.parts)

    @property
    def alters_outputs(self) -> bool:
        """True if a part does."""
        return any(part.alters_outputs for part in self.parts)

    @property
    def settings(self) -> dict[str, Any]:
        """All parts' settings."""
        return {key: value for part in self.parts for key, value in part.settings.items()}

    @property
    def teacher_source(self) -> Teachers | OwnDenseModel | None:
        """Those of the part that has the loss which learns from them."""
        return next((part.teacher_source for part in self.parts if part.teacher_source is not None), None)

    def risk(self, records: TrainingRecords) -> Float64[np.ndarray, " N"] | None:
        """What the part that has the loss says."""
        return self._with_loss.risk(records)

    def inference_adversary(self, classes: int, seeds: Sequence[int]) -> InferenceAdversary | None:
        """That of the part that has the loss."""
        return self._with_loss.inference_adversary(classes, seeds)

    @property
    def starts_fresh(self) -> bool:
        """True if a part does."""
        return any(part.starts_fresh for part in self.parts)

    def epochs(self, most: int) -> int:
        """The fewest that a part asks for."""
        return min(part.epochs(most) for part in self.parts)

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """One part after the other."""
        for part in self.parts:
            groups = part.plan(epoch, groups, records)
        return groups

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """The loss of the part that has one of its own, else cross-entropy."""
        return self._with_loss.loss(batch)

    @property
    def _with_loss(self) -> Defense:
        return next((part for part in self.parts if part.replaces_loss), Undefended())

    def postprocess_logits(
        self, logits: Float32[np.ndarray, "N C"], rng: np.random.Generator
    ) -> Float32[np.ndarray, "N C"]:
        """One part after the other."""
        for part in self.parts:
            logits = part.postprocess_logits(logits, rng)
        return logits

    @property
    def clipping(self) -> Clipping | None:
        """That of the part that has one."""
        return next((part.clipping for part in self.parts if part.clipping is not None), None)

    def incompatibility_reason(self, model: nn.Module) -> str | None:
        """That of the first part that refuses."""
        return next((reason for part in self.parts if (reason := part.incompatibility_reason(model)) is not None), None)


def chain(*parts: Defense) -> Defense:
    """Compose defenses; one alone stays what it is.

    >>> from wemem.defenses import MemoryRegularizer, SlidingWindow
    >>> chain(SlidingWindow(), MemoryRegularizer()).name
    'swmr'
    """
    return parts[0] if len(parts) == 1 else Chain(parts)
