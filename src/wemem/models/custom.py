"""A user's own model, from ``package.module:factory``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from wemem.errors import InputError
from wemem.models.outputs import returning_logits
from wemem.resolve import Given, resolve

#: The shape of one record: of one input, or of several by name or by position.
Shapes = tuple[int, ...] | dict[str, tuple[int, ...]] | tuple[tuple[int, ...], ...]
#: Python modules whose hooks compute a weight before each call. A network with such a hook cannot
#: be copied.
_OLD_NORMS = ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")


@dataclass(frozen=True)
class CustomModel:
    """A user's classifier: ``factory(input_shape, classes, **arguments) -> nn.Module`` that returns
    logits ``(B, C)``.

    Wrappers for several devices (``DataParallel``) and for compilation are removed. Lazy layers get
    their sizes from one record of zeros. :mod:`wemem.models.outputs` selects the logits in the
    output.

    Args:
        factory: the function that builds the module, as ``package.module:function`` or itself.
        arguments: the keyword arguments of the factory.
        output: the name or position of the logits in the model's output; None applies the default
            rule.
    """

    factory: str | Given
    arguments: Mapping[str, Any] = field(default_factory=dict)
    output: str | int | None = None

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Call the factory and check the module that it returns.

        Raises:
            InputError: the factory does not exist, fails, or returns no trainable float32 module.
        """
        return self.build_for(input_shape, classes)

    def build_for(self, shapes: Shapes, classes: int) -> nn.Module:
        """Build the module for one input, or for several by name or position.

        Raises:
            InputError: as :meth:`build`, or lazy layers in a model of several inputs.
        """
        factory = resolve(self.factory)
        if not callable(factory):
            raise InputError(f"expected {self.factory!r} to be a function, got {factory!r}")
        try:
            module = factory(shapes, classes, **self.arguments)
        except Exception as error:  # the factory is the user's code and may raise anything
            call = f"{self.factory}(input_shape, classes, **arguments)"
            line = " ".join(str(error).split())[:300]
            raise InputError(f"expected {call} to work, got {type(error).__name__}: {line}") from error
        if not isinstance(module, nn.Module):
            raise InputError(f"expected {self.factory!r} to return a torch.nn.Module, got {type(module).__name__}")
        module = unwrapped(module)
        _require_trainable(module, self.factory)
        _initialize_lazy_layers(module, shapes)
        return returning_logits(module, classes, self.output)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _require_trainable(module: nn.Module, factory: str | Given) -> None:
    """Refuse a module that is scripted, that cannot be copied, or whose weights are not float32."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InputError(f"expected a plain module from {factory!r}, got a scripted one; return it before torch.jit")
    if (name := old_norm(module)) is not None:
        raise InputError(
            f"expected layers that can be copied from {factory!r}, got {name!r} under the deprecated "
            "torch.nn.utils.weight_norm or spectral_norm; use the one in torch.nn.utils.parametrizations"
        )
    others = {p.dtype for p in module.parameters()} - {torch.float32}
    if others:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others))
        raise InputError(f"expected a float32 model from {factory!r}, got {names}; return module.float()")


def old_norm(module: nn.Module) -> str | None:
    """The first layer under a deprecated norm, whose weight is computed before each call; None if
    there is none.
    """
    layers = module.named_modules()
    old = (name for name, part in layers for hook in part._forward_pre_hooks.values() if _is_old_norm(hook))
    return next(old, None)


def _is_old_norm(hook: object) -> bool:
    return type(hook).__module__ in _OLD_NORMS


def _initialize_lazy_layers(module: nn.Module, shapes: Shapes) -> None:
    """Pass one record of zeros through a module with lazy layers, in evaluation mode, to create
    their weights.
    """
    if not any(is_lazy(p) for p in (*module.parameters(), *module.buffers())):
        return
    if not all(isinstance(size, int) for size in shapes):
        raise InputError(f"expected layers of stated sizes in a model of several inputs, got lazy ones for {shapes}")
    training, example = module.training, torch.zeros(1, *shapes)
    try:
        with torch.no_grad():
            module.eval()(example)
    except Exception as error:  # the code of the model is the user's and may raise anything
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"the model fails on input of shape {tuple(example.shape)}, from which its lazy layers get their sizes: "
            f"{line}; check its input size"
        ) from error
    module.train(training)
