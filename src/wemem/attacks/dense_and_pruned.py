"""The attack by an adversary to whom the original model was released beside the pruned one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wemem.attacks.learned import LearnedAttack, Rows
from wemem.signals import Signals, logit_confidence


@dataclass(frozen=True)
class DenseAndPruned(LearnedAttack):
    """The logit of the true-class probability of both models and its rise by pruning, in weighted
    ranks.

    The rise is what pruning and fine-tuning did to the record, and only members are fine-tuned on.
    Cf. Yuan & Zhang, "Membership inference attacks and defenses in neural network pruning", USENIX
    Security 2022: pruning changes the two kinds of records differently.
    """

    name = "dense_and_pruned"
    required_signals = frozenset({"dense"})

    def features(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n 3"]:
        dense = logit_confidence(signals.extras["dense"][model, rows], signals.labels[rows])
        pruned = signals.logit_confidence[model, rows]
        return np.stack([dense, pruned, pruned - dense], axis=1)
