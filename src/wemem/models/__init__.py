"""Models that a study can name. A model is a value; :meth:`build` makes a fresh ``nn.Module`` of it."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from wemem.errors import InputError
from wemem.models.custom import CustomModel
from wemem.models.tabular import FullyConnected
from wemem.settings import from_table

__all__ = ["CustomModel", "FullyConnected", "Model", "make_model"]


class Model(Protocol):
    """A recipe for a network."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized classifier: ``(B, *input_shape) -> (B, classes)`` logits."""
        ...


def make_model(kind: str, settings: Mapping[str, Any]) -> Model:
    """A model from its kind (``fc`` or ``package.module:factory``) and settings, as they stand in a study.

    Raises:
        InputError: unknown kind or settings.
    """
    if ":" in kind:
        return CustomModel(kind, dict(settings))
    if kind != "fc":
        raise InputError(f"expected model kind 'fc' or 'package.module:factory', got {kind!r}")
    return from_table(FullyConnected, settings, "model 'fc'")
