"""The logits in whatever a classifier returns.

The rule, in this order:

* a tensor ``(B, C)`` is the logits;
* a mapping or an object with ``logits`` (``ModelOutput``, the named tuples of torchvision) gives that entry;
* of any other tuple or list the first entry counts, as for classifiers that return auxiliary outputs in training;
* for two classes, one number per record, ``(B, 1)`` or ``(B,)``, is the log odds ``z`` of class 1: logits ``(0, z)``.

Anything else is refused, unless the study names the entry: ``[model] output = "scores"``, or the position in a tuple.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wemem.errors import InputError


def returning_logits(module: nn.Module, classes: int, output: str | int | None = None) -> nn.Module:
    """The same module, which from now on returns its logits; the names of its weights stay as they are.

    Args:
        module: a classifier.
        classes: C, the number of classes.
        output: name or position of the logits in the module's output, where the rule does not find them.

    >>> pair = returning_logits(nn.LSTM(3, 2), classes=2)  # an LSTM returns its outputs and its state
    >>> pair(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    module.register_forward_hook(_Logits(classes, output))
    return module


class _Logits:
    """A forward hook; an object, so that a copy of a module carries it along."""

    def __init__(self, classes: int, output: str | int | None) -> None:
        self.classes, self.output = classes, output

    def __call__(self, _: nn.Module, __: object, returned: object) -> Tensor:
        found = _entry(returned, self.output)
        if not isinstance(found, Tensor):
            raise InputError(
                f"expected logits from the model, got {_described(returned)}; name the entry of the logits by "
                '[model] output = "NAME"'
            )
        if self.classes == 2 and (found.ndim == 1 or (found.ndim == 2 and found.shape[1] == 1)):
            return torch.stack([torch.zeros_like(found.reshape(-1)), found.reshape(-1)], dim=1)
        return found


def _entry(returned: Any, output: Any) -> object:
    if output is not None:
        try:
            return returned[output] if isinstance(returned, Mapping | tuple | list) else getattr(returned, str(output))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"expected {output!r} in the model's output, got {_described(returned)}") from error
    if isinstance(returned, Tensor):
        return returned
    if isinstance(returned, Mapping):
        return returned.get("logits")
    if hasattr(returned, "logits"):
        return returned.logits
    return returned[0] if isinstance(returned, tuple | list) and returned else None


def _described(returned: Any) -> str:
    if isinstance(returned, Mapping):
        return f"{type(returned).__name__} with entries {', '.join(map(repr, list(returned)[:8]))}"
    if isinstance(returned, tuple | list):
        return f"{type(returned).__name__} of {len(returned)} entries"
    return type(returned).__name__


def require_logits(module: nn.Module, records: Tensor, classes: int) -> Tensor:
    """The logits of a classifier for a few records, without a gradient.

    Raises:
        InputError: the module fails on the records, whatever its code raises, or returns anything but finite floating
            logits ``(B, classes)``.
    """
    shape, wanted = tuple(records.shape), (len(records), classes)
    try:
        with torch.no_grad():
            logits = module(records)
    except InputError:
        raise
    except Exception as error:  # the code of the model is the user's and may raise anything
        line = next(iter(str(error).splitlines()), "")[:200]
        raise InputError(
            f"the model fails on {str(records.dtype).removeprefix('torch.')} input of shape {shape}: "
            f"{type(error).__name__}: {line}; check its input size and type"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != wanted or not logits.is_floating_point():
        found = tuple(logits.shape) if isinstance(logits, Tensor) else _described(logits)
        raise InputError(
            f"expected the model to map {shape} to logits {wanted}, got {found}; give it one output for each class"
        )
    return logits
