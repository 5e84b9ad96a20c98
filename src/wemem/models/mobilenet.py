"""MobileNetV2 for CIFAR.

Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
CVPR 2018, table 2. The stem and the first stage of 24 channels keep height and width, so that 32 x
32 pixels end as 4 x 4 and not as 1 x 1. The number of parameters is the paper's, 2.24 million with
ten classes. The paper's dropout before the classifier is left out.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from wemem.models.image import ImageModel, convolution

#: The expansion, channels, number of blocks and first stride of each stage.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM, HEAD = 32, 1280


def normalized(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution with BatchNorm and ReLU6 after it."""
    return [convolution(inputs, outputs, size, stride=stride, groups=groups), nn.BatchNorm2d(outputs), nn.ReLU6()]


class InvertedResidual(nn.Module):
    """An expansion, a depthwise convolution and a linear projection; the input is added where the
    shape is the same.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *(normalized(inputs, hidden, 1) if expansion > 1 else []),
            *normalized(hidden, hidden, 3, stride=stride, groups=hidden),
            convolution(hidden, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class MobileNetwork(nn.Module):
    """A stem, stages of inverted residuals, a widening 1 x 1 convolution and a linear classifier."""

    def __init__(
        self, channels: int, stem: int, stages: list[tuple[int, int, int, int]], head: int, classes: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = normalized(channels, stem, 3)
        width = stem
        for expansion, outputs, count, stride in stages:
            for i in range(count):
                layers.append(InvertedResidual(width, outputs, expansion, 1 if i else stride))
                width = outputs
        self.features = nn.Sequential(*layers, *normalized(width, head, 1))
        self.classifier = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class MobileNetV2(ImageModel):
    """MobileNetV2 of 17 inverted residuals; ``width`` scales all channels, without rounding to
    multiples of 8.
    """

    def network(self, channels: int, classes: int) -> nn.Module:
        stages = [(expansion, self.scaled(width), count, stride) for expansion, width, count, stride in STAGES]
        return MobileNetwork(channels, self.scaled(STEM), stages, self.scaled(HEAD), classes)
