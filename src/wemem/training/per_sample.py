"""Gradients of each record by itself, for a defense that bounds what one record can do to a step.

A record is computed as a batch of one, with the dropout mask that it has in its batch. ``vmapped`` computes a
member's records at once (``torch.func``), ``sequential`` one after another as plain PyTorch would, and is the oracle
for the other. Either way the members follow one another, and a member's records come in portions of at most
``PORTION`` gradient entries: all at once a member's take ``B`` times the memory of its weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from wemem.defenses.base import Defense, RecordGradients
from wemem.randomness import derive_seed
from wemem.training.backends import Backend, State
from wemem.training.dropout import dropout_at

#: Gradient entries held at a time: 16 MiB of float32, about what a cache holds; 64 took twice the time.
PORTION = 2**22


@dataclass(frozen=True, eq=False)
class PerSample:
    """How the members that train together get their gradients under a defense that is ``per_sample``.

    Args:
        defense: what makes a step's gradient of the records' own.
        template: the members' architecture, in training mode.
        backend: whether a member's records are computed at once.
        seeds: one per member.
        pruned: for the pruned parameters, True at the weights that are; their gradients are 0.
    """

    defense: Defense
    template: nn.Module
    backend: Backend
    seeds: Sequence[int]
    pruned: Mapping[str, Bool[Tensor, "K ..."]]

    def gradients(
        self, parameters: State, buffers: State, x: Float[Tensor, "S B ..."], labels: Int64[Tensor, "S B"],
        weights: Float[Tensor, "S B"], taking: Sequence[int], steps: Sequence[int],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The gradients ``(S, ...)`` of one step, in the order of the parameters.

        Args:
            parameters: of the S members that take part, each ``(S, ...)``.
            buffers: likewise.
            x: their records.
            labels: their labels.
            weights: 0 marks padding, which has no part in anything.
            taking: which of the members they are.
            steps: how many steps each has taken before; with its seed, what the defense draws.
        """
        own = []
        for row, (k, step) in enumerate(zip(taking, steps, strict=True)):
            places = weights[row].nonzero()[:, 0]
            records = self._records(
                {n: t[row].detach() for n, t in parameters.items()}, {n: t[row] for n, t in buffers.items()},
                x[row, places], labels[row, places], places, {n: t[k] for n, t in self.pruned.items()},
            )  # fmt: skip
            own.append(self.defense.gradient(records, derive_seed(self.seeds[k], "dp noise", step)))
        return tuple(torch.stack([gradient[name] for gradient in own]) for name in parameters)

    def _records(
        self, parameters: State, buffers: State, x: Float[Tensor, "B ..."], labels: Int64[Tensor, " B"],
        places: Int64[Tensor, " B"], pruned: Mapping[str, Bool[Tensor, "..."]],
    ) -> Iterator[RecordGradients]:  # fmt: skip
        """One member's records in portions, without what would move a pruned weight."""

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
