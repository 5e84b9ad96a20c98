"""DenseNet-121 for CIFAR.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017: the
bottleneck and compression form (BC) with table 1's blocks of 6, 12, 24 and 16 layers, growth rate
32, compression 0.5. The stem is one 3 x 3 convolution of twice the growth rate, as in the paper's
networks for CIFAR: 6.96 million parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from wemem.models.image import ImageModel, convolution

BLOCKS = (6, 12, 24, 16)
GROWTH = 32


class DenseLayer(nn.Module):
    """A layer that appends ``growth`` channels to its input, through a bottleneck of ``4 * growth``
    channels.
    """

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), convolution(inputs, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), convolution(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv2(relu(self.norm2(self.conv1(relu(self.norm1(x))))))], 1)


class Transition(nn.Module):
    """A layer that halves the number of channels, the height and the width."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), convolution(inputs, inputs // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(self.conv(relu(self.norm(x))), 2)


class DenseNetwork(nn.Module):
    """A stem, dense blocks with transitions between them, and a linear classifier."""

    def __init__(self, channels: int, growth: int, blocks: tuple[int, ...], classes: int) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = convolution(channels, width, 3)
        layers: list[nn.Module] = []
        for i, count in enumerate(blocks):
            if i:
                layers.append(Transition(width))
                width //= 2
            layers += [DenseLayer(width + k * growth, growth) for k in range(count)]
            width += count * growth
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(relu(self.norm(self.blocks(self.stem(x)))).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class DenseNet121(ImageModel):
    """DenseNet of 121 layers; ``width`` scales the growth rate."""

    def network(self, channels: int, classes: int) -> nn.Module:
        return DenseNetwork(channels, self.scaled(GROWTH), BLOCKS, classes)
