"""VGG-16 with BatchNorm for CIFAR.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015, configuration D, each convolution followed by BatchNorm (Ioffe, Szegedy, ICML 2015) in place
of a bias. The five poolings reduce 32 x 32 pixels to 1 x 1, so that one linear layer replaces the
paper's three: 14.72 million parameters.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from wemem.models.image import ImageModel, convolution

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class Vgg(nn.Module):
    """Stages of 3 x 3 convolutions, each with a 2 x 2 pooling at its end, and a linear classifier."""

    def __init__(self, channels: int, stages: tuple[tuple[int, int], ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, count in stages:
            for _ in range(count):
                layers += [convolution(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Vgg16(ImageModel):
    """VGG of 13 convolutions and a classifier, for images of at least 32 x 32 pixels."""

    def network(self, channels: int, classes: int) -> nn.Module:
        return Vgg(channels, tuple((self.scaled(width), count) for width, count in STAGES), classes)
