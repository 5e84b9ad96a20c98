"""RMR, risky-memory regularization: strong decay for risky records (Shang et al., NDSS 2025).

A record is risky if its memorization score is high: at least ``threshold``, or among the ``top``
share of the model's training records. Risky and other records are batched apart, each kind with its
own Adam state. Steps on risky batches use the weight decay ``decay``, the others that of the
recipe. A ``decay`` equal to the recipe's is therefore not plain fine-tuning, because batches and
Adam states are still apart; a ``threshold`` above every score is.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from wemem.data.batches import Group
from wemem.defenses.base import Defense
from wemem.defenses.training_records import TrainingRecords
from wemem.errors import InputError


@dataclass(frozen=True)
class MemoryRegularizer(Defense):
    """Regularize the risky records.

    Args:
        top: share of the training records that counts as risky, in (0, 1); 0.27 if neither is
            given. It is the default because scores of different data sets and models have different
            scales.
        threshold: memorization score from which a record is risky, instead of ``top``.
        decay: L2 weight decay of the steps on risky records.

    Raises:
        InputError: both ``top`` and ``threshold``, or a value out of range.

    >>> import numpy as np
    >>> records = TrainingRecords(np.arange(4), np.zeros(4, np.int64), np.array([.4, .1, .3, .2]), seed=0)
    >>> calm, risky = MemoryRegularizer(top=0.5).plan(0, (Group(np.arange(4)),), records)
    >>> calm.records.tolist(), calm.weight_decay, risky.records.tolist(), risky.weight_decay
    ([1, 3], None, [0, 2], 0.1)
    """

    top: float | None = None
    threshold: float | None = None
    decay: float = 0.1

    @property
    def name(self) -> str:
        return "rmr"

    @property
    def needs_scores(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if self.top is None and self.threshold is None:
            object.__setattr__(self, "top", 0.27)
        if self.top is not None and self.threshold is not None:
            raise InputError(f"give either top or threshold, got top={self.top} and threshold={self.threshold}")
        if self.top is not None and not 0 < self.top < 1:
            raise InputError(f"top must be a share in (0, 1), got {self.top}; for no regularization use Undefended()")
        if self.threshold is not None and np.isnan(self.threshold):
            raise InputError("threshold must be a number, got NaN")
        if not self.decay >= 0:
            raise InputError(f"decay must be 0 or more, got {self.decay}")

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Divide each group into the calm and the risky records."""
        risky = records.train[self.risky(records)]
        return tuple(
            part
            for g in groups
            for part in (
                Group(g.records[~np.isin(g.records, risky)], g.key, g.weight_decay),
                Group(g.records[np.isin(g.records, risky)], f"{g.key}/risky", self.decay),
            )
        )

    def risky(self, records: TrainingRecords) -> Bool[np.ndarray, " n"]:
        """True for risky records of ``records.train``.

        With ``top`` exactly that share is risky; of equal scores the first in the data set are.
        """
        scores = records.scores_of(records.train)
        if self.threshold is not None:
            return np.asarray(scores >= self.threshold)
        assert self.top is not None
        chosen = np.zeros(len(scores), bool)
        chosen[np.argsort(-scores, kind="stable")[: round(self.top * len(scores))]] = True
        return chosen
