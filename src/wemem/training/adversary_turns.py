"""Turns of an inference adversary: it learns to tell training records from others while the models train."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wemem.defenses import InferenceAdversary
from wemem.randomness import generator
from wemem.training.backends import Forward, State
from wemem.training.cohort import Cohort


@dataclass(frozen=True, eq=False)
class AdversaryTurns:
    """An inference adversary of the models that train together.

    Args:
        inference_adversary: the adversary, with a state of its own.
        cohort: the models; their dev records are the reference set.
        forward: the function that computes the models.
        batch_size: records of either kind in a turn, drawn with replacement, so that few records fill it too.
    """

    inference_adversary: InferenceAdversary
    cohort: Cohort
    forward: Forward
    batch_size: int

    def play(self, parameters: State, buffers: State, taking: Sequence[int], steps: Sequence[int]) -> None:
        """The turns before one step.

        Args:
            parameters: parameters of the S models that take part, each ``(S, ...)``.
            buffers: their buffers, each ``(S, ...)``.
            taking: places of the S models in the cohort.
            steps: number of steps that each has taken before.
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
        cohort, half = self.cohort, self.batch_size
        draws = [
            generator(cohort.seeds[k], "opponent's records", step, turn) for k, step in zip(taking, steps, strict=True)
        ]
        drawn = np.stack([
            np.concatenate([rng.choice(rows, half) for rows in (cohort.records[k].train, cohort.dev[k])])
            for k, rng in zip(taking, draws, strict=True)
        ])  # fmt: skip
        records = torch.from_numpy(drawn).to(cohort.features.device, non_blocking=True)
        cohort.ensemble.template.eval()
        with torch.no_grad():
            logits = self.forward(parameters, buffers, cohort.features[records])
        cohort.ensemble.template.train()
        labels = cohort.labels[records]
        self.inference_adversary.learn(taking, logits[:, :half], labels[:, :half], logits[:, half:], labels[:, half:])
