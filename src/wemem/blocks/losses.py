"""The loss of a defense as a PyTorch module for one model."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wemem.defenses import AdversarialTraining, Batch, Clipping, Defense, Distillation, RecordRisk
from wemem.errors import InputError


class DefenseLoss(nn.Module):
    """Loss of PPB, RelaxLoss, HAMP, label smoothing, RADD or out-of-sample distillation.

    Defenses without a loss of their own give the mean cross-entropy.

    Args:
        defense: the defense.

    Raises:
        InputError: AdvReg, which needs :class:`~wemem.blocks.AdversarialLoss`, or DP-SGD, which
            clips gradients and has no loss.

    >>> from wemem.defenses import LabelSmoothing
    >>> loss = DefenseLoss(LabelSmoothing(smoothing=0.1))
    >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # a uniform prediction costs log 2 for any label
    tensor(0.6931)
    """

    def __init__(self, defense: Defense) -> None:
        super().__init__()
        if defense.capability(Clipping) is not None:
            raise InputError(
                f"{defense.name} clips the gradient of each record and has no loss; wrap the model with Opacus"
            )
        if defense.capability(AdversarialTraining) is not None:
            raise InputError(f"{defense.name} trains against an adversary; use wemem.blocks.AdversarialLoss")
        self.defense, self.epoch = defense, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch within the round; RelaxLoss alternates by it."""
        self.epoch = epoch

    def forward(
        self,
        logits: Float[Tensor, "B C"],
        labels: Int64[Tensor, " B"],
        teacher_log_probs: Float[Tensor, "b c"] | None = None,
        risk: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean loss of a batch.

        Args:
            logits: outputs of the model.
            labels: classes of the records.
            teacher_log_probs: shape ``(B, C)``, log-probabilities of the teachers, for a defense that learns from
                them.
            risk: risk of each record, for RADD.

        Raises:
            InputError: the defense needs soft targets or risks and got none, or targets of other classes.
        """
        if self.defense.capability(Distillation) is not None and teacher_log_probs is None:
            raise InputError(
                f"{self.defense.name} learns from teachers, got no teacher_log_probs; compute them with "
                "wemem.blocks.out_of_sample_targets"
            )
        if teacher_log_probs is not None and teacher_log_probs.shape != logits.shape:
            raise InputError(
                f"expected teacher_log_probs of {tuple(logits.shape)}, as the logits, got "
                f"{tuple(teacher_log_probs.shape)}; compute them on records of every class that the model predicts"
            )
        if self.defense.capability(RecordRisk) is not None and risk is None:
            raise InputError(f"{self.defense.name} weighs records by risk, got none; give risk for each record")
        batch = Batch(
            logits[None],
            labels[None],
            torch.ones_like(labels, dtype=logits.dtype)[None],
            self.epoch,
            None if teacher_log_probs is None else teacher_log_probs[None],
            None if risk is None else risk[None],
        )
        return self.defense.loss(batch)[0]


class AdversarialLoss(nn.Module):
    """Loss of AdvReg, with the inference adversary that it trains against.

    Args:
        defense: :class:`~wemem.defenses.AdvReg`.
        classes: number of classes.
        seed: seed of the adversary's network.

    Raises:
        InputError: a defense that trains against no adversary.
    """

    def __init__(self, defense: Defense, classes: int, seed: int = 0) -> None:
        super().__init__()
        training = defense.capability(AdversarialTraining)
        if training is None:
            raise InputError(f"expected a defense that trains against an adversary, got {defense.name}")
        self.defense, self.adversary = defense, training.start(classes, [seed])

    def learn(
        self,
        members: Float[Tensor, "M C"],
        member_labels: Int64[Tensor, " M"],
        others: Float[Tensor, "M C"],
        other_labels: Int64[Tensor, " M"],
    ) -> None:
        """Train the adversary for one turn, before a step of the model.

        Args:
            members: logits of training records, computed in evaluation mode without gradient.
            member_labels: their classes.
            others: logits of records that the model does not train on.
            other_labels: their classes.
        """
        self.adversary.to(members.device)
        self.adversary.learn([0], members[None], member_labels[None], others[None], other_labels[None])

    def forward(self, logits: Float[Tensor, "B C"], labels: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Mean loss of a batch."""
        weights = torch.ones_like(labels, dtype=logits.dtype)[None]
        membership = self.adversary.membership_log_probability([0], logits[None], labels[None])
        batch = Batch(logits[None], labels[None], weights, 0, membership_log_probability=membership)
        return self.defense.loss(batch)[0]
