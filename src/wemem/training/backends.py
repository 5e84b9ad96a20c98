"""The backends of an ensemble, which compute its models all at once or one after another.

``vmapped`` runs all models through one batched graph: that of ``torch.func``, or batched matrix
products for a model that consists of fully connected layers alone. ``sequential`` calls the module
of each model as plain PyTorch does, and is the test oracle for the others. ``compiled`` does the
same with compiled training steps (:mod:`wemem.training.compiled`), on request. The default is a
fixed rule, so that the same study gives the same bytes everywhere: models with convolutions are
computed one after another, all others at once. ``benchmarks/ensemble_backends.py`` justifies it for
the CPU, and ``benchmarks.gpu`` for a GPU, where the steps of several convolutional models run on
streams beside each other (:class:`~wemem.training.device.CudaSettings`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Real, Shaped
from torch import Tensor, nn
from torch.func import vmap

from wemem.errors import InputError
from wemem.models.outputs import changes_outputs, require_logits
from wemem.models.table import FITTED, TableInput
from wemem.notes import Note
from wemem.training.compiled import compiled_for, logits_of, require_compiler
from wemem.training.device import CPU, Streams, cuda_settings
from wemem.training.dropout import SeededDropout, count_calls_anew
from wemem.training.ensemble import Ensemble

Backend = Literal["vmapped", "sequential", "compiled"]
#: What a study can request.
REQUESTS = ("auto", "vmapped", "sequential", "compiled")
State = Mapping[str, Tensor]
Forward = Callable[[State, State, Real[Tensor, "S B ..."]], Float[Tensor, "S B C"]]


#: The reason that models with BatchNorm are not vmapped in bf16 on a GPU (measured with PyTorch 2.11).
MIXED_BATCH_NORM = "PyTorch does not vmap BatchNorm of bfloat16 records and float32 statistics on a GPU"


@dataclass(frozen=True)
class Choice:
    """A backend and the reason for its choice, which results report."""

    backend: Backend
    reason: Note


def choose_backend(
    ensemble: Ensemble,
    example: Shaped[Tensor, "2 ..."],
    classes: int,
    requested: str = "auto",
    device: torch.device = CPU,
    precision: str = "fp32",
) -> Choice:
    """Choose the backend of an ensemble: the requested one, or that of the fixed rule, after a
    trial with two models.

    Args:
        ensemble: the models, at least one.
        example: two records.
        classes: C, the number of logits that the model must return.
        requested: the requested backend, one of :data:`REQUESTS`.
        device: the device that will compute the models; the trial runs on the CPU.
        precision: the precision of the training, as in :class:`~wemem.training.recipe.Recipe`.

    Raises:
        InputError: the request is unknown, the model fails on the example, ``vmapped`` is
            requested for a model that cannot be vmapped, or ``compiled`` without a compiler.
    """
    if requested not in REQUESTS:
        raise InputError(f"backend must be one of {', '.join(REQUESTS)}, got {requested!r}")
    for module in (ensemble.module(0), ensemble.module(0).train()):
        require_logits(module, example, classes)
    if requested == "sequential":
        return Choice("sequential", Note("requested"))
    if requested == "compiled":
        require_compiler(device)
        return Choice("compiled", Note("requested"))
    if requested == "auto" and _has_convolution(ensemble.template):
        return Choice("sequential", Note(f"convolutions_on_{'cpu' if device.type == 'cpu' else 'gpu'}"))
    mixed = precision == "bf16" and device.type == "cuda" and _has_batch_norm(ensemble.template)
    failure = MIXED_BATCH_NORM if mixed else _vmap_failure(ensemble, example)
    if failure is None:
        return Choice("vmapped", Note("requested" if requested == "vmapped" else "no_convolutions"))
    if requested == "vmapped":
        raise InputError(f"the model cannot be vmapped: {failure}; use the sequential backend")
    return Choice("sequential", Note("not_vmappable", {"error": failure}))


def forward_of(backend: Backend, template: nn.Module, batch: int = 0) -> Forward:
    """Build the function that maps stacked state and inputs ``(S, B, ...)`` to logits ``(S, B,
    C)``.

    Args:
        backend: the backend.
        template: the module of every model.
        batch: the number of records of a full batch, which the backend ``compiled`` compiles.
    """
    if backend == "vmapped" and _is_plain_stack(template):
        return _stack_of(template)

    compute = compiled_for(batch) if backend == "compiled" else logits_of

    def one(parameters: State, buffers: State, x: Tensor) -> Tensor:
        return compute(template, parameters, buffers, x)

    def each(parameters: State, buffers: State, x: Tensor) -> Tensor:
        # unbind, because the gradient of an index is a tensor of all models
        apart = {n: t.unbind() for n, t in parameters.items()}
        streams = Streams(x.device, cuda_settings().streams)
        logits = []
        for k in range(len(x)):
            with streams.of(k):
                logits.append(one({n: t[k] for n, t in apart.items()}, {n: t[k] for n, t in buffers.items()}, x[k]))
        streams.join()
        return torch.stack(logits)

    return vmap(one, randomness="different") if backend == "vmapped" else each


#: Layers whose stacked form is written out in :func:`_stack_of`.
STACKED = (nn.Flatten, nn.Linear, nn.ReLU, SeededDropout, TableInput)


def _layers(template: nn.Module) -> list[tuple[str, nn.Module]]:
    """The names and modules of a sequence's layers, and of plain sequences within it; a module that
    occurs twice is listed twice.
    """
    return [
        (name, layer)
        for name, layer in template.named_modules(remove_duplicate=False)
        if layer is not template and not (type(layer) is nn.Sequential and not _hooked(layer))
    ]


def _hooked(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _is_plain_stack(template: nn.Module) -> bool:
    """Return True if a model is a plain sequence of fully connected layers."""
    layers = [layer for _, layer in _layers(template)]
    parameters = [p for layer in layers for p in layer.parameters()]
    return (
        type(template) is nn.Sequential
        and not changes_outputs(template)
        and all(type(layer) in STACKED for layer in layers)
        and not any(map(_hooked, layers))
        and all((layer.start_dim, layer.end_dim) == (1, -1) for layer in layers if isinstance(layer, nn.Flatten))
        and all(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
        and len(set(map(id, parameters))) == len(parameters)
    )


def _stack_of(template: nn.Module) -> Forward:
    """Build the same function as by vmap with fewer operators, because vmap dominates the time of
    few, small models.
    """

    def forward(parameters: State, buffers: State, x: Real[Tensor, "S B ..."]) -> Float[Tensor, "S B C"]:
        state = {**parameters, **buffers}
        count_calls_anew(template)
        for name, layer in _layers(template):
            if isinstance(layer, nn.Flatten):
                x = x.flatten(2)
            elif isinstance(layer, nn.Linear):
                # all dimensions between that of the models and the last one become rows
                rows = torch.baddbmm(state[f"{name}.bias"][:, None], x.flatten(1, -2), state[f"{name}.weight"].mT)
                x = rows.reshape(*x.shape[:-1], rows.shape[-1])
            elif isinstance(layer, TableInput):
                x = layer.encode(x, *(state[f"{name}.{number}"][:, None] for number in FITTED))
            elif isinstance(layer, SeededDropout):
                x = layer.drop(x, state[f"{name}.key"])
            else:
                x = x.relu()
        return x

    return forward


def in_precision(forward: Forward, precision: str, device: torch.device) -> Forward:
    """Wrap a forward function in the precision of a :class:`~wemem.training.recipe.Recipe`; logits
    stay float32.
    """
    if precision != "bf16":
        return forward

    def autocast(parameters: State, buffers: State, x: Tensor) -> Tensor:
        # without the cache, which concurrent threads would share; a step casts its weights only
        # once
        with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            return forward(parameters, buffers, x).float()

    return autocast


def _has_convolution(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in module.modules())


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for m in module.modules())


def _vmap_failure(ensemble: Ensemble, example: Tensor) -> str | None:
    """Run two models forward and backward on two records; the first line of the error, or None."""
    pair = ensemble.select([0, len(ensemble) - 1])
    leaves = {n: t.requires_grad_() for n, t in pair.parameters.items()}
    was_training = pair.template.training
    try:
        pair.template.train()
        logits = forward_of("vmapped", pair.template)(leaves, pair.buffers, torch.stack([example, example]))
        torch.autograd.grad(logits.sum(), list(leaves.values()), allow_unused=True)
    except Exception as error:  # the code of the model is the user's and may raise anything
        return _first_line(error)
    finally:
        pair.template.train(was_training)
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
