"""SAMIA, the attack made for pruned models: self-attention over the classes."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, relu, scaled_dot_product_attention

from wemem.attacks.classifier import ClassifierAttack, log_odds, own_class_first
from wemem.attacks.learned import Rows
from wemem.errors import InputError
from wemem.signals import Signals

#: A sensitivity below this is round-off of the probabilities it was measured from.
LEAST_SENSITIVITY = 1e-8


@dataclass(frozen=True)
class Samia(ClassifierAttack):
    """``P(member | p, s, y)`` by a transformer encoder whose tokens are the classes.

    Yuan & Zhang, "Membership inference attacks and defenses in neural network pruning", USENIX
    Security 2022. Class ``c`` is the token ``(p_c, s_c, [c = y])``, with ``s_c`` the sensitivity of
    ``p_c`` to the input. Three post-norm encoder layers, then a two-layer head on all tokens side
    by side.

    We depart from it where that saves time and costs no held-out accuracy. The time grows with the
    number of tokens:

    * the probability enters as log-odds, the sensitivity as its logarithm;
    * tokens come with the true class first and the others by falling probability, and only the
      first ``tokens`` of them: on Location, twelve classes give the accuracy that all thirty give;
    * the published head knew the class of a token from its place; ours knows only the token of the
      true class;
    * a unit that dropout removes is removed from all tokens of a record, and no attention weight is
      dropped.

    Args:
        tokens: classes that the network sees, at most.
        layers: encoder layers.
        width: units of a token.
        heads: attention heads; they divide the width.
        feedforward: hidden units of an encoder layer's perceptron.
    """

    steps: int = 120
    tokens: int = 12
    layers: int = 3
    width: int = 64
    heads: int = 4
    feedforward: int = 128

    name = "samia"
    required_signals = frozenset({"sensitivity"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("tokens", "layers", "width", "heads", "feedforward"):
            if getattr(self, field) < 1:
                raise InputError(f"attack 'samia' expected {field} >= 1, got {getattr(self, field)}")
        if self.width % self.heads:
            raise InputError(
                f"attack 'samia' expected a width that {self.heads} heads divide, got {self.width}; "
                f"{-(-self.width // self.heads) * self.heads} would do"
            )

    def inputs(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n F"]:
        sensitivity = signals.extras["sensitivity"]
        if sensitivity.shape != signals.logits.shape:
            raise InputError(
                f"expected sensitivity of the logits' shape {signals.logits.shape}, got {sensitivity.shape}"
            )
        odds, labels = log_odds(signals.logits[model, rows]), signals.labels[rows]
        change = np.log(np.maximum(sensitivity[model, rows].astype(np.float64), LEAST_SENSITIVITY))
        order = own_class_first(odds, labels)[:, : self.tokens]
        chosen = [np.take_along_axis(values, order, axis=1) for values in (odds, change)]
        return np.concatenate([*chosen, np.eye(signals.classes)[labels]], axis=1)

    def network(self, width: int, classes: int) -> nn.Module:
        return ClassEncoder(classes, self)


class ClassEncoder(nn.Module):
    """The network of :class:`Samia`.

    ``(n, 2T + C)`` log-odds and sensitivities of T classes, the record's own first, and its one-hot
    label, to ``(n, 1)`` log-odds of membership.
    """

    own: Tensor

    def __init__(self, classes: int, size: Samia) -> None:
        super().__init__()
        tokens = min(size.tokens, classes)
        self.parts = [tokens, tokens, classes]
        self.embed = nn.Linear(3, size.width)
        self.embed_label = nn.Linear(classes, size.width, bias=False)
        self.encoder = nn.Sequential(*(EncoderLayer(size) for _ in range(size.layers)))
        self.hidden = nn.Linear(tokens * size.width, size.width)
        self.out = nn.Linear(size.width, 1)
        self.register_buffer("own", torch.eye(1, tokens), persistent=False)

    def forward(self, x: Float32[Tensor, "n F"]) -> Float32[Tensor, "n 1"]:
        odds, change, label = torch.split(x, self.parts, dim=1)
        own = self.own.expand_as(odds)
        tokens = self.embed(torch.stack([odds, change, own], dim=2))
        tokens = tokens + own[:, :, None] * self.embed_label(label)[:, None]
        encoded: Tensor = self.encoder(gelu(tokens))
        logits: Tensor = self.out(relu(self.hidden(encoded.flatten(1))))
        return logits


class EncoderLayer(nn.Module):
    """A post-norm transformer encoder layer (Vaswani et al. 2017), ``(n, T, width)`` to the same.

    PyTorch's own drops single entries and attention weights: the one takes a random number per
    entry, the other keeps the fused attention kernel from being used; together, half of the time.
    """

    def __init__(self, size: Samia) -> None:
        super().__init__()
        self.heads, self.dropout = size.heads, size.dropout
        self.project_in = nn.Linear(size.width, 3 * size.width)
        self.project_out = nn.Linear(size.width, size.width)
        self.expand = nn.Linear(size.width, size.feedforward)
        self.contract = nn.Linear(size.feedforward, size.width)
        self.norm_attention = nn.LayerNorm(size.width)
        self.norm_feedforward = nn.LayerNorm(size.width)

    def forward(self, x: Float32[Tensor, "n T W"]) -> Float32[Tensor, "n T W"]:
        x = self.norm_attention(x + self._drop(self._attend(x)))
        contracted: Tensor = self.contract(self._drop(gelu(self.expand(x))))
        normed: Tensor = self.norm_feedforward(x + self._drop(contracted))
        return normed

    def _attend(self, x: Float32[Tensor, "n T W"]) -> Float32[Tensor, "n T W"]:
        projected: Tensor = self.project_in(x)
        query, key, value = torch.unflatten(projected, 2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.project_out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return mixed

    def _drop(self, x: Float32[Tensor, "n T W"]) -> Float32[Tensor, "n T W"]:
        """Dropout of a unit in all tokens at once: one random number per record and unit."""
        return x * dropout(torch.ones_like(x[:, :1]), self.dropout, self.training)
