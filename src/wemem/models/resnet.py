"""Residual networks for CIFAR.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016. ResNet-8 and
ResNet-20 are section 4.2's ``6n + 2`` layers of 16, 32 and 64 channels; ResNet-18 is table 1's,
with a stem of one 3 x 3 convolution in place of the 7 x 7 one and the pooling, as is usual on 32 x
32 pixels. Where a block changes the shape, its shortcut is a 1 x 1 convolution (option B). The
small networks have it too, where the paper pads with zeros (option A, 2,752 parameters fewer in
ResNet-20), so that structured pruning can remove channels on both sides of the sum.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import relu

from wemem.models.image import ImageModel, convolution


class BasicBlock(nn.Module):
    """A residual block ``relu(x + F(x))`` with two 3 x 3 convolutions in F."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, outputs, 3, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = convolution(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            # the pooling takes every other pixel, not the convolution: the numbers are the same,
            # and a strided 1 x 1 convolution of few channels cannot be stored channels-last
            # (wemem.training.layout)
            else nn.Sequential(nn.AvgPool2d(1, stride), convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(inner + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """A stem, stages of blocks and a linear classifier; every stage but the first halves height and
    width.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(channels, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU())
        inputs = [widths[0], *widths[:-1]]
        self.stages = nn.Sequential(
            *(
                BasicBlock(outputs if i else before, outputs, stride=2 if stage and not i else 1)
                for stage, (before, outputs) in enumerate(zip(inputs, widths, strict=True))
                for i in range(blocks)
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.stages(self.stem(x)).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class ResNet8(ImageModel):
    """ResNet of 8 layers and 0.08 million parameters.

    >>> sum(p.numel() for p in ResNet8().build((3, 32, 32), 10).parameters())
    78042
    """

    def network(self, channels: int, classes: int) -> nn.Module:
        return ResidualNetwork(channels, tuple(map(self.scaled, (16, 32, 64))), 1, classes)


@dataclass(frozen=True)
class ResNet20(ImageModel):
    """ResNet of 20 layers and 0.27 million parameters."""

    def network(self, channels: int, classes: int) -> nn.Module:
        return ResidualNetwork(channels, tuple(map(self.scaled, (16, 32, 64))), 3, classes)


@dataclass(frozen=True)
class ResNet18(ImageModel):
    """ResNet of 18 layers and 11.17 million parameters."""

    def network(self, channels: int, classes: int) -> nn.Module:
        return ResidualNetwork(channels, tuple(map(self.scaled, (64, 128, 256, 512))), 2, classes)
