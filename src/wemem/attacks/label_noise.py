"""The attack by an adversary who sees labels only."""

from dataclasses import dataclass

import numpy as np

from wemem.attacks.base import Attack, Scores
from wemem.signals import Signals


@dataclass(frozen=True)
class LabelNoise(Attack):
    """Share of perturbed copies of the record to which the target still gives its label, one
    threshold.

    Members lie farther from the decision boundary, and the share is a distance to it that labels
    alone give. Choquette-Choo et al., "Label-only membership inference attacks", ICML 2021.
    """

    name = "label_noise"
    layout = "disjoint"
    required_signals = frozenset({"robustness"})

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        return np.asarray(signals.extras["robustness"][target, signals.audited(target)], dtype=np.float64)
