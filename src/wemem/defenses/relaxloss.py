"""RelaxLoss: keep the mean loss near a level instead of at zero (Chen et al., ICLR 2022).

With ``L`` the mean cross-entropy of a batch::

    even epochs:  loss = |L - alpha|              # below alpha this is gradient ascent
    odd epochs:   loss = L                        if L > alpha
                  loss = mean CE against targets  otherwise, posterior flattening

The target of a record has its own probability ``p_y``, held fixed, at the true class and ``(1 -
p_y) / (C - 1)`` at every other, so that no single wrong class wins. This is the published
algorithm, which flattens every record of the batch. The authors' code for images flattens only the
wrongly predicted ones and ascends the loss of all. Epochs are counted within a round.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.defenses.base import Defense
from wemem.defenses.batch import Batch
from wemem.errors import InputError


@dataclass(frozen=True)
class RelaxLoss(Defense):
    """Hold the training loss at a level.

    Args:
        alpha: level of the loss, in nats; 0 is plain fine-tuning.

    Raises:
        InputError: a negative or infinite level.

    >>> batch = Batch(torch.zeros(1, 1, 2), torch.tensor([[0]]), torch.ones(1, 1), epoch=0)
    >>> RelaxLoss(alpha=1.0).loss(batch)  # |log 2 - 1|
    tensor([0.3069])
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise InputError(f"alpha must be finite and 0 or more, got {self.alpha}; for no level use Undefended()")

    @property
    def name(self) -> str:
        return "relaxloss"

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Loss of each model, by the case that its own mean cross-entropy is in."""
        hard = batch.cross_entropy()
        mean = batch.mean(hard)
        if batch.epoch % 2 == 0:
            return (mean - self.alpha).abs()
        return torch.where(mean > self.alpha, mean, batch.mean(_flattened(batch, hard)))


def _flattened(batch: Batch, hard: Float[Tensor, "S B"]) -> Float[Tensor, "S B"]:
    """Cross-entropy of each record against its own probability and the rest spread evenly, in nats."""
    truth = (-hard).exp().detach()
    other = (1 - truth) / (batch.logits.shape[-1] - 1)
    every = -torch.log_softmax(batch.logits, -1).sum(-1)
    return truth * hard + other * (every - hard)
