"""Gradients that bound the effect of each record on a step: they are clipped per record, summed,
and noise is added.

For models of linear layers the clipped sum has a closed form (:mod:`~wemem.training.ghost_norms`).
For all other models, and as the test oracle of the closed form, the gradient of each record is
computed: a record is a batch of one, with the dropout mask that it has in its batch. ``vmapped``
computes the records of a model at once (``torch.func``), ``sequential`` one after another as plain
PyTorch does. In both cases the models follow one another. The records of a model are divided into
portions of at most ``PORTION`` gradient entries, because the gradients of a whole batch take ``B``
times the memory of the weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Real
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from wemem.defenses.clipping import Clipping
from wemem.randomness import derive_seed
from wemem.training.backends import Backend, State
from wemem.training.dropout import dropout_at
from wemem.training.ghost_norms import clipped_sums, has_closed_form

#: The number of gradient entries at a time: 16 MiB of float32, about the size of a cache; 64 MiB
#: took twice the time.
PORTION = 2**22

#: The gradients of some records of one model, a tensor ``(B, ...)`` for every parameter.
RecordGradients = dict[str, Float[Tensor, "B ..."]]


@dataclass(frozen=True, eq=False)
class PerSample:
    """Gradients of the models that train together, under a defense that clips.

    Args:
        clipping: the bound on each gradient, and the noise.
        template: the architecture of the models, in training mode.
        backend: the backend of the models.
        seeds: the seed of each model.
        pruned: the masks of pruned parameters, True at pruned weights, whose gradients are 0.
        closed_form: True if the model has a closed form
            (:func:`~wemem.training.ghost_norms.has_closed_form`).
    """

    clipping: Clipping
    template: nn.Module
    backend: Backend
    seeds: Sequence[int]
    pruned: Mapping[str, Bool[Tensor, "K ..."]]
    closed_form: bool

    @classmethod
    def of(
        cls, clipping: Clipping, template: nn.Module, example: Real[Tensor, "B ..."], backend: Backend,
        seeds: Sequence[int], pruned: Mapping[str, Bool[Tensor, "K ..."]],
    ) -> "PerSample":  # fmt: skip
        """Build the value, with the closed form where the model has one; a few records decide this."""
        return cls(clipping, template, backend, seeds, pruned, has_closed_form(template, example))

    def gradients(
        self, parameters: State, buffers: State, x: Real[Tensor, "S B ..."], labels: Int64[Tensor, "S B"],
        weights: Float[Tensor, "S B"], taking: Sequence[int], steps: Sequence[int],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Compute the gradients ``(S, ...)`` of one step, in the order of the parameters.

        Args:
            parameters: the parameters of the S models that take part, each ``(S, ...)``.
            buffers: the buffers of these models, each ``(S, ...)``.
            x: a batch of records for each model.
            labels: the labels of these records.
            weights: the weight of each record, 1 for a record and 0 for padding; always on the CPU.
            taking: the places of the S models.
            steps: the number of steps that each model has taken before; the noise is drawn from it
                and the seed.
        """
        places = torch.tensor(taking, device=labels.device)
        pruned = {n: t[places] for n, t in self.pruned.items()}
        compute_sums = self._closed_form_sums if self.closed_form else self._sums_of_each
        sums = compute_sums(parameters, buffers, x, labels, weights, pruned)
        gradients = [
            self.clipping.noisy_mean(
                {n: t[row] for n, t in sums.items()}, int(weights[row].sum()),
                derive_seed(self.seeds[k], "dp noise", step),
            )
            for row, (k, step) in enumerate(zip(taking, steps, strict=True))
        ]  # fmt: skip
        return tuple(torch.stack([gradient[name] for gradient in gradients]) for name in parameters)

    def _closed_form_sums(
        self, parameters: State, buffers: State, x: Tensor, labels: Tensor, weights: Tensor, pruned: State
    ) -> dict[str, Float[Tensor, "S ..."]]:
        return clipped_sums(
            self.template, self.backend, parameters, buffers, x, labels, weights, pruned, self.clipping
        )  # fmt: skip

    def _sums_of_each(
        self, parameters: State, buffers: State, x: Tensor, labels: Tensor, weights: Tensor, pruned: State
    ) -> dict[str, Float[Tensor, "S ..."]]:
        """The sums of clipped gradients of each model, from the gradient of each record."""
        sums: list[dict[str, Tensor]] = []
        for row in range(len(labels)):
            places = weights[row].nonzero()[:, 0].to(labels.device)
            portions = self._records(
                {n: t[row].detach() for n, t in parameters.items()}, {n: t[row] for n, t in buffers.items()},
                x[row, places], labels[row, places], places, {n: t[row] for n, t in pruned.items()},
            )  # fmt: skip
            total = {n: torch.zeros(t.shape[1:], device=t.device) for n, t in parameters.items()}
            for some in portions:
                for name, tensor in clipped(some, self.clipping).items():
                    total[name] += tensor.sum(0)
            sums.append(total)
        return {name: torch.stack([total[name] for total in sums]) for name in parameters}

    def _records(
        self, parameters: State, buffers: State, x: Real[Tensor, "B ..."], labels: Int64[Tensor, " B"],
        places: Int64[Tensor, " B"], pruned: Mapping[str, Bool[Tensor, "..."]],
    ) -> Iterator[RecordGradients]:  # fmt: skip
        """Iterate over the gradients of one model's records in portions; they are 0 at pruned
        weights.
        """

        def loss(parameters: State, x: Tensor, label: Tensor, place: Tensor) -> Tensor:
            with dropout_at(self.template, place):
                logits = functional_call(self.template, ({**parameters, **buffers},), (x[None],))
            return cross_entropy(logits, label[None])

        def one_by_one(parameters: State, *records: Tensor) -> RecordGradients:
            leaves = {n: t.clone().requires_grad_() for n, t in parameters.items()}
            rows = [
                torch.autograd.grad(
                    loss(leaves, *row), list(leaves.values()), allow_unused=True, materialize_grads=True
                )
                for row in zip(*records, strict=True)
            ]
            return {n: torch.stack([row[i] for row in rows]) for i, n in enumerate(leaves)}

        at_once = vmap(grad(loss), in_dims=(None, 0, 0, 0), randomness="different")
        compute = at_once if self.backend == "vmapped" else one_by_one
        size = max(1, PORTION // sum(t.numel() for t in parameters.values()))
        for some in zip(*(torch.split(t, size) for t in (x, labels, places)), strict=True):
            gradients = compute(parameters, *some)
            yield {n: t.masked_fill(pruned[n], 0.0) if n in pruned else t for n, t in gradients.items()}


def clipped(records: RecordGradients, clipping: Clipping) -> RecordGradients:
    """Scale the gradient of each record down to the bound of its norm, where it is longer.

    >>> [round(x, 6) for x in clipped({"w": torch.tensor([[3.0, 4.0]])}, Clipping(1.0, 0.0))["w"][0].tolist()]
    [0.6, 0.8]
    """
    squares = [tensor.reshape(len(tensor), -1).square().sum(1) for tensor in records.values()]
    scale = clipping.scale(torch.stack(squares).sum(0))
    return {n: t * scale.view(-1, *[1] * (t.dim() - 1)) for n, t in records.items()}
