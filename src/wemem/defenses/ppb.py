"""PPB, pair-based posterior balancing (Yuan & Zhang, USENIX Security 2022).

With ``s(x)`` the posterior of a record, sorted in descending order, and ``h`` half of a batch's
``n`` records::

    loss = mean_i CE(x_i) + alpha * mean_{i < h} KL(s(x_i) || s(x_{i+h}))

If ``n`` is odd, its last record is in no pair.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.defenses.base import Defense
from wemem.defenses.batch import Batch
from wemem.errors import InputError


@dataclass(frozen=True)
class PPB(Defense):
    """Pull the sorted posteriors of pairs of records together.

    Args:
        alpha: weight of the divergence; the source tries 1, 2, 4, 8 and 16. 0 is plain fine-tuning.

    Raises:
        InputError: a negative or infinite weight.

    >>> logits = torch.tensor([[[0.75, 0.25], [0.25, 0.75]]]).log()  # sorted, the two are the same
    >>> PPB().loss(Batch(logits, torch.tensor([[0, 1]]), torch.ones(1, 2), 0))  # only -log 0.75 is left
    tensor([0.2877])
    """

    alpha: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise InputError(f"alpha must be finite and 0 or more, got {self.alpha}; for no balancing use Undefended()")

    @property
    def name(self) -> str:
        return "ppb"

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Mean cross-entropy, plus ``alpha`` times the mean divergence of the pairs."""
        return batch.mean(batch.cross_entropy()) + self.alpha * _divergence(batch)


def _divergence(batch: Batch) -> Float[Tensor, " S"]:
    """Mean over the pairs of each model, in nats; 0 for a single record, which makes no pair."""
    log_p = torch.log_softmax(batch.logits, -1).sort(dim=-1, descending=True).values
    half = batch.weights.sum(1).long() // 2
    # models have different numbers of records, so each has its partners at a distance of its own
    index = torch.arange(log_p.shape[1], device=log_p.device)
    partner = (index + half[:, None]).clamp(max=log_p.shape[1] - 1)
    log_q = log_p.gather(1, partner[..., None].expand_as(log_p))
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    paired = torch.where(index < half[:, None], divergence, 0.0)
    return paired.sum(1) / half.clamp(min=1)
