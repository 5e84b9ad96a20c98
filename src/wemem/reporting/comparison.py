"""Comparisons of defenses in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from wemem.metrics.registry import METRICS
from wemem.results.comparison import ACCURACY, Comparison, against_rivals
from wemem.results.differences import Difference
from wemem.results.wording import per_cent, printable

#: Once, below all pairs.
ONE_SEED = "Of one shared seed there is no interval over seeds: another seed may show otherwise, so run more."


def sentences(results: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """The defenses of some labels against their rivals, one sentence a pair.

    Args:
        results: the content of ``results.json``.
        labels: labels of defenses. A pair of two of them has one sentence, from the side of the one
            named first.

    Returns:
        The sentences, and a warning below them if one rests on a single seed.

    Raises:
        InputError: an unknown label.
    """
    compared = against_rivals(results, labels)
    alone = any(_rests_on_one_seed(gap) for one in compared for gap in one.differences.values())
    return [*map(sentence, compared), *([ONE_SEED] if alone else [])]


def sentence(one: Comparison) -> str:
    """One pair: what is shown with its size, and what is not shown with its interval."""
    defense, rival = printable(one.defense), printable(one.rival)
    parts: list[str] = []
    for metric, gap in one.leakage.items():
        stated = _is_stated(one, metric)
        words = _amount(gap) if stated else "no difference shown"
        if not parts:
            words = f"{defense} leaks {words} than {rival}" if stated else f"{defense} against {rival}: {words}"
        parts.append(f"{words} by {METRICS[metric].phrase}{_ends(one, metric, first=not parts)}")
    if not parts:
        parts.append(f"{defense} against {rival}: no attack was run on both")
    words = f"at {_amount(one.accuracy)} test accuracy"
    words = words if _is_stated(one, ACCURACY) else "no difference shown in test accuracy"
    parts.append(words + _ends(one, ACCURACY, first=False))
    return f"{', '.join(parts)}, {per_cent(one.sparsity)} sparsity, {_basis(one)}."


def _is_stated(one: Comparison, name: str) -> bool:
    """True if a difference is stated by its size: it is shown, or the arms' own intervals do not
    overlap.
    """
    gap = one.differences[name]
    return name in one.shown or (gap.spread is None and gap.apart != 0)


def _rests_on_one_seed(gap: Difference) -> bool:
    return gap.basis == "seeds" and gap.count == 1


def _amount(gap: Difference) -> str:
    """The size of a difference and its direction.

    >>> _amount(Difference(-0.112, None, "seeds", 1))
    '11.2 points less'
    """
    return f"{100 * abs(gap.value):.1f} points {'less' if gap.value < 0 else 'more'}"


def _ends(one: Comparison, name: str, first: bool) -> str:
    """The interval, turned to the direction that was stated; signed, with its value, where none
    was.
    """
    gap = one.differences[name]
    if gap.interval is None:
        return "" if _is_stated(one, name) else f" ({100 * gap.value:+.1f} points)"
    words, low, high = "95 % interval " if first else "", 100 * gap.interval.low, 100 * gap.interval.high
    if name not in one.shown:
        return f" ({100 * gap.value:+.1f} points, {words}{low:.1f} to {high:.1f})"
    low, high = (-high, -low) if gap.value < 0 else (low, high)
    return f" ({words}{low:.1f} to {high:.1f})"


def _basis(one: Comparison) -> str:
    """The seeds and targets on which a pair rests."""
    seeds = "one shared seed" if len(one.seeds) == 1 else f"{len(one.seeds)} seeds"
    targets = {gap.count for gap in one.differences.values() if gap.basis == "targets"}
    basis = f"{seeds}, {max(targets)} leave-one-out targets" if targets else seeds
    alike = len(one.seeds) > 1 and any(gap.spread is None for gap in one.differences.values())
    return f"{basis}; where no interval stands, all seeds differ by the same, which is no certainty" if alike else basis
