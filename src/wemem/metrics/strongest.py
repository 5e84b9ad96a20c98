"""The strongest of several attacks on the same target."""

from collections.abc import Mapping

from wemem.metrics.intervals import Estimate, corrected_level
from wemem.metrics.registry import Metric, ScoredRecords


def strongest(attacks: Mapping[str, ScoredRecords], metric: Metric) -> tuple[str, Estimate]:
    """The attack with the highest value, its interval widened for having been chosen among all (Bonferroni).

    Args:
        attacks: the scored records of each attack by its label, at least one.
        metric: the metric by which they are compared; of equals the first is taken.
    """
    values = {name: metric.interval(records, 0.95).value for name, records in attacks.items()}
    name = max(values, key=values.__getitem__)
    return name, metric.interval(attacks[name], corrected_level(0.95, len(attacks)))
