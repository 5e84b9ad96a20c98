"""Names, shares and durations as text for the console."""

from collections.abc import Sequence

from wemem.metrics.intervals import Estimate


def printable(text: str) -> str:
    r"""Escape the characters of a user's text that could control a terminal.

    Line breaks, escape sequences and characters that change the direction of writing become
    visible.

    >>> printable("déjà vu\n\x1b[31m")
    'déjà vu\\n\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def names(labels: Sequence[str], most: int = 4) -> str:
    """Join labels to a phrase; of more than ``most``, name the first ones and the number of the
    others.

    >>> names(["a", "b"]), names(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    shown = [printable(label) for label in labels]
    if len(shown) > most:
        shown = [*shown[: most - 1], f"{len(shown) - most + 1} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def duration(seconds: float) -> str:
    """A duration in the most readable unit.

    >>> duration(3.21), duration(125), duration(4000)
    ('3.2 s', '2 min 05 s', '1 h 07 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def per_cent(share: float) -> str:
    """A share in per cent, with three significant digits.

    >>> per_cent(0.6), per_cent(0.995), per_cent(0.001)
    ('60 %', '99.5 %', '0.1 %')
    """
    return f"{100 * share:.3g} %"


def interval(estimate: Estimate) -> str:
    """A share in per cent with its interval; the brackets have no space, so that no line breaks in
    them.

    >>> interval(Estimate(0.841, 0.8, 0.9))
    '84.1 [80.0-90.0]'
    """
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}-{100 * estimate.high:.1f}]"
