"""The strongest of several attacks on the same target."""

from collections.abc import Mapping

from wemem.metrics.intervals import Estimate, corrected_level
from wemem.metrics.registry import Metric, ScoredRecords


def strongest(
    attacks: Mapping[str, ScoredRecords], measured: Mapping[str, Estimate], metric: Metric
) -> tuple[str, Estimate]:  # fmt: skip
    """Choose the attack with the highest value; its interval is widened for the choice among all
    (Bonferroni).

    Args:
        attacks: the scored records of each attack by label, at least one.
        measured: the metric of each attack by label, in the same order; the first of equals is
            chosen.
        metric: the metric by which attacks are compared.
    """
    name = max(attacks, key=lambda attack: measured[attack].value)
    return name, metric.interval(attacks[name], corrected_level(0.95, len(attacks)))
