"""Out-of-sample distillation inside the pruning loop.

Each member's training records are split over ``teachers`` models of the same architecture so that every record is
held out from ``held_out`` of them. Fine-tuning then learns, instead of the hard label ``y``, what models that never
saw the record say of it::

    q(x) = mean over the teachers t that did not train on x of softmax(f_t(x))
    target = (1 - hard) * normalize(q ** (1 / temperature)) + hard * onehot(y)
    loss = - sum_c target_c log p_c

A record's own label then reaches the pruned model only through teachers of *other* records, so that members look
like non-members even to an attacker who compares with reference models.

The idea is Split-AI with self-distillation (SELENA, Tang et al., USENIX Security 2022), which trains one model from
scratch on such targets. Ours is its place in iterative pruning: the dense model comes as it is, every round fine-tunes
on the targets. ``held_out=1`` is cross-fitting, SELENA has 10 of 25. The dense model is not protected by this.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from wemem.data.split import Teachers
from wemem.defenses.base import Batch, Defense
from wemem.errors import InputError


@dataclass(frozen=True)
class OutOfSampleDistillation(Defense):
    """Learn every record from models that did not train on it.

    Args:
        teachers: teachers a member has.
        held_out: of how many of them each record is held out.
        temperature: of the targets; above 1 they are softer than the teachers, below 1 sharper.
        hard: share of the hard label in the target, in [0, 1]; 1 is plain fine-tuning.

    Raises:
        InputError: a value out of range.

    >>> uniform = torch.full((1, 1, 2), 0.5).log()
    >>> batch = Batch(uniform, torch.tensor([[0]]), torch.ones(1, 1), 0, taught=torch.tensor([[[0.9, 0.1]]]).log())
    >>> OutOfSampleDistillation().loss(batch)  # whatever the target, a uniform prediction costs log 2
    tensor([0.6931])
    """

    teachers: int = 10
    held_out: int = 3
    temperature: float = 1.0
    hard: float = 0.0

    def __post_init__(self) -> None:
        Teachers(self.teachers, self.held_out)
        if not self.temperature > 0:
            raise InputError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.hard <= 1:
            raise InputError(f"hard must be a share in [0, 1], got {self.hard}")

    @property
    def name(self) -> str:
        return "oosd"

    @property
    def taught_by(self) -> Teachers:
        """Trained before the first round, on parts of the member's own training records."""
        return Teachers(self.teachers, self.held_out)

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Mean cross-entropy against the targets."""
        assert batch.taught is not None  # the trainer refuses a run without them
        soft = torch.softmax(batch.taught / self.temperature, -1)
        target = (1 - self.hard) * soft + self.hard * one_hot(batch.labels, soft.shape[-1])
        return batch.mean(-(target * torch.log_softmax(batch.logits, -1)).sum(-1))
