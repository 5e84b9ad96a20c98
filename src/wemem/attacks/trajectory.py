"""The attack by an adversary who holds the checkpoints of several pruning rounds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wemem.attacks.learned import LearnedAttack, Rows
from wemem.signals import Signals, logit_confidence


@dataclass(frozen=True)
class PruningTrajectory(LearnedAttack):
    """The logit of the true-class probability after each round, in weighted ranks.

    Every round fine-tunes on the same records again: members are lifted each time, non-members
    drift. To attack by a sequence of models is the idea of Liu et al., "Membership inference
    attacks by exploiting loss trajectory", CCS 2022, where the sequence has to be distilled; a
    pruner's rounds are one that may be at hand.
    """

    name = "pruning_trajectory"
    required_signals = frozenset({"trajectory"})

    def features(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n R"]:
        rounds = np.moveaxis(signals.extras["trajectory"][model, rows], 1, 0)
        return logit_confidence(rounds, signals.labels[rows]).T
