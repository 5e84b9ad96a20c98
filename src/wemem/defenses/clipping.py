"""What one record may do to a step: its gradient is clipped, and Gaussian noise hides what is left of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Clipping:
    """A bound on every record's gradient. The trainer sums the clipped gradients, in whichever way is cheap.

    Args:
        norm: largest L2 norm of one record's gradient, over all trainable parameters together.
        noise: standard deviation of the noise on the sum, in units of ``norm``.
    """

    norm: float
    noise: float

    def scale(self, squares: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """What to multiply each record's gradient by, from its squared norm.

        >>> Clipping(norm=1.0, noise=0.0).scale(torch.tensor([25.0, 0.25, 0.0]))
        tensor([0.2000, 1.0000, 1.0000])
        """
        return (self.norm / squares.sqrt()).clamp(max=1.0)

    def noisy_mean(self, total: Mapping[str, Tensor], count: int, seed: int) -> dict[str, Tensor]:
        """A step's gradient from the sum of the clipped ones.

        Args:
            total: the sum, by parameter.
            count: records that it is over.
            seed: of the noise, the member's and the step's own; it is drawn on the CPU.
        """
        draw = torch.Generator().manual_seed(seed)
        std = self.noise * self.norm
        return {
            name: (t + std * torch.randn(t.shape, generator=draw).to(t.device)) / count for name, t in total.items()
        }
