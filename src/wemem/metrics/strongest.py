"""The strongest of several attacks on the same target."""

from collections.abc import Mapping

from wemem.metrics.intervals import Estimate, corrected_level
from wemem.metrics.registry import Metric, ScoredRecords


def strongest(attacks: Mapping[str, ScoredRecords], metric: Metric) -> tuple[str, Estimate]:
    """Choose the attack with the highest value; its interval is widened for the choice among all
    (Bonferroni).

    Args:
        attacks: the scored records of each attack by label, at least one.
        metric: the metric by which attacks are compared; the first of equals is chosen.
    """
    values = {name: metric.interval(records, 0.95).value for name, records in attacks.items()}
    name = max(values, key=values.__getitem__)
    return name, metric.interval(attacks[name], corrected_level(0.95, len(attacks)))
