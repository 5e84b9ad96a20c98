"""Several inputs of a model, packed into one row of numbers for each record."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from jaxtyping import Real

from wemem.errors import InputError

Kind = Literal["float", "int", "bool"]
Arrays = Mapping[str, Any] | tuple[Any, ...]

#: Whole numbers that float32 holds exactly.
EXACT = 2**24


@dataclass(frozen=True)
class Part:
    """One input of a model.

    Args:
        name: the name of the argument; None for a positional one.
        shape: the shape of one record.
        kind: the type that the model receives: float32, int64 or bool.
    """

    name: str | None
    shape: tuple[int, ...]
    kind: Kind

    @property
    def size(self) -> int:
        """The number of numbers in one record."""
        return prod(self.shape)


@dataclass(frozen=True)
class PackedInputs:
    """The inputs of a model in the order in which a row of numbers holds them.

    Args:
        parts: the inputs, all named or none.
    """

    parts: tuple[Part, ...]

    @property
    def discrete(self) -> bool:
        """True if some input has whole numbers, which cannot move by a small step."""
        return any(part.kind != "float" for part in self.parts)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]] | tuple[tuple[int, ...], ...]:
        """The shape of one record of every input, by name or by position."""
        named = {part.name: part.shape for part in self.parts if part.name is not None}
        return named or tuple(part.shape for part in self.parts)


def pack(name: str, inputs: Arrays) -> tuple[Real[np.ndarray, "N F"], PackedInputs]:
    """Pack several arrays into one row for each record.

    Args:
        name: the name of the data set, for messages.
        inputs: arrays ``(N, ...)`` by the name of the argument, or in the order of the arguments.

    Returns:
        The rows, int64 if all inputs are whole numbers and float32 otherwise, and the inputs.

    Raises:
        InputError: no input, arrays of different lengths, text, or whole numbers that float32 does
            not hold beside inputs of other numbers.

    >>> rows, inputs = pack("toy", {"ids": np.array([[5, 0], [7, 2]]), "age": np.array([0.5, 2.0])})
    >>> rows.tolist(), inputs.shapes
    ([[5.0, 0.0, 0.5], [7.0, 2.0, 2.0]], {'ids': (2,), 'age': ()})
    """
    named = inputs.items() if isinstance(inputs, Mapping) else ((None, array) for array in inputs)
    arrays = [(key, np.asarray(array)) for key, array in named]
    lengths = {len(array) if array.ndim else 0 for _, array in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(
            f"data set {name!r}: expected inputs of as many records each, got {[array.shape for _, array in arrays]}; "
            "give every record all inputs"
        )
    parts = tuple(Part(key, array.shape[1:], _kind(name, key, array)) for key, array in arrays)
    whole = all(part.kind != "float" for part in parts)
    for (key, array), part in zip(arrays, parts, strict=True):
        if not whole and part.kind == "int" and np.abs(array).max() > EXACT:
            raise InputError(
                f"data set {name!r}: expected whole numbers up to {EXACT:,} beside other inputs, got "
                f"{np.abs(array).max():,} in {key!r}; number them anew"
            )
    rows = [array.reshape(len(array), -1) for _, array in arrays]
    return np.concatenate(rows, axis=1, dtype=np.int64 if whole else np.float32, casting="unsafe"), PackedInputs(parts)


def _kind(name: str, key: str | None, array: np.ndarray[Any, Any]) -> Kind:
    if array.dtype.kind not in "biuf":
        raise InputError(f"data set {name!r}: expected numbers in input {key!r}, got {array.dtype}; convert them first")
    return "bool" if array.dtype.kind == "b" else "float" if array.dtype.kind == "f" else "int"
