"""Bound on the influence of one record on a step: clipped gradients and Gaussian noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.defenses.capabilities import Capability


@dataclass(frozen=True)
class Clipping(Capability):
    """A bound on every record's gradient, of which the trainer sums the clipped ones.

    Args:
        norm: largest L2 norm of one record's gradient, over all trainable parameters together.
        noise: standard deviation of the noise on the sum, in units of ``norm``.
    """

    replaces_loss: ClassVar[bool] = True

    norm: float
    noise: float

    def scale(self, squares: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """Factor for each record's gradient, from its squared norm.

        >>> Clipping(norm=1.0, noise=0.0).scale(torch.tensor([25.0, 0.25, 0.0]))
        tensor([0.2000, 1.0000, 1.0000])
        """
        return (self.norm / squares.sqrt()).clamp(max=1.0)

    def noisy_mean(self, total: Mapping[str, Tensor], count: int, seed: int) -> dict[str, Tensor]:
        """Gradient of a step from the sum of the clipped gradients.

        Args:
            total: the sum, by parameter.
            count: number of records in the sum.
            seed: seed of the noise, specific to the model and the step; the noise is drawn on the
                CPU.
        """
        draw = torch.Generator().manual_seed(seed)
        std = self.noise * self.norm
        return {
            name: (t + std * torch.randn(t.shape, generator=draw).to(t.device)) / count for name, t in total.items()
        }
