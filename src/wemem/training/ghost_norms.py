"""The sum of clipped gradients for models of linear layers, without computing the gradient of each
record.

The gradient of a linear layer for one record is the outer product of the gradient ``g`` of its
output and its input ``a``, so that its norm follows from theirs (Goodfellow, arXiv:1510.01799;
"ghost norms" in Li et al., ICLR 2022)::

    weight:  ‖g aᵀ‖² = ‖g‖² ‖a‖²      or, over the kept weights M alone,  (g∘g)ᵀ M (a∘a)
    bias:    ‖g‖²

The clipped sum is then ``Σ_i scale_i g_i a_iᵀ``, one matrix product for each layer: about the cost
of a plain step. Whole batches are run, so dropout masks are the batch's own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from wemem.defenses.clipping import Clipping
from wemem.training.backends import Backend, State
from wemem.training.dropout import SeededDropout

#: Layers that have no parameters and keep the records of a batch apart.
PLAIN = (
    nn.Sequential, nn.Flatten, nn.Identity, SeededDropout, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh,
    nn.Sigmoid, nn.Softplus,
)  # fmt: skip


def has_closed_form(template: nn.Module, example: Real[Tensor, "B ..."]) -> bool:
    """Return True if a model has only linear layers, each used once on inputs ``(B, n)``, and
    parameter-free layers.

    Types are compared exactly, because a subclass, or another module, may mix the records of a
    batch.
    """
    modules = [module for _, module in template.named_modules(remove_duplicate=False)]
    linear = [module for module in modules if type(module) is nn.Linear]
    held = [id(p) for module in linear for p in module.parameters()]
    if any(type(module) not in (nn.Linear, *PLAIN) for module in modules) or len(set(held)) < len(held):
        return False
    if any({name for name, _ in module.named_parameters()} - {"weight", "bias"} for module in linear):
        return False
    with torch.no_grad(), _tapped(template, {}) as inputs:
        template(example)
    return all(x.dim() == 2 and len(x) == len(example) for x in inputs.values())


def clipped_sums(
    template: nn.Module, backend: Backend, parameters: State, buffers: State, x: Real[Tensor, "S B ..."],
    labels: Int64[Tensor, "S B"], weights: Float[Tensor, "S B"], pruned: Mapping[str, Bool[Tensor, "S ..."]],
    clipping: Clipping,
) -> dict[str, Float[Tensor, "S ..."]]:  # fmt: skip
    """Compute each model's sum of the clipped cross-entropy gradients of its records, by parameter.

    Args:
        template: the architecture, which must have a closed form (:func:`has_closed_form`), in
            training mode.
        backend: the backend of the models.
        parameters: the parameters of the S models, each ``(S, ...)``.
        buffers: the buffers of the S models, each ``(S, ...)``.
        x: a batch of records for each model.
        labels: the labels of these records.
        weights: the weight of each record, 1 for a record and 0 for padding; on the CPU.
        pruned: the masks of pruned parameters, True at weights without a gradient.
        clipping: the bound on each gradient.
    """
    state = {name: tensor.detach() for name, tensor in {**parameters, **buffers}.items()}
    taps = {
        name: torch.zeros(*labels.shape, layer.out_features, device=x.device).requires_grad_()
        for name, layer in _linear(template).items()
    }

    def one(state: State, taps: State, x: Tensor) -> tuple[Tensor, State]:
        with _tapped(template, taps) as inputs:
            return functional_call(template, (dict(state),), (x,)), inputs

    def each(state: State, taps: State, x: Tensor) -> tuple[Tensor, State]:
        rows = [one({n: t[k] for n, t in state.items()}, {n: t[k] for n, t in taps.items()}, x[k])
                for k in range(len(x))]  # fmt: skip
        return torch.stack([row[0] for row in rows]), {n: torch.stack([row[1][n] for row in rows]) for n in taps}

    logits, inputs = (vmap(one, randomness="different") if backend == "vmapped" else each)(state, taps, x)
    loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    outputs = dict(zip(taps, torch.autograd.grad(loss, list(taps.values())), strict=True))
    inputs = {name: tensor.detach() for name, tensor in inputs.items()}
    squares = torch.stack([
        _squared_norms(name, inputs[name], outputs[name], parameters, pruned) for name in taps
    ]).sum(0)  # fmt: skip
    scale = (clipping.scale(squares) * weights.to(x.device))[..., None]
    sums: dict[str, Tensor] = {}
    for name in taps:
        weight, bias = _parameters_of(name)
        if weight in parameters:
            sums[weight] = (outputs[name] * scale).transpose(1, 2) @ inputs[name]
        if bias in parameters:
            sums[bias] = (outputs[name] * scale).sum(1)
    return {n: sums[n].masked_fill(pruned[n], 0.0) if n in pruned else sums[n] for n in parameters}


def _squared_norms(
    layer: str, a: Float[Tensor, "S B n"], g: Float[Tensor, "S B m"], parameters: State,
    pruned: Mapping[str, Bool[Tensor, "S ..."]],
) -> Float[Tensor, "S B"]:  # fmt: skip
    """Squared norms of each record's gradient of one layer's trainable parameters."""
    weight, bias = _parameters_of(layer)
    a, g = a.square(), g.square()
    squares = g.sum(-1) if bias in parameters else torch.zeros(g.shape[:2], device=g.device)
    if weight in pruned:
        squares = squares + (g * (a @ (~pruned[weight]).float().transpose(1, 2))).sum(-1)
    elif weight in parameters:
        squares = squares + a.sum(-1) * g.sum(-1)
    return squares


def _linear(template: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in template.named_modules() if isinstance(module, nn.Linear)}


def _parameters_of(layer: str) -> tuple[str, str]:
    return (f"{layer}.weight", f"{layer}.bias") if layer else ("weight", "bias")


@contextmanager
def _tapped(template: nn.Module, taps: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """A context in which every linear layer stores its input in the yielded mapping and adds its
    tap to its output.
    """
    inputs: dict[str, Tensor] = {}

    def note(name: str, module: nn.Module, given: tuple[Tensor], output: Tensor) -> Tensor:
        inputs[name] = given[0]
        return output + taps[name] if name in taps else output

    handles = [
        module.register_forward_hook(lambda m, given, output, name=name: note(name, m, given, output))
        for name, module in _linear(template).items()
    ]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
