"""Training steps of an inference adversary, which learns to recognize training records while the
models train.
"""

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
        inference_adversary: the adversary, with its own state.
        cohort: the models, whose dev records are the reference set.
        forward: the function that computes the logits of the models.
        batch_size: the number of records of either kind in a turn, drawn with replacement.
    """

    inference_adversary: InferenceAdversary
    cohort: Cohort
    forward: Forward
    batch_size: int

    def play(self, parameters: State, buffers: State, taking: Sequence[int], steps: Sequence[int]) -> None:
        """Train the adversary before one step of the models.

        Args:
            parameters: the parameters of the S models that take part, each ``(S, ...)``.
            buffers: the buffers of these models, each ``(S, ...)``.
            taking: the places of the S models in the cohort.
            steps: the number of steps that each of these models has taken before.
        """
        first = [row for row, step in enumerate(steps) if step == 0]
        if first:
            rows = torch.tensor(first, device=self.cohort.features.device)
            state = {n: t[rows] for n, t in parameters.items()}, {n: t[rows] for n, t in buffers.items()}
            for turn in range(self.inference_adversary.warm_up):
                self._turn(*state, [taking[row] for row in first], ["warm-up"] * len(first), turn)
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
