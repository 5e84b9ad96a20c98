"""The backends of an ensemble: its models are computed all at once, or one after another.

``vmapped`` runs all models through one batched graph: that of ``torch.func``, or batched matrix products where a model
is nothing but fully connected layers. ``sequential`` calls each model's module as plain PyTorch would, and is the
oracle for both. The default is a fixed rule that
``benchmarks/ensemble_backends.py`` justifies for the CPU, so that the same study gives the same bytes everywhere. For
CUDA it is not measured: there a step of one small model keeps a GPU waiting, so all models are computed at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.func import functional_call, vmap

from wemem.errors import InputError
from wemem.models.outputs import require_logits
from wemem.training.device import CPU
from wemem.training.dropout import SeededDropout, count_calls_anew
from wemem.training.ensemble import Ensemble

Backend = Literal["vmapped", "sequential"]
State = Mapping[str, Tensor]
Forward = Callable[[State, State, Real[Tensor, "S B ..."]], Float[Tensor, "S B C"]]


@dataclass(frozen=True)
class Choice:
    """A backend and the reason for it, as results show them."""

    backend: Backend
    reason: str


def choose_backend(
    ensemble: Ensemble,
    example: Float[Tensor, "2 ..."],
    classes: int,
    requested: str = "auto",
    device: torch.device = CPU,
) -> Choice:
    """The backend for an ensemble: as requested, or by the fixed rule, after a trial with two models.

    Args:
        ensemble: at least one model.
        example: two records.
        classes: C, the number of logits the model must give.
        requested: ``auto``, ``vmapped`` or ``sequential``.
        device: the device that will compute it; the trial is made on the CPU.

    Raises:
        InputError: an unknown request, a model that fails on plain input, or one that cannot be vmapped but was
            asked to.
    """
    if requested not in ("auto", "vmapped", "sequential"):
        raise InputError(f"backend must be auto, vmapped or sequential, got {requested!r}")
    for module in (ensemble.module(0), ensemble.module(0).train()):
        require_logits(module, example, classes)
    if requested == "sequential":
        return Choice("sequential", "requested")
    if requested == "auto" and device.type == "cpu" and _has_convolution(ensemble.template):
        return Choice("sequential", "rule: convolutions run faster one model after another on a CPU")
    failure = _vmap_failure(ensemble, example)
    if failure is None:
        rule = "rule: no convolutions" if device.type == "cpu" else "rule: all at once on a GPU, which is not measured"
        return Choice("vmapped", "requested" if requested == "vmapped" else rule)
    if requested == "vmapped":
        raise InputError(f"the model cannot be vmapped: {failure}; use the sequential backend")
    return Choice("sequential", f"the model cannot be vmapped: {failure}")


def forward_of(backend: Backend, template: nn.Module) -> Forward:
    """The function that maps stacked state and inputs ``(S, B, ...)`` to logits ``(S, B, C)``."""
    if backend == "vmapped" and _is_plain_stack(template):
        return _stack_of(template)

    def one(parameters: State, buffers: State, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(template, ({**parameters, **buffers},), (x,))
        return logits

    def each(parameters: State, buffers: State, x: Tensor) -> Tensor:
        return torch.stack(
            [one({n: t[k] for n, t in parameters.items()}, {n: t[k] for n, t in buffers.items()}, x[k])
             for k in range(len(x))]
        )  # fmt: skip

    return vmap(one, randomness="different") if backend == "vmapped" else each


#: Layers whose stacked form is written out in :func:`_stack_of`.
STACKED = (nn.Flatten, nn.Linear, nn.ReLU, SeededDropout)


def _layers(template: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and module of a sequence's layers; one that stands in it twice comes twice."""
    return [(name, layer) for name, layer in template.named_modules(remove_duplicate=False) if layer is not template]


def _is_plain_stack(template: nn.Module) -> bool:
    """Whether a model is nothing but fully connected layers, one after another."""
    layers = [layer for _, layer in _layers(template)]
    parameters = [p for layer in layers for p in layer.parameters()]
    return (
        type(template) is nn.Sequential
        and all(type(layer) in STACKED for layer in layers)
        and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
        and all((layer.start_dim, layer.end_dim) == (1, -1) for layer in layers if isinstance(layer, nn.Flatten))
        and all(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
        and len(set(map(id, parameters))) == len(parameters)
    )


def _stack_of(template: nn.Module) -> Forward:
    """The same function as by vmap, with fewer operators: for few and small models vmap itself takes the longest."""

    def forward(parameters: State, buffers: State, x: Real[Tensor, "S B ..."]) -> Float[Tensor, "S B C"]:
        state = {**parameters, **buffers}
        count_calls_anew(template)
        for name, layer in _layers(template):
            if isinstance(layer, nn.Flatten):
                x = x.flatten(2)
            elif isinstance(layer, nn.Linear):
                # whatever stands between the models and the last dimension is a row
                rows = torch.baddbmm(state[f"{name}.bias"][:, None], x.flatten(1, -2), state[f"{name}.weight"].mT)
                x = rows.reshape(*x.shape[:-1], rows.shape[-1])
            elif isinstance(layer, SeededDropout):
                x = layer.drop(x, state[f"{name}.key"])
            else:
                x = x.relu()
        return x

    return forward


def in_precision(forward: Forward, precision: str, device: torch.device) -> Forward:
    """The same function in the precision of a :class:`~wemem.training.recipe.Recipe`; logits are float32."""
    if precision == "fp32":
        return forward

    def autocast(parameters: State, buffers: State, x: Tensor) -> Tensor:
        # no cache: a step's weights are cast once, and threads that train side by side would share it
        with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            return forward(parameters, buffers, x).float()

    return autocast


def _has_convolution(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in module.modules())


def _vmap_failure(ensemble: Ensemble, example: Tensor) -> str | None:
    """Forward and backward of two models on two records; the first line of the error, or None."""
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
