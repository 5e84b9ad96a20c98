"""A small vision transformer.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, in the plain form of Beyer, Zhai and
Kolesnikov (arXiv:2205.01580): fixed sine positions in two dimensions, and a classifier of the mean
patch in place of a class token. Patches of 4 x 4 pixels suit images of about 32 x 32. A linear
layer embeds each patch, which computes what the paper's strided convolution does.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.models.transformer import Block, require_transformer_sizes

#: The longest wavelength of the positions, in patches, over 2 pi.
WAVELENGTH = 10_000.0


class VisionNetwork(nn.Module):
    """An embedding of patches, blocks, and a linear classifier of the mean patch."""

    positions: Tensor

    def __init__(self, settings: "VisionTransformer", input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.patch = settings.patch
        self.embed = nn.Linear(channels * self.patch**2, settings.width)
        self.register_buffer(
            "positions", sine_positions(height // self.patch, width // self.patch, settings.width), persistent=False
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            Block(settings.width, settings.heads, settings.hidden, settings.dropout) for _ in range(settings.depth)
        )
        self.norm, self.classifier = nn.LayerNorm(settings.width), nn.Linear(settings.width, classes)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        x = self.dropout(self.embed(patches(images, self.patch)) + self.positions)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(self.norm(x).mean(1))
        return logits


def patches(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B P D"]:
    """Cut images into squares, row by row, each as one vector.

    >>> patches(torch.arange(8.0).view(1, 1, 2, 4), 2).tolist()
    [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
    """
    count, channels, height, width = images.shape
    squares = images.reshape(count, channels, height // size, size, width // size, size)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def sine_positions(rows: int, columns: int, width: int) -> Float[Tensor, "P D"]:
    """The fixed positions of patches: sine and cosine of row and column at ``width / 4``
    frequencies.

    >>> sine_positions(1, 2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    count = width // 4
    frequencies = WAVELENGTH ** -(torch.arange(count) / max(1, count - 1))
    angles = [axis.flatten()[:, None] * frequencies for axis in (x, y)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)


@dataclass(frozen=True)
class VisionTransformer:
    """A transformer for images of about 32 x 32 pixels.

    Args:
        patch: the height and width of a patch, which divide those of the image.
        width: the width of a patch's embedding, a multiple of 4 and of ``heads``.
        depth: the number of blocks.
        heads: the number of attention heads of a block.
        hidden: the width between the two linear layers of a block.
        dropout: the probability that a unit is dropped.

    >>> sum(p.numel() for p in VisionTransformer().build((3, 32, 32), 10).parameters())
    137802
    """

    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    hidden: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_transformer_sizes(self.width, self.depth, self.heads, self.hidden, self.dropout)
        if self.patch < 1:
            raise InputError(f"patch must be at least 1, got {self.patch}")
        if self.width % 4:
            raise InputError(f"width must be a multiple of 4, got {self.width}; rows and columns take half of it each")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized network, ``(B, C, H, W) -> (B, classes)``; PyTorch's global
        generator draws the weights.

        Raises:
            InputError: the data are not images, or the patches do not divide them.
        """
        if len(input_shape) != 3 or input_shape[1] % self.patch or input_shape[2] % self.patch:
            raise InputError(
                f"vit expected images (channels, height, width) of sizes that {self.patch} divides, got records of "
                f"shape {input_shape}; set model.patch, or use the model fc"
            )
        return VisionNetwork(self, input_shape, classes)
