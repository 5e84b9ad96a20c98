"""New weights for a module that exists: the same architecture, drawn anew by the layers' own rules."""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.models.custom import unwrapped

#: Methods by which layers of PyTorch draw their weights.
_DRAWS = ("reset_parameters", "_reset_parameters")


def factory_of(module: nn.Module) -> Callable[[tuple[int, ...], int], nn.Module]:
    """Return a factory of modules with the architecture of this one and weights of their own.

    Each layer draws its weights by its ``reset_parameters``. A model whose constructor draws them
    otherwise is therefore trained from another start than the given one was; its own factory is
    exact.

    Args:
        module: any module; it is not changed.

    Raises:
        InputError: numbers that no layer draws, so that a copy would keep what this module has
            learned.

    >>> layer = nn.Linear(2, 3)
    >>> bool((factory_of(layer)((2,), 3).weight == layer.weight).all())
    False
    """
    try:
        plain = copy.deepcopy(unwrapped(module)).cpu().requires_grad_(True)
    except RuntimeError as error:  # weights that a hook computes, as torch.nn.utils.prune does
        raise InputError(
            "expected a module that can be copied, got one whose weights are computed by hooks; make its pruning "
            "permanent (torch.nn.utils.prune.remove), or give a factory as the architecture"
        ) from error
    with torch.no_grad():
        for _, tensor in _numbers(plain):
            tensor.fill_(torch.nan)
    with torch.random.fork_rng(devices=[]):
        _draw(probe := copy.deepcopy(plain))
    absent = next((name for name, tensor in _numbers(probe) if not tensor.isfinite().all()), None)
    if absent is not None:
        raise InputError(
            f"expected layers whose reset_parameters() draws all of their numbers, got {absent!r}, which none draws; "
            "give a factory, factory(input_shape, classes) -> module, as the architecture"
        )

    def build(input_shape: tuple[int, ...], classes: int) -> nn.Module:
        _draw(fresh := copy.deepcopy(plain))
        return fresh.train()

    return build


def _numbers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and floating-point buffers by name."""
    yield from module.named_parameters()
    yield from ((name, buffer) for name, buffer in module.named_buffers() if buffer.is_floating_point())


def _draw(module: nn.Module) -> None:
    """Let every layer draw its weights, the inner ones first, as constructors do."""
    for part in reversed(list(module.modules())):
        draw = next((getattr(part, name) for name in _DRAWS if hasattr(part, name)), None)
        if draw is not None:
            draw()
