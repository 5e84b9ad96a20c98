"""An optimizer of stacked models, each with a state of its own."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class StackedOptimizer:
    """One PyTorch optimizer that steps some of the models and leaves the others, with their states, as they are.

    Models that have taken the same steps share their leaves: with one leaf for each of many models and tensors an
    optimizer does little but count. Where only some models of a leaf step, it is cut, and its state with it.

    Args:
        parameters: tensors stacked over the K models, contiguous; they are changed in place.
        make: makes the optimizer of given leaves. Its state of a leaf must have the leaf's shape, or be one number.
    """

    def __init__(self, parameters: Sequence[Float[Tensor, "K ..."]], make: Make) -> None:
        whole = [torch.nn.Parameter(t) for t in parameters]
        self._spans = {0: (len(parameters[0]), whole)}  # by the first model: one past the last, and their leaves
        self._optimizer = make(whole)

    def step(self, taking: Sequence[int], gradients: Sequence[Float[Tensor, "S ..."] | None]) -> None:
        """Step the models that take part.

        Args:
            taking: places of the S models that step, in rising order.
            gradients: the gradient of each tensor, contiguous; None for a tensor that has none.
        """
        runs = _runs(taking)
        for first, last in runs:
            self._cut(first)
            self._cut(last)
        self._optimizer.zero_grad(set_to_none=True)
        row = 0
        for first, last in runs:
            while first < last:
                end, leaves = self._spans[first]
                for leaf, gradient in zip(leaves, gradients, strict=True):
                    leaf.grad = None if gradient is None else gradient[row : row + end - first]
                row, first = row + end - first, end
        self._optimizer.step()

    def _cut(self, at: int) -> None:
        """Cut the leaves so that one begins at a model."""
        first = max((f for f in self._spans if f <= at), default=0)
        last, leaves = self._spans[first]
        if not first < at < last:
            return
        halves = slice(at - first), slice(at - first, None)
        cut = [[torch.nn.Parameter(leaf.detach()[half]) for leaf in leaves] for half in halves]
        state, group = self._optimizer.state, self._optimizer.param_groups[0]
        for i, leaf in enumerate(leaves):
            known = state.pop(leaf, {})
            for half, own in zip(halves, cut, strict=True):
                if known:
                    state[own[i]] = {n: _part(value, leaf, half) for n, value in known.items()}
        replaced = set(map(id, leaves))
        group["params"] = [p for p in group["params"] if id(p) not in replaced] + cut[0] + cut[1]
        self._spans[first], self._spans[at] = (at, cut[0]), (last, cut[1])


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours together, as half-open ranges.

    >>> _runs([0, 1, 2, 5, 7, 8])
    [(0, 3), (5, 6), (7, 9)]
    """
    starts = [i for i, n in enumerate(numbers) if not i or n != numbers[i - 1] + 1]
    return [(numbers[i], numbers[j - 1] + 1) for i, j in zip(starts, [*starts[1:], len(numbers)], strict=True)]


def _part(value: object, leaf: Tensor, half: slice) -> object:
    """The part of an entry of a leaf's state that belongs to one half."""
    if not isinstance(value, Tensor):
        return value
    return value[half] if value.shape == leaf.shape else value.clone()
