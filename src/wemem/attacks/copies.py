"""Copies of a record as further queries: confidence in records of the neighbourhood shows membership
too.

A copy has some features of other records, so it stays in the domain of the data. ``near`` copies
have a fifth of them, ``far`` ones half. The statistic is the mean of the logit confidence over the
record and the copies: the noise of single answers averages out, and with it what a defense does at
the record alone. Models that were fitted to the record itself show more at it than at any copy, so
which copies count is chosen on the other models, ``none`` included. Averaging over augmented
queries is due to Carlini et al., S&P 2022, for images; the copies for tables are ours.
"""

from typing import Literal

from wemem.signals import Copies, Signals

#: A choice of copies, or ``auto``: the one with the highest mean AUC of attacks on the other models.
ChosenCopies = Literal["auto", "none", "near", "far", "all"]
CHOICES: tuple[Copies, ...] = ("none", "near", "far", "all")


def copies_to_try(signals: Signals, copies: ChosenCopies, *, augmented: bool = True) -> tuple[Copies, ...]:
    """The choices of copies of an attack: the given one, or all; ``none`` alone where the signals
    have no copies or no augmented query is wanted.
    """
    if not augmented or "copies" not in signals.extras:
        return ("none",)
    return CHOICES if copies == "auto" else (copies,)
