"""A small convolutional network for studies that a CPU finishes in minutes.

Three 3 x 3 convolutions of stride 2, each with BatchNorm and ReLU, an average over each quarter of
the image, and a linear classifier. Strides in place of pooling follow the all-convolutional network
of Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity", ICLR 2015, workshop. The
sizes are ours: no paper reports results for this network.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from wemem.models.image import ImageModel, convolution

#: Height and width that the classifier reads.
QUARTERS = 2


class StridedNetwork(nn.Module):
    """Convolutions that each halve height and width, and a linear classifier."""

    def __init__(self, channels: int, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *widths)):
            layers += [convolution(inputs, outputs, 3, stride=2), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(QUARTERS))
        self.classifier = nn.Linear(QUARTERS**2 * widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


@dataclass(frozen=True)
class ConvNet(ImageModel):
    """Network of 3 convolutions and a classifier, 0.03 million parameters.

    >>> sum(p.numel() for p in ConvNet().build((1, 28, 28), 10).parameters())
    25978
    """

    def network(self, channels: int, classes: int) -> nn.Module:
        return StridedNetwork(channels, tuple(map(self.scaled, (16, 32, 64))), classes)
