"""Out-of-sample distillation inside the pruning loop.

The training records of a model are divided among ``teachers`` models of its records alone, so
that every record is held out from ``held_out`` of them. Fine-tuning then learns, instead of the
hard label ``y``, the mean prediction of the teachers that were not trained on the record::

    q(x) = mean over the teachers t that did not train on x of softmax(f_t(x))
    target = (1 - hard) * normalize(q ** (1 / temperature) * exp(-discount * onehot(y))) + hard * onehot(y)
    loss = - sum_c target_c log p_c

It does so at the record ``x`` and at ``views`` copies of it in which a part of the features is
another training record's (:mod:`wemem.data.views`). The target of a copy is the mean prediction of
the teachers that trained on neither of the two records; where there is none, the record stands in
place of the copy. An epoch shows the record and ``views_per_epoch`` of its copies, another choice
each time.

The label of a record then reaches the pruned model only through teachers of *other* records, and
through what the model itself makes of its training records. Each way is closed by a setting:

* Through what teachers memorize. Networks memorize, so that their predictions for other records
  depend on every label. So the teachers are linear discriminants, each on principal components of
  its own training records (:mod:`wemem.training.linear`), of images on components of untrained
  features (:mod:`wemem.data.image_features`), and of records with few features on these and random
  cosines of them (:mod:`wemem.data.fourier_features`). A label moves them little, also a wrong one,
  and they take seconds. ``components = 0``, and records of whole numbers, have teachers of the model's
  architecture.
* Through similar records. Their teachers did train on ``x``, so the model learns ``y`` around ``x``
  from them, and with it at ``x``. Therefore similar records are held out together: each class is
  cut into ``clusters`` of similar records (:mod:`wemem.data.neighbours`), and a cluster is held out
  as a whole. Exact and near copies are held out together whatever their labels, because a
  mislabelled copy would otherwise reach the model through the teachers of its original (Aerni,
  Zhang & Tramèr, CCS 2024).
* Through the fit. A model fits its targets better at its training records than elsewhere. Learning
  at views as well makes that difference smaller, and the ``discount`` of the label makes up for it.
* Through the dense model, which has learned every label and keeps some of it through all rounds of
  fine-tuning. Therefore the first round starts from new weights, and of the dense model only the
  architecture is used.

What stays open: similar records of different classes that are no near copies are not held out
together, and a label still moves the teachers of other records a little.

The idea is Split-AI with self-distillation (SELENA, Tang et al., USENIX Security 2022), which
trains one model from scratch on such targets, its records held out one by one. Ours are the
clusters, the views, and the place in the rounds of pruning. ``clusters=0, held_out=1`` is
cross-fitting; SELENA has 10 of 25. The dense model is not protected: where it is released too,
distil it as well, by pruning to a sparsity of 0.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from wemem.data.teachers import Teachers
from wemem.data.views import Views
from wemem.defenses.base import Defense
from wemem.defenses.batch import Batch
from wemem.defenses.capabilities import Capability, Distillation, FreshStart, Start
from wemem.errors import InputError


@dataclass(frozen=True)
class OutOfSampleDistillation(Defense):
    """Learn every record from models that trained neither on it nor on similar records.

    Args:
        teachers: number of teachers of a model.
        held_out: number of teachers that each record is held out from.
        clusters: number of clusters of similar records into which each class is cut, a cluster
            being held out as a whole; 0 holds out record by record. None for clusters of about ten
            records.
        start: ``fresh`` trains new weights from the first round on; ``dense`` continues from the
            dense model.
        temperature: temperature of the targets; above 1 they are softer than the teachers, below 1
            sharper.
        hard: share of the hard label in the target, in [0, 1]; with ``start="dense"``, 1 is plain
            fine-tuning.
        views: number of views of each record that are learned beside it; 0 for the records alone.
        swap: mean share of a view's features that are another record's.
        components: number of principal components of which the teachers are linear discriminants;
            0 for teachers of the model's architecture. None chooses by the number of records
            (:mod:`wemem.data.teachers`).
        views_per_epoch: number of views of a record that an epoch shows; each makes an epoch longer
            by its length without them.
        discount: amount that is taken from the log-probability of the record's own label in its
            targets, after the temperature. A model fits its targets better at training records than
            elsewhere; the discount makes it about as sure of them as of other records.

    Raises:
        InputError: a value out of range.

    >>> uniform = torch.full((1, 1, 2), 0.5).log()
    >>> batch = Batch(uniform, torch.tensor([[0]]), torch.ones(1, 1), 0, torch.tensor([[[0.9, 0.1]]]).log())
    >>> OutOfSampleDistillation().loss(batch)  # whatever the target, a uniform prediction costs log 2
    tensor([0.6931])
    """

    teachers: int = 12
    held_out: int = 5
    clusters: int | None = None
    start: Start = "fresh"
    temperature: float = 1.4
    hard: float = 0.0
    views: int = 12
    swap: float = 0.3
    components: int | None = None
    views_per_epoch: int = 3
    discount: float = 0.7

    def __post_init__(self) -> None:
        if self.views < 0:
            raise InputError(f"views must be 0 or more, got {self.views}")
        views = Views(self.views or 1, self.swap, self.views_per_epoch)
        Teachers(self.teachers, self.held_out, self.clusters, views, self.components)
        if self.start not in ("fresh", "dense"):
            raise InputError(f"start must be fresh or dense, got {self.start!r}")
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.hard <= 1:
            raise InputError(f"hard must be a share in [0, 1], got {self.hard}")
        if not 0 <= self.discount < float("inf"):
            raise InputError(f"discount must be at least 0, got {self.discount}")

    @property
    def name(self) -> str:
        return "oosd"

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Teachers, trained before the first round on parts of the model's own training records."""
        views = Views(self.views, self.swap, self.views_per_epoch) if self.views else None
        distillation = Distillation(Teachers(self.teachers, self.held_out, self.clusters, views, self.components))
        return (distillation, FreshStart()) if self.start == "fresh" else (distillation,)

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Mean cross-entropy against the targets."""
        assert batch.teacher_log_probs is not None  # the trainer refuses a run without them
        label = one_hot(batch.labels, batch.logits.shape[-1])
        soft = torch.softmax(_discounted(batch.teacher_log_probs / self.temperature, label, self.discount), -1)
        target = (1 - self.hard) * soft + self.hard * label
        return batch.mean(-(target * torch.log_softmax(batch.logits, -1)).sum(-1))


def _discounted(
    log_p: Float[Tensor, "S B C"], label: Int64[Tensor, "S B C"], discount: float
) -> Float[Tensor, "S B C"]:
    """Log-probabilities, up to a constant, in which the label has less: the discount, or half of its
    lead over the next class where that is smaller, so that the likeliest class stays.
    """
    lead = (log_p - log_p.masked_fill(label.bool(), -torch.inf).amax(-1, keepdim=True)).gather(
        -1, label.argmax(-1, keepdim=True)
    )
    return log_p - torch.where(lead > 0, (lead / 2).clamp(max=discount), discount) * label
