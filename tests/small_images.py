"""A small image model with everything that ties channels together, and images to train it on."""

import numpy as np
import torch
from torch import nn

from wemem.data.dataset import Dataset
from wemem.models import CustomModel

SHAPE, CLASSES = (2, 6, 6), 3


class Residual(nn.Module):
    """Convolution, residual and depthwise blocks with BatchNorm, pooling, a flattened image and a hidden layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 6, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(6)
        self.block = nn.Conv2d(6, 6, 3, padding=1)
        self.block_norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.narrow = nn.Conv2d(6, 5, 1)
        self.dropout = nn.Dropout(0.1)
        self.hidden = nn.Linear(5 * 9, 8)
        self.out = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = torch.relu(x + self.block_norm(self.block(x)))
        x = torch.max_pool2d(torch.relu(self.narrow(self.depthwise(x))), 2)
        logits: torch.Tensor = self.out(self.dropout(torch.relu(self.hidden(x.flatten(1)))))
        return logits


def residual(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Residual(input_shape[0], classes)


MODEL = CustomModel("small_images:residual")


def images(n: int = 90, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    features = rng.normal(0, 1, (CLASSES, *SHAPE))[labels] + rng.normal(0, 1.0, (n, *SHAPE))
    return Dataset.from_arrays("images", features.astype(np.float32), labels)
