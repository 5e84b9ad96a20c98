"""A small transformer for text (Vaswani et al., NeurIPS 2017; the encoder alone, as in Devlin et
al., NAACL 2019).

Positions are learned. The classifier reads the mean of all tokens that are not padding, where BERT
reads a token of its own, because no pretraining prepares such a token.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from wemem.models.tokens import TokenModel, real_tokens
from wemem.models.transformer import Block, require_transformer_sizes

#: The standard deviation of new embeddings, as in BERT.
SPREAD = 0.02


class TextNetwork(nn.Module):
    """Embeddings of tokens and positions, blocks, and a linear classifier of the mean token."""

    def __init__(self, settings: "TextTransformer", length: int, classes: int) -> None:
        super().__init__()
        width = settings.width
        self.tokens = nn.Embedding(settings.vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(length, width))
        nn.init.normal_(self.tokens.weight, std=SPREAD)
        nn.init.normal_(self.positions, std=SPREAD)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            Block(width, settings.heads, settings.hidden, settings.dropout) for _ in range(settings.depth)
        )
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, ids: Real[Tensor, "B L"]) -> Float[Tensor, "B C"]:
        real = real_tokens(ids)
        x = self.dropout(self.tokens(ids.long()) + self.positions)
        for block in self.blocks:
            x = block(x, real)
        weights = real.to(x.dtype)[..., None]
        mean = (self.norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1)
        logits: Tensor = self.classifier(mean)
        return logits


@dataclass(frozen=True)
class TextTransformer(TokenModel):
    """A transformer encoder for sequences of token ids.

    Args:
        depth: the number of blocks.
        heads: the number of attention heads of a block.
        hidden: the width between the two linear layers of a block.
        dropout: the probability that a unit is dropped.

    >>> network = TextTransformer(vocabulary=50, width=8, depth=1, heads=2, hidden=16).build((5,), 2)
    >>> network(torch.tensor([[3, 4, 0, 0, 0]])).shape
    torch.Size([1, 2])
    """

    depth: int = 2
    heads: int = 4
    hidden: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_transformer_sizes(self.width, self.depth, self.heads, self.hidden, self.dropout)

    def network(self, length: int, classes: int) -> nn.Module:
        return TextNetwork(self, length, classes)
