"""Models of several inputs, fed from one row of numbers for each record."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wemem.data.packed_inputs import PackedInputs
from wemem.errors import InputError
from wemem.models import CustomModel, Model

DTYPES = {"float": torch.float32, "int": torch.int64, "bool": torch.bool}


@dataclass(frozen=True)
class SeveralInputsModel:
    """A model that takes several inputs, from rows in which they are packed.

    Args:
        model: a model of the user's. Its factory receives the shape of every input, by name or by
            position, as ``input_shape``.
        inputs: the inputs.
    """

    model: Model
    inputs: PackedInputs

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized network, ``(B, F) -> (B, classes)``.

        Raises:
            InputError: a model of this package, which takes one input.
        """
        if not isinstance(self.model, CustomModel):
            raise InputError(
                f"{type(self.model).__name__} expected one input for each record, got {len(self.inputs.parts)}; give a "
                "model of your own, module:factory"
            )
        return fed_from_rows(self.model.build_for(self.inputs.shapes, classes), self.inputs)


def fed_from_rows(module: nn.Module, inputs: PackedInputs) -> nn.Module:
    """Make a module take packed rows, by a hook; the names of its weights do not change.

    Args:
        module: the network, which is changed.
        inputs: the inputs that a row holds.
    """
    module.register_forward_pre_hook(_Unpack(inputs), with_kwargs=True)
    return module


class _Unpack:
    """A hook that gives a module its inputs; it is an object, so that a copy of the module keeps it."""

    def __init__(self, inputs: PackedInputs) -> None:
        self.inputs = inputs

    def __call__(
        self, _: nn.Module, arguments: tuple[Tensor, ...], __: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        (rows,) = arguments
        parts = self.inputs.parts
        cuts = torch.split(rows, [part.size for part in parts], dim=1)
        values = [
            cut.reshape(cut.shape[0], *part.shape).to(DTYPES[part.kind]) for cut, part in zip(cuts, parts, strict=True)
        ]
        named = {part.name: value for part, value in zip(parts, values, strict=True) if part.name is not None}
        return ((), named) if named else (tuple(values), {})
