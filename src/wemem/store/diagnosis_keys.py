"""Keys of the stages of a diagnosis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wemem.store.key import Key, StageKey
from wemem.store.keys import EnsembleInputs, libraries_of


@dataclass(frozen=True)
class ExposedRoundKey(StageKey):
    """One round of an arm of a diagnosis, on records of its own.

    Args:
        before: key of the round before or the dense models.
        index: number of the round.
        sparsity: of this round.
        rules: every field of the pruning but its schedule.
        ensemble: the models, on the records of this round.
    """

    stage = "exposed_round"
    before: Key
    index: int
    sparsity: float
    rules: Mapping[str, Any]
    ensemble: EnsembleInputs

    @property
    def libraries(self) -> Sequence[str]:
        return libraries_of(self.rules)


@dataclass(frozen=True)
class ExposedAnswersKey(StageKey):
    """Answers of an arm's models on the records of the pool."""

    stage = "exposed_answers"
    models: Key
    data: str
    pool: tuple[int, ...]
    device: str
