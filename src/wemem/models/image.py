"""The width, the input and the initial weights that all networks for small images share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite

from torch import nn

from wemem.errors import InputError


@dataclass(frozen=True)
class ImageModel(ABC):
    """A convolution network for images of about 32 x 32, with a stem that keeps their size.

    Args:
        width: width of every layer as a multiple of the published one; less than 1 for a laptop.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.width) and self.width > 0):
            raise InputError(f"width must be positive and finite, got {self.width}; 1.0 is the published network")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized network, ``(B, C, H, W) -> (B, classes)``.

        PyTorch's global generator draws the weights. Convolutions begin as He et al. (ICCV 2015) have it, normal with
        variance 2 / fan-out; scales of BatchNorm at 1, shifts at 0.

        Raises:
            InputError: the data are not images.
        """
        if len(input_shape) != 3:
            raise InputError(
                f"{type(self).__name__} expected images (channels, height, width), got records of shape {input_shape}; "
                "use the model fc, or bring images"
            )
        network = self.network(input_shape[0], classes)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return network

    @abstractmethod
    def network(self, channels: int, classes: int) -> nn.Module:
        """The layers, in the order of the computation: the classifier is the last of them."""

    def scaled(self, channels: int) -> int:
        """Channels of a layer that has ``channels`` in the published network."""
        return max(1, round(channels * self.width))


def convolution(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width, divided by the stride; without a bias, for BatchNorm follows it."""
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
