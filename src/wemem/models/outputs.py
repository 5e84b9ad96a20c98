"""Selection of the logits in the output of a classifier.

The first rule that applies decides:

* a tensor ``(B, C)`` is the logits;
* a mapping or an object with an entry ``logits`` (``ModelOutput``, the named tuples of torchvision)
  gives that entry;
* any other tuple or list gives its first entry, as classifiers do that return auxiliary outputs in
  training;
* for two classes, one number per record, ``(B, 1)`` or ``(B,)``, is the log odds ``z`` of class 1:
  logits ``(0, z)``.

Any other output is refused, unless the study names the entry: ``[model] output = "scores"``, or its
position in a tuple.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wemem.errors import InputError


def returning_logits(module: nn.Module, classes: int, output: str | int | None = None) -> nn.Module:
    """Make a module return its logits alone, by a forward hook; the names of its weights do not
    change.

    Args:
        module: the classifier, which is changed.
        classes: C, the number of classes.
        output: the name or position of the logits in the module's output; None applies the rule
            above.

    >>> pair = returning_logits(nn.LSTM(3, 2), classes=2)  # an LSTM returns its outputs and its state
    >>> pair(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    module.register_forward_hook(_Logits(classes, output))
    return module


def changes_outputs(module: nn.Module) -> bool:
    """True if a hook may change what the layers of a plain sequence compute: any hook but the one
    of :func:`returning_logits`, which leaves two and more numbers for each record as they are.
    """
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
    one = any(layer.out_features == 1 for layer in last)
    return one or any(not isinstance(hook, _Logits) or hook.output is not None for hook in hooks)


class _Logits:
    """A forward hook that returns the logits; it is an object, so that a copy of the module keeps
    it.
    """

    def __init__(self, classes: int, output: str | int | None) -> None:
        self.classes, self.output = classes, output

    def __call__(self, _: nn.Module, __: object, returned: object) -> Tensor:
        return logits_in(returned, self.classes, self.output)


def logits_in(returned: object, classes: int, output: str | int | None = None) -> Tensor:
    """Select the logits in what a classifier returned, by the rule above.

    Args:
        returned: the output of the classifier.
        classes: C, the number of classes.
        output: the name or position of the logits; None applies the rule.

    Raises:
        InputError: there are no logits in it.
    """
    logits = _entry(returned, output)
    if not isinstance(logits, Tensor):
        raise InputError(
            f"expected logits from the model, got {_described(returned)}; name the entry of the logits by "
            '[model] output = "NAME"'
        )
    if classes == 2 and (logits.ndim == 1 or (logits.ndim == 2 and logits.shape[1] == 1)):
        return torch.stack([torch.zeros_like(logits.reshape(-1)), logits.reshape(-1)], dim=1)
    return logits


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
    """Compute the logits of a classifier for a few records, without gradients, and check their
    shape.

    Raises:
        InputError: the module fails on the records, with any exception, or does not return
            floating-point logits ``(B, classes)``.
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
        received = tuple(logits.shape) if isinstance(logits, Tensor) else _described(logits)
        raise InputError(
            f"expected the model to map {shape} to logits {wanted}, got {received}; give it one output for each class"
        )
    return logits


#: Operations that only arrange numbers, as autograd names them without their suffix.
_ARRANGING = (
    "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice", "Stack", "Cat", "Clone", "Alias",
    "Transpose", "T", "Permute", "ToCopy",
)  # fmt: skip
_SQUASHING = ("Sigmoid", "Softmax")


def refuse_squashed(module: nn.Module, records: Tensor) -> None:
    """Refuse a module whose last operation is a sigmoid or a softmax, whatever its outputs are.

    Raises:
        InputError: the module gives probabilities in place of logits.
    """
    with torch.enable_grad():
        step = module(records).grad_fn
    waiting = [step]
    while waiting:
        step = waiting.pop()
        name = type(step).__name__.rstrip("0123456789").removesuffix("Backward")
        if name in _SQUASHING:
            raise InputError(
                f"expected a model that returns logits, got one that ends in a {name.lower()}; return what goes into it"
            )
        if step is not None and name in _ARRANGING:
            waiting += [before for before, _ in step.next_functions]
