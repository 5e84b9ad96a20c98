"""The input of a loss: one step's outputs of the models that train together."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's outputs of the ``S`` models that take part in it.

    Args:
        logits: shape ``(S, B, C)``, with gradient.
        labels: int64, shape ``(S, B)``.
        weights: float32, shape ``(S, B)``; 0 marks padding.
        epoch: 0-based epoch within the round.
        teacher_log_probs: shape ``(S, B, C)``, log-probabilities that the teachers predict for each
            record or view; only with the capability
            :class:`~wemem.defenses.capabilities.Distillation`.
        risk: shape ``(S, B)``, a number for each record; only with the capability
            :class:`~wemem.defenses.capabilities.RecordRisk`.
        membership_log_probability: shape ``(S, B)``, with gradient; only with the capability
            :class:`~wemem.defenses.capabilities.AdversarialTraining`.
    """

    logits: Float[Tensor, "S B C"]
    labels: Int64[Tensor, "S B"]
    weights: Float[Tensor, "S B"]
    epoch: int
    teacher_log_probs: Float[Tensor, "S B C"] | None = None
    risk: Float[Tensor, "S B"] | None = None
    membership_log_probability: Float[Tensor, "S B"] | None = None

    def mean(self, values: Float[Tensor, "S B"]) -> Float[Tensor, " S"]:
        """Mean over each model's records, without the padding."""
        return (values * self.weights).sum(1) / self.weights.sum(1)

    def cross_entropy(self) -> Float[Tensor, "S B"]:
        """Cross-entropy of each record, in nats."""
        s, b, c = self.logits.shape
        return cross_entropy(self.logits.reshape(s * b, c), self.labels.reshape(s * b), reduction="none").view(s, b)
