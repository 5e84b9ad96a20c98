"""The width, the input and the initial weights that all networks for small images share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite

from torch import nn

from wemem.errors import InputError


@dataclass(frozen=True)
class ImageModel(ABC):
    """A convolutional network for images of about 32 x 32 pixels, with a stem that keeps their
    size.

    Args:
        width: the width of every layer, as a multiple of the published one; use less than 1 on a
            laptop.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.width) and self.width > 0):
            raise InputError(f"width must be positive and finite, got {self.width}; 1.0 is the published network")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized network, ``(B, C, H, W) -> (B, classes)``.

        PyTorch's global generator draws the weights. Convolutions are initialized as in He et al.
        (ICCV 2015), normal with variance 2 / fan-out. The scales of BatchNorm start at 1, its
        shifts at 0.

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
        """Build the layers in the order of computation; the last one is the classifier."""

    def scaled(self, channels: int) -> int:
        """The number of channels of a layer that has ``channels`` in the published network."""
        return max(1, round(channels * self.width))


def convolution(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that divides height and width by its stride; it has no bias, because BatchNorm
    follows it.
    """
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
