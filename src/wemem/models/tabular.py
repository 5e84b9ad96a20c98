"""The fully connected network of the paper."""

from dataclasses import dataclass
from math import prod

from torch import nn

from wemem.errors import InputError


@dataclass(frozen=True)
class FullyConnected:
    """A network ``input - hidden ... - classes`` with ReLU and dropout after each hidden layer.

    The defaults are those of Shang et al.

    Args:
        hidden: the widths of the hidden layers.
        dropout: the probability that a hidden unit is dropped.

    >>> FullyConnected(hidden=(3,)).build((2, 2), 5)[1]
    Linear(in_features=4, out_features=3, bias=True)
    """

    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden must be one or more positive widths, got {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
        """A freshly initialized network; PyTorch's global generator draws the weights."""
        widths = [prod(input_shape), *self.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for i, width in enumerate(self.hidden):
            layers += [nn.Linear(widths[i], width), nn.ReLU(), nn.Dropout(self.dropout)]
        return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
