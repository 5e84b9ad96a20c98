"""A user's own model, from ``package.module:factory``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from wemem.errors import InputError
from wemem.resolve import resolve


@dataclass(frozen=True)
class CustomModel:
    """Any classifier: ``factory(input_shape, classes, **arguments) -> nn.Module`` that maps ``(B, ...)`` to ``(B, C)``.

    Args:
        factory: ``package.module:function``.
        arguments: keyword arguments for it.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Call the factory.

        Raises:
            InputError: it cannot be found or called, or does not return a module.
        """
        factory = resolve(self.factory)
        if not callable(factory):
            raise InputError(f"expected {self.factory!r} to be a function, got {factory!r}")
        try:
            module = factory(input_shape, classes, **self.arguments)
        except TypeError as error:
            call = f"{self.factory}(input_shape, classes, **arguments)"
            raise InputError(f"expected {call} to work, got: {error}") from error
        if not isinstance(module, nn.Module):
            raise InputError(f"expected {self.factory!r} to return a torch.nn.Module, got {type(module).__name__}")
        return module
