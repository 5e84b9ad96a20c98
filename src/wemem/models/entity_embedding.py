"""A network for tables with an embedding for each column of categories.

Guo and Berkhahn, "Entity Embeddings of Categorical Variables", arXiv:1604.06737. The width of an
embedding follows from the number of categories, ``min(50, (n + 1) // 2)``, the usual rule of
practice, where the paper chooses widths by hand.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.models.tabular import FullyConnected

#: The largest width of an embedding.
WIDEST = 50


def embedding_width(categories: int) -> int:
    """The width of the embedding of a column.

    >>> [embedding_width(n) for n in (2, 7, 500)]
    [1, 4, 50]
    """
    return min(WIDEST, (categories + 1) // 2)


class EntityNetwork(nn.Module):
    """Embeddings of the categories beside the numbers, and a fully connected network."""

    def __init__(self, settings: "EntityEmbedding", classes: int) -> None:
        super().__init__()
        categories = settings.categories
        self.coded = [i for i, n in enumerate(categories) if n]
        self.numbers = [i for i, n in enumerate(categories) if not n]
        self.most = [n - 1 for n in categories if n]
        self.columns = nn.ModuleList(nn.Embedding(categories[i], embedding_width(categories[i])) for i in self.coded)
        width = len(self.numbers) + sum(embedding_width(categories[i]) for i in self.coded)
        self.network = FullyConnected(settings.hidden, settings.dropout).build((width,), classes)

    def forward(self, x: Real[Tensor, "B F"]) -> Float[Tensor, "B C"]:
        # an attack may move a code by noise; it is then read as the nearest one
        whole = x[:, self.coded].float().round().long()
        codes = [code.clamp(0, most) for code, most in zip(whole.unbind(1), self.most, strict=True)]
        parts = [column(code) for column, code in zip(self.columns, codes, strict=True)]
        logits: Tensor = self.network(torch.cat([*parts, x[:, self.numbers].float()], 1))
        return logits


@dataclass(frozen=True)
class EntityEmbedding:
    """A fully connected network with an embedding for each column of categories.

    Args:
        categories: the number of categories of each column, whose codes are ``0 .. n - 1``; 0 for a
            column of numbers. A table sets it (``data.categories = "codes"``).
        hidden: the widths of the hidden layers.
        dropout: the probability that a hidden unit is dropped.

    >>> network = EntityEmbedding(categories=(7, 0), hidden=(8,)).build((2,), 3)
    >>> network(torch.tensor([[6.0, -0.5]])).shape
    torch.Size([1, 3])
    """

    categories: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        FullyConnected(self.hidden, self.dropout)
        if self.categories and (min(self.categories) < 0 or 1 in self.categories or not any(self.categories)):
            raise InputError(
                f"categories must be 0 for each column of numbers and at least 2 for each of categories, got "
                f"{self.categories}; for numbers alone use the model fc"
            )

    def require_features(self, features: Real[np.ndarray, "N F"]) -> None:
        """Refuse features whose columns of categories hold anything but their codes.

        Raises:
            InputError: a number that is not whole, negative, or not below the column's number of
                categories.
        """
        for i, (column, count) in enumerate(zip(features.T, self.categories, strict=False)):
            if count and not ((column == np.floor(column)) & (column >= 0) & (column < count)).all():
                raise InputError(
                    f"expected codes 0..{count - 1} in column {i} of {count} categories, got {column.min()}.."
                    f"{column.max()}; set model.categories to the number of categories of each column"
                )

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized network, ``(B, F) -> (B, classes)``; PyTorch's global generator
        draws the weights.

        Raises:
            InputError: the records do not have one feature for each column.
        """
        if input_shape != (len(self.categories),):
            raise InputError(
                f"entity_embedding expected records of {len(self.categories)} columns, as many as model.categories, "
                f"got records of shape {input_shape}; list the categories of every column"
            )
        return EntityNetwork(self, classes)
