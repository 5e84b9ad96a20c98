"""The attack by someone to whom the original model was released beside the pruned one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wemem.attacks.learned import LearnedAttack, Rows
from wemem.signals import Signals, logit_confidence


@dataclass(frozen=True)
class DenseAndPruned(LearnedAttack):
    """The logit of the true-class probability of both models, and how far pruning moved it.

    Their difference is what pruning and fine-tuning did to the record, and only members are fine-tuned on. It is linear
    in the two and needs no feature of its own; its size does. Cf. Yuan & Zhang, "Membership inference attacks and
    defenses in neural network pruning", USENIX Security 2022: pruning changes the two kinds of records differently.
    """

    name = "dense_and_pruned"
    required_signals = frozenset({"dense"})

    def features(self, signals: Signals, member: int, rows: Rows) -> Float[np.ndarray, "n 3"]:
        dense = logit_confidence(signals.extras["dense"][member, rows], signals.labels[rows])
        pruned = signals.logit_confidence[member, rows]
        return np.stack([dense, pruned, np.abs(pruned - dense)], axis=1)
