"""Turns of an inference adversary: what it is shown of the members while they train."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, Real
from torch import Tensor, nn

from wemem.defenses import InferenceAdversary
from wemem.randomness import generator
from wemem.training.backends import Forward, State


@dataclass(frozen=True, eq=False)
class AdversaryTurns:
    """An inference adversary of the members that train together, and the records on which it sees them.

    Args:
        inference_adversary: with a state of its own.
        template: the members' architecture.
        forward: computes them.
        features: of the whole data set.
        labels: likewise.
        train: each member's train records.
        dev: each member's dev records, the reference set.
        seeds: one per member, for the draws.
        batch_size: records of either kind in a turn, drawn with replacement: who has few is shown as many.
    """

    inference_adversary: InferenceAdversary
    template: nn.Module
    forward: Forward
    features: Real[Tensor, "N ..."]
    labels: Int64[Tensor, " N"]
    train: Sequence[Int64[np.ndarray, " n"]]
    dev: Sequence[Int64[np.ndarray, " d"]]
    seeds: Sequence[int]
    batch_size: int

    def play(self, parameters: State, buffers: State, taking: Sequence[int], steps: Sequence[int]) -> None:
        """The turns before one step.

        Args:
            parameters: of the S members that take part, each ``(S, ...)``.
            buffers: likewise.
            taking: which of the members they are.
            steps: how many steps each has taken before.
        """
        first = [row for row, step in enumerate(steps) if step == 0]
        for turn in range(self.inference_adversary.warm_up if first else 0):
            own = {n: t[first] for n, t in parameters.items()}, {n: t[first] for n, t in buffers.items()}
            self._turn(*own, [taking[row] for row in first], ["warm-up"] * len(first), turn)
        for turn in range(self.inference_adversary.turns):
            self._turn(parameters, buffers, taking, steps, turn)

    def _turn(
        self, parameters: State, buffers: State, taking: Sequence[int], steps: Sequence[int | str], turn: int
    ) -> None:
        draws = [
            generator(self.seeds[k], "opponent's records", step, turn) for k, step in zip(taking, steps, strict=True)
        ]
        drawn = np.stack([
            np.concatenate([rng.choice(own[k], self.batch_size) for own in (self.train, self.dev)])
            for k, rng in zip(taking, draws, strict=True)
        ])  # fmt: skip
        records = torch.from_numpy(drawn).to(self.features.device, non_blocking=True)
        self.template.eval()
        with torch.no_grad():
            logits = self.forward(parameters, buffers, self.features[records])
        self.template.train()
        labels, half = self.labels[records], self.batch_size
        self.inference_adversary.learn(taking, logits[:, :half], labels[:, :half], logits[:, half:], labels[:, half:])
