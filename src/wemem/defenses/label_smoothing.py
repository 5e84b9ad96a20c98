"""Label smoothing, a cheap control (Szegedy et al., CVPR 2016).

The target is ``1 - smoothing`` at the true class plus ``smoothing / C`` at each of the ``C``
classes, the true one included.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.defenses.base import Defense
from wemem.defenses.batch import Batch
from wemem.errors import InputError


@dataclass(frozen=True)
class LabelSmoothing(Defense):
    """Cross-entropy against smoothed labels.

    Args:
        smoothing: share of the target that is spread over all classes, in [0, 1); 0 is plain
            fine-tuning.

    Raises:
        InputError: a share out of range.

    >>> batch = Batch(torch.tensor([[[0.75, 0.25]]]).log(), torch.tensor([[0]]), torch.ones(1, 1), 0)
    >>> LabelSmoothing(smoothing=0.5).loss(batch)  # -0.75 log 0.75 - 0.25 log 0.25
    tensor([0.5623])
    """

    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing must be in [0, 1), got {self.smoothing}; at 1 no label would be learned")

    @property
    def name(self) -> str:
        return "label_smoothing"

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Mean cross-entropy against the smoothed labels."""
        uniform = -torch.log_softmax(batch.logits, -1).mean(-1)
        return batch.mean((1 - self.smoothing) * batch.cross_entropy() + self.smoothing * uniform)
