"""Steps by kind of batch, for any PyTorch optimizer."""

from collections import defaultdict
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from wemem.blocks.sampler import PlannedBatch
from wemem.errors import InputError


class StepsByKind:
    """Gives each kind of batch its own optimizer state and weight decay (RMR).

    The optimizer stays the user's: schedulers, gradient scalers and wrappers that call its ``step``
    work unchanged. Hooks around each step exchange the state and the weight decay.

    Args:
        optimizer: any optimizer. Its parameter groups must have ``weight_decay`` if a kind sets
            one.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimizer = torch.optim.SGD([weight], lr=0.5)
    >>> kinds = StepsByKind(optimizer)
    >>> weight.grad = torch.zeros(1)
    >>> kinds.select("risky", weight_decay=1.0); optimizer.step(); weight.item()  # 1 - 0.5 * 1
    0.5
    >>> kinds.select("all", weight_decay=None); optimizer.step(); weight.item()
    0.5
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.kind, self.weight_decay = "all", None  # type: str, float | None
        self._states: dict[str, defaultdict[Tensor, Any]] = {}
        self._own_decays: list[float] | None = None
        #: Steps so far.
        self.steps = 0
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._before()),
            optimizer.register_step_post_hook(lambda *_: self._after()),
        ]

    def select(self, kind: str, weight_decay: float | None) -> None:
        """Choose the kind of the next step.

        Args:
            kind: name of the kind.
            weight_decay: L2 decay of its steps; None for the optimizer's own.

        Raises:
            InputError: a weight decay for an optimizer that has none.
        """
        if weight_decay is not None and any("weight_decay" not in group for group in self.optimizer.param_groups):
            raise InputError(
                f"expected an optimizer with weight_decay, got {type(self.optimizer).__name__}; the defense "
                "regularizes by it, so use Adam, AdamW or SGD"
            )
        self.kind, self.weight_decay = kind, weight_decay

    def select_batch(self, batch: PlannedBatch) -> None:
        """Choose the kind of a batch that a :class:`~wemem.blocks.DefenseBatchSampler` planned."""
        self.select(batch.kind, batch.weight_decay)

    def reset(self) -> None:
        """Forget all states, as at the start of a round."""
        self._states.clear()
        self.optimizer.state = defaultdict(dict)

    def remove(self) -> None:
        """Remove the hooks; the optimizer is as it was."""
        for hook in self._hooks:
            hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """States of all kinds, in the form of the optimizer's own state dict."""
        states = {}
        for kind, state in self._states.items():
            self.optimizer.state, before = state, self.optimizer.state
            states[kind] = self.optimizer.state_dict()["state"]
            self.optimizer.state = before
        return {"states": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`."""
        groups, before = self.optimizer.state_dict()["param_groups"], self.optimizer.state
        self._states.clear()
        for kind, state_of_kind in state["states"].items():
            self.optimizer.load_state_dict({"state": state_of_kind, "param_groups": groups})
            self._states[kind] = self.optimizer.state
        self.optimizer.state = before

    def _before(self) -> None:
        groups = self.optimizer.param_groups
        self.optimizer.state = self._states.setdefault(self.kind, defaultdict(dict))
        if self.weight_decay is not None:
            self._own_decays = [group["weight_decay"] for group in groups]
            for group in groups:
                group["weight_decay"] = self.weight_decay

    def _after(self) -> None:
        self.steps += 1
        if self._own_decays is not None:
            for group, decay in zip(self.optimizer.param_groups, self._own_decays, strict=True):
                group["weight_decay"] = decay
            self._own_decays = None
