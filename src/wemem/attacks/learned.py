"""Attacks that learn a classifier: from shadows whose truth is known, to the target whose truth is not."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wemem.attacks.base import Attack, Scores
from wemem.errors import InputError
from wemem.signals import Signals

Rows = Int64[np.ndarray, " n"]


def shadow_rows(signals: Signals, target: int) -> Iterator[tuple[int, Rows, Bool[np.ndarray, " n"]]]:
    """What an attack may learn from: ``(member, rows, is_member)`` of every member but the target, in order.

    Raises:
        InputError: a shadow's row is among those the target is judged on.
    """
    judged = signals.audited(target)
    for member in range(signals.num_models):
        if member == target:
            continue
        rows = signals.audited(member)
        shared = np.intersect1d(rows, judged, assume_unique=True)
        if len(shared):
            raise InputError(
                f"expected shadow {member} to share no audited record with member {target}, got {len(shared)} shared, "
                f"first {int(signals.records[shared[0]])}; an attack must not be scored on what it has learned from"
            )
        yield member, rows, signals.is_member(member)


@dataclass(frozen=True)
class LearnedAttack(Attack):
    """Logistic regression on a few features of a model's outputs; both sides weigh the same, so 0.5 decides.

    The score is the probability of membership.
    """

    layout = "disjoint"
    thresholds = "half"

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        shadows = list(shadow_rows(signals, target))
        learned = np.concatenate([self.features(signals, k, rows) for k, rows, _ in shadows])
        member = np.concatenate([is_member for _, _, is_member in shadows])
        if member.all() or not member.any():
            raise InputError(
                f"attack {self.name!r} expected members and non-members among the shadows' records, got "
                f"{int(member.sum())} members of {len(member)}; give the shadows records they are not trained on"
            )
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        model.fit(learned, member)
        return np.asarray(model.predict_proba(self.features(signals, target, signals.audited(target)))[:, 1])

    @abstractmethod
    def features(self, signals: Signals, member: int, rows: Rows) -> Float[np.ndarray, "n F"]:
        """What the classifier sees of one model's outputs on some rows."""
