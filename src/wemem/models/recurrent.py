"""Recurrent networks for text.

``lstm`` is Hochreiter and Schmidhuber, Neural Computation 1997, and ``gru`` is Cho et al., EMNLP
2014. The classifier reads the state after the last token that is not padding.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.models.tokens import TokenModel, real_tokens


class RecurrentNetwork(nn.Module):
    """Embeddings, recurrent layers, and a linear classifier of the state after the last token."""

    def __init__(self, settings: "RecurrentModel", classes: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(settings.vocabulary, settings.width)
        self.layers = settings.layer(settings.width, settings.hidden, settings.depth, batch_first=True)
        self.dropout, self.classifier = nn.Dropout(settings.dropout), nn.Linear(settings.hidden, classes)

    def forward(self, ids: Real[Tensor, "B L"]) -> Float[Tensor, "B C"]:
        states: Tensor = self.layers(self.tokens(ids.long()))[0]
        # the place of the last token; a record of padding alone is read to its first place
        places = torch.arange(ids.shape[1], device=ids.device)
        last = (real_tokens(ids) * places).amax(1)
        state = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        logits: Tensor = self.classifier(self.dropout(state))
        return logits


@dataclass(frozen=True)
class RecurrentModel(TokenModel):
    """A recurrent classifier of sequences of token ids.

    Args:
        hidden: the width of a state.
        depth: the number of recurrent layers.
        dropout: the probability that a unit of the last state is dropped.
    """

    hidden: int = 64
    depth: int = 1
    dropout: float = 0.1

    layer: ClassVar[type[nn.LSTM] | type[nn.GRU]]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "depth"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")

    def network(self, length: int, classes: int) -> nn.Module:
        return RecurrentNetwork(self, classes)


@dataclass(frozen=True)
class TextLstm(RecurrentModel):
    """A network of long short-term memory; each layer has four gates."""

    layer = nn.LSTM


@dataclass(frozen=True)
class TextGru(RecurrentModel):
    """A network of gated recurrent units; each layer has three gates."""

    layer = nn.GRU
