"""LiRA on altered answers: on labels alone, on the true class's rank, and on the mean of many
answers.

A defense that alters answers hides the confidence that LiRA reads. It still gives labels, by which
the distance to the decision boundary can be measured (Choquette-Choo et al., "Label-only membership
inference attacks", ICML 2021). It often keeps the order of the classes, and noise that is drawn for
every answer averages out. Each of these is a statistic that reference models have too, so LiRA
(Carlini et al., S&P 2022) compares it as it compares confidences.

These statistics take few values, so a record's own sample variance is often 0 and says nothing: it
is not considered.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wemem.attacks.lira import OnlineLikelihood, Statistics
from wemem.attacks.moments import Statistic, Variance
from wemem.attacks.reference import Attacked
from wemem.signals import ROBUSTNESS_COPIES, Signals, logit_confidence


@dataclass(frozen=True)
class LiraLabels(OnlineLikelihood):
    """LiRA on the logit of the share of perturbed copies that get the record's label; needs labels
    alone.

    With r of n copies right the statistic is ``log((r + 1/2) / (n - r + 1/2))``, finite for 0 and n
    too.
    """

    name = "lira_labels"
    required_signals = frozenset({"robustness"})
    variances: ClassVar[tuple[Variance, ...]] = ("global", "shrunk")

    def statistics(self, attacked: Attacked) -> Statistics:
        right = attacked.signals.extras["robustness"].astype(np.float64) * ROBUSTNESS_COPIES
        return {"labels": np.asarray(np.log((right + 0.5) / (ROBUSTNESS_COPIES - right + 0.5)))}


@dataclass(frozen=True)
class LiraRank(OnlineLikelihood):
    """LiRA on minus the logarithm of the true class's rank in the answer, 1 for the most probable
    class.
    """

    name = "lira_rank"
    variances: ClassVar[tuple[Variance, ...]] = ("global", "shrunk")

    def statistics(self, attacked: Attacked) -> Statistics:
        signals = attacked.signals
        return {"rank": signals.statistic("rank", lambda: _log_rank(signals))}


@dataclass(frozen=True)
class LiraRepeated(OnlineLikelihood):
    """LiRA on the logit confidence of the mean of many answers to the same query."""

    name = "lira_repeated"
    required_signals = frozenset({"repeated"})

    def statistics(self, attacked: Attacked) -> Statistics:
        signals = attacked.signals
        answers = signals.extras["repeated"]
        return {"repeated": signals.statistic("repeated", lambda: logit_confidence(answers, signals.labels))}


def _log_rank(signals: Signals) -> Statistic:
    """Minus the logarithm of the true class's rank, of every model and record."""
    true = np.take_along_axis(signals.logits, signals.labels[None, :, None], axis=2)
    return np.asarray(-np.log(1.0 + (signals.logits > true).sum(axis=2)))
