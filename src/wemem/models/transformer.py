"""The encoder block of a transformer.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, with the normalization before each part
(Xiong et al., ICML 2020), which trains without a warm-up. The projections of queries, keys and
values are linear layers of their own, so that whole heads can be removed.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from wemem.errors import InputError

#: The score of a token that no other attends to. It is finite, so that a record of padding alone
#: gives finite outputs.
MASKED = -1e9


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself.

    The number of heads follows from the shape of the projections, so that a model of which heads
    were removed runs with the others.

    Args:
        width: the width of a token.
        heads: the number of heads, which divides the width.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B L D"]:
        query, key, value = (self._by_head(part(x)) for part in (self.query, self.key, self.value))
        scores = query @ key.mT / self.head_width**0.5
        if real is not None:
            scores = torch.where(real[:, None, None, :], scores, MASKED)
        mixed: Tensor = scores.softmax(-1) @ value
        attended: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return attended

    def _by_head(self, x: Float[Tensor, "B L HD"]) -> Float[Tensor, "B H L D"]:
        return x.reshape(*x.shape[:2], -1, self.head_width).transpose(1, 2)


class Block(nn.Module):
    """Self-attention and two linear layers, each with a normalization before it and its input added
    after it.

    Args:
        width: the width of a token.
        heads: the number of heads.
        hidden: the width between the two linear layers.
        dropout: the probability that a unit of either part's output is dropped.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B L D"], real: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B L D"]:
        x = x + self.dropout1(self.attention(self.norm1(x), real))
        y: Tensor = x + self.dropout2(self.narrow(gelu(self.widen(self.norm2(x)))))
        return y


def require_transformer_sizes(width: int, depth: int, heads: int, hidden: int, dropout: float) -> None:
    """Refuse sizes of which no transformer can be built.

    Raises:
        InputError: a size is not positive, the heads do not divide the width, or the dropout is no
            probability below 1.
    """
    for name, value in (("width", width), ("depth", depth), ("heads", heads), ("hidden", hidden)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if width % heads:
        raise InputError(f"width must be a multiple of heads, got width = {width} and heads = {heads}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout must be in [0, 1), got {dropout}")
