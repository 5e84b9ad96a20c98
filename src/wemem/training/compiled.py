"""Training steps compiled by ``torch.compile``, for models that are computed one after another.

PyTorch fuses BatchNorm, ReLU and sums, which are bound by memory, into one pass. One graph serves
all models of an architecture: PyTorch compares the modules before it reuses a graph. Only full
batches of training are compiled; the last batch of an epoch and all evaluations are computed as
usual. Compilation needs a C++ compiler, and its results stay in PyTorch's own cache on disk, from
which a later process begins within seconds.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wemem.errors import InputError

One = Callable[[nn.Module, Mapping[str, Tensor], Mapping[str, Tensor], Tensor], Tensor]


def logits_of(
    template: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
) -> Tensor:
    """Compute the logits ``(B, C)`` of one model from its own state."""
    logits: Tensor = functional_call(template, ({**parameters, **buffers},), (x,))
    return logits


@cache
def _compiled() -> One:
    """The function :func:`logits_of`, compiled; made once, because PyTorch loads its compiler for it."""
    # one thread, because whole models run side by side on the cores
    return torch.compile(logits_of, dynamic=False, options={"cpp.threads": 1})


def compiled_for(batch: int) -> One:
    """Build the function :func:`logits_of` whose full batches of training are compiled.

    Args:
        batch: the number of records of a full batch.
    """

    def one(template: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        compute = _compiled() if template.training and len(x) == batch else logits_of
        return compute(template, parameters, buffers, x)

    return one


def require_compiler(device: torch.device) -> None:
    """Refuse compilation where it is not possible.

    Raises:
        InputError: the device is no CPU, or there is no C++ compiler.
    """
    if device.type != "cpu":
        raise InputError(f"backend = 'compiled' expected the CPU, got {device.type}; leave it out")
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InputError(
            f"backend = 'compiled' expected a C++ compiler, got none named {compiler!r}; install one, name it by CXX, "
            "or leave it out"
        )
