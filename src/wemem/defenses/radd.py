"""RADD, risk-aware distillation from the dense model, a 2026 successor of the paper's defenses.

High-risk records, those with a high memorization score ``m``, are learned from the predictions of
the model's own dense version instead of their labels, and are shown rarely. With ``q`` and ``p``
the probabilities of the dense and the pruned model, ``q_T`` and ``p_T`` the same at temperature
``T``, and ``H`` the entropy::

    loss_i = m_i * T² * KL(q_T || p_T) - entropy * H(p)        of a high-risk record, m_i at most 1
    loss_i = CE(p, y)                  - entropy * H(p)        of any other

Its description leaves three points open. They are decided here:

* High-risk are the records that :class:`~wemem.defenses.MemoryRegularizer` calls risky, if their
  score is above 0: a record that is not memorized has no weight and keeps its label.
* ``T²`` keeps the size of the gradient whatever the temperature (Hinton et al., arXiv:1503.02531).
  The entropy bonus applies to every record.
* The window is the paper's, over each class's other records from low to high scores. High-risk
  records are added up to ``share`` of all shown records, rounded down. They are shown one after
  another: the classes alternate, each class's records from low to high scores, and a record that
  was shown waits for the next round. That is at most one exposure per round.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from wemem.data.batches import Group
from wemem.defenses.base import Defense
from wemem.defenses.batch import Batch
from wemem.defenses.capabilities import Capability, Distillation, OwnDenseModel, RecordRisk
from wemem.defenses.memory_regularizer import MemoryRegularizer
from wemem.defenses.sliding_window import SlidingWindow
from wemem.defenses.training_records import TrainingRecords
from wemem.errors import InputError


@dataclass(frozen=True)
class RADD(Defense):
    """Distill the high-risk records, each shown at most once a round; a window shows the others.

    Args:
        top: share of the training records that counts as high-risk, in (0, 1); 0.27 where no
            ``threshold`` is given.
        threshold: memorization score from which a record is high-risk, instead of ``top``.
        temperature: T, the temperature of the dense model's soft labels.
        entropy: weight of the entropy of the outputs.
        width: share of a class's other records in the window, in (0, 1].
        stride: distance that the window moves each epoch, as a share of a class's other records.
        share: largest share of high-risk records among the records of an epoch, in [0, 1).

    Raises:
        InputError: a value out of range, or both ``top`` and ``threshold``.

    >>> same = torch.tensor([[[0.8, 0.2]]]).log()
    >>> batch = Batch(same, torch.tensor([[1]]), torch.ones(1, 1), 0, same, torch.tensor([[0.5]]))
    >>> RADD(entropy=0.0).loss(batch)  # equal to the dense model's prediction, whatever the label
    tensor([0.])
    """

    top: float | None = None
    threshold: float | None = None
    temperature: float = 3.0
    entropy: float = 0.2
    width: float = 0.25
    stride: float = 0.0375
    share: float = 0.1

    def __post_init__(self) -> None:
        marked = MemoryRegularizer(self.top, self.threshold)
        object.__setattr__(self, "top", marked.top)
        SlidingWindow(float(self.width), float(self.stride))
        if not 0 < self.temperature < float("inf"):
            raise InputError(f"temperature must be positive and finite, got {self.temperature}")
        if not 0 <= self.entropy < float("inf"):
            raise InputError(f"entropy must be finite and 0 or more, got {self.entropy}; for no bonus give 0")
        if not 0 <= self.share < 1:
            raise InputError(f"share must be in [0, 1), got {self.share}; at 0 no high-risk record is shown")

    @property
    def name(self) -> str:
        return "radd"

    @property
    def needs_scores(self) -> bool:
        return True

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Soft labels of the dense model, which reveal less than hard ones, and scores."""
        return Distillation(OwnDenseModel()), RecordRisk(self.risk)

    def high_risk(self, records: TrainingRecords) -> Bool[np.ndarray, " n"]:
        """True for high-risk records of ``records.train``."""
        risky = MemoryRegularizer(self.top, self.threshold).risky(records)
        return np.asarray(risky & (records.scores_of(records.train) > 0))

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Cut the groups to the window and the high-risk records whose turn it is."""
        risky = self.high_risk(records)
        if risky.all():
            raise InputError(
                f"radd expected records that are not high-risk, got none among a model's {len(risky)}; lower top or "
                "raise threshold"
            )
        others = replace(records, train=records.train[~risky])
        (window,) = SlidingWindow(float(self.width), float(self.stride)).plan(epoch, (Group(others.train),), others)
        # 1e-9: a tenth of 100 must be 10, whatever the rounding of 0.1 / 0.9
        most = int(len(window.records) * self.share / (1 - self.share) + 1e-9)
        exposed = self._queue(records, records.train[risky])[epoch * most : (epoch + 1) * most]
        shown = np.concatenate([window.records, exposed])
        return tuple(replace(g, records=g.records[np.isin(g.records, shown)]) for g in groups)

    def _queue(self, records: TrainingRecords, risky: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " r"]:
        """High-risk records in the order of their turns: the first of each class, then the second."""
        ranked = risky[np.argsort(records.scores_of(risky), kind="stable")]
        labels = records.labels[ranked]
        by_class = np.argsort(labels, kind="stable")
        place = np.empty(len(labels), np.int64)
        place[by_class] = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
        return ranked[np.lexsort((labels, place))]

    def risk(self, records: TrainingRecords) -> Float64[np.ndarray, " N"]:
        """Score of each high-risk record, at most 1; 0 for any other record."""
        weights = np.zeros(len(records.labels))
        risky = records.train[self.high_risk(records)]
        weights[risky] = np.minimum(records.scores_of(risky), 1)
        return weights

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Mean loss over all records, high-risk or not."""
        assert batch.teacher_log_probs is not None  # the trainer refuses a run without them
        assert batch.risk is not None
        plain = batch.cross_entropy()
        distilled = (
            batch.risk * self.temperature**2 * _divergence(batch.teacher_log_probs, batch.logits, self.temperature)
        )
        log_p = torch.log_softmax(batch.logits, -1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        return batch.mean(torch.where(batch.risk > 0, distilled, plain) - self.entropy * entropy)


def _divergence(
    teacher_log_probs: Float[Tensor, "S B C"], logits: Float[Tensor, "S B C"], temperature: float
) -> Float[Tensor, "S B"]:
    """Divergence (Kullback-Leibler) of each prediction from its soft targets, in nats."""
    log_q = torch.log_softmax(teacher_log_probs / temperature, -1)
    return (log_q.exp() * (log_q - torch.log_softmax(logits / temperature, -1))).sum(-1)
