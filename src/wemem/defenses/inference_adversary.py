"""The interface of an adversary that trains along with the models (adversarial regularization)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class InferenceAdversary(ABC):
    """Membership inference networks, one for each of the models that train together.

    It has state; every call of ``fit`` makes a new one.

    Args:
        warm_up: turns before the first step of the models.
        turns: turns before every step of the models.
    """

    warm_up: int = 0
    turns: int = 1

    def to(self, device: torch.device) -> None:  # noqa: B027
        """Move the state to a device, before the first turn. By default there is none."""

    @abstractmethod
    def learn(
        self, rows: Sequence[int], members: Float[Tensor, "S M C"], member_labels: Int64[Tensor, "S M"],
        others: Float[Tensor, "S M C"], other_labels: Int64[Tensor, "S M"],
    ) -> None:  # fmt: skip
        """Take one turn: learn to tell members from other records.

        Args:
            rows: the ``S`` models whose networks learn; the networks of all others stay as they
                are.
            members: logits on some training records of each model, as an attacker sees them, in
                evaluation mode.
            member_labels: labels of those records.
            others: logits on some dev records of each model.
            other_labels: labels of those records.
        """

    @abstractmethod
    def membership_log_probability(
        self, rows: Sequence[int], logits: Float[Tensor, "S B C"], labels: Int64[Tensor, "S B"]
    ) -> Float[Tensor, "S B"]:
        """Log-probability that each record of a step is a member, differentiable by the logits."""
