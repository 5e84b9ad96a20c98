"""ResNet-9, the network of the fast public recipes for CIFAR-10.

Page, "How to Train Your ResNet", 2018, reaches 94 % on CIFAR-10 in 24 epochs with it
(https://github.com/davidcpage/cifar10-fast). Eight convolutions of 3 x 3 and a classifier; two
residual blocks, no identity shortcut across a change of shape. The logits are an eighth of the
classifier's output, which has no bias. His later versions begin with a fixed whitening of patches;
we keep the learned first convolution, because the paper's networks have one.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from wemem.models.image import ImageModel, convolution

#: Factor of the logits, which keeps their first values small.
SCALE = 0.125


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A 3 x 3 convolution with BatchNorm and ReLU."""
    return nn.Sequential(convolution(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two blocks whose output is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(block(channels, channels), block(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.blocks(x)
        return added


class NineLayers(nn.Module):
    """Convolutions with three poolings, a maximum over the image, and a linear classifier."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        first, second, third, last = widths
        self.features = nn.Sequential(
            block(channels, first),
            block(first, second), nn.MaxPool2d(2), Residual(second),
            block(second, third), nn.MaxPool2d(2),
            block(third, last), nn.MaxPool2d(2), Residual(last),
        )  # fmt: skip
        self.classifier = nn.Linear(last, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).amax((2, 3))) * SCALE
        return logits


@dataclass(frozen=True)
class ResNet9(ImageModel):
    """ResNet of 9 layers and 6.57 million parameters, for images of at least 8 x 8 pixels."""

    def network(self, channels: int, classes: int) -> nn.Module:
        widths = self.scaled(64), self.scaled(128), self.scaled(256), self.scaled(512)
        return NineLayers(channels, widths, classes)
