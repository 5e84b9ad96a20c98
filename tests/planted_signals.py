"""Signals with a planted leak, made once a process, and how well a score finds it."""

from functools import cache

from hypothesis import strategies as st

from wemem.metrics.rates import auc
from wemem.testing import planted

seeds = st.integers(0, 2**32 - 1)


@cache
def shared(leak):
    return planted.shared(leak)


def auc_of(score, signals, target=0):
    member = signals.is_member(target)
    return auc(score[member], score[~member])
