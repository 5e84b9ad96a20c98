"""An optimizer of stacked models, each with its own state."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class StackedOptimizer:
    """One PyTorch optimizer that steps some of the models and does not change the others or their
    states.

    Models that have taken the same steps share their leaves, because an optimizer is slow with one
    leaf for each of many models and tensors. Where only some models of a leaf step, the leaf and
    its state are divided.

    Args:
        parameters: the tensors stacked over the K models, contiguous; they are changed in place.
        make: the function that builds the optimizer of leaves. Its state of a leaf must have the
            shape of the leaf or be a single number.
    """

    def __init__(self, parameters: Sequence[Float[Tensor, "K ..."]], make: Make) -> None:
        whole = [torch.nn.Parameter(t) for t in parameters]
        self._spans = {0: (len(parameters[0]), whole)}  # by the first model: one past the last, and their leaves
        self._optimizer = make(whole)

    @property
    def division(self) -> tuple[int, ...]:
        """The first model of every leaf; another division has other tensors."""
        return tuple(self._spans)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._optimizer.param_groups[0]["lr"] = value

    def step(self, taking: Sequence[int], gradients: Sequence[Float[Tensor, "S ..."] | None]) -> None:
        """Step the models that take part.

        Args:
            taking: the places of the S models that step, in rising order.
            gradients: the gradient of each tensor, contiguous; None for a tensor without a
                gradient.
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
        for group in self._optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = _is_recorded()
        self._optimizer.step()

    def _cut(self, at: int) -> None:
        """Divide the leaves so that one of them begins at a given model."""
        first = max((f for f in self._spans if f <= at), default=0)
        last, leaves = self._spans[first]
        if not first < at < last:
            return
        halves = slice(at - first), slice(at - first, None)
        cut = [[torch.nn.Parameter(leaf.detach()[half]) for leaf in leaves] for half in halves]
        state, group = self._optimizer.state, self._optimizer.param_groups[0]
        for i, leaf in enumerate(leaves):
            known = state.pop(leaf, {})
            for half, parts in zip(halves, cut, strict=True):
                if known:
                    state[parts[i]] = {n: _part(value, leaf, half) for n, value in known.items()}
        replaced = set(map(id, leaves))
        group["params"] = [p for p in group["params"] if id(p) not in replaced] + cut[0] + cut[1]
        self._spans[first], self._spans[at] = (at, cut[0]), (last, cut[1])


def _is_recorded() -> bool:
    """Return True while a CUDA graph is recorded, which PyTorch's optimizers allow only on request."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Group consecutive numbers into half-open ranges.

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
