"""What attacks by reference models compare a record against: models trained with it and models trained without it."""

import numpy as np
from jaxtyping import Bool, Int64

from wemem.data.split import Role
from wemem.errors import InputError
from wemem.signals import Signals

Trained = Bool[np.ndarray, "K N"]


def references(signals: Signals, target: int, rows: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " k"], Trained]:
    """The target's reference models, and which of the rows each was trained on. Records for early stopping count as out.

    Every member but the target; of an ensemble of complementary halves only whole pairs. When members of such an
    ensemble are attacked in turn, the target's partner is left single, and with it a record is in one reference model
    fewer exactly if the target was trained on it: the *count* tells the truth, and an estimate over fewer models
    fits worse. So it goes (as in the code of Zarifzadeh et al.). It is known by what it lacks, not by the
    target's roles.

    Raises:
        InputError: no reference model.
    """
    others = np.delete(np.arange(signals.members), target)
    trained = signals.roles[np.ix_(others, rows)] == Role.TRAIN
    keep = whole_pairs(trained)
    if not keep.any():
        raise InputError(
            f"expected reference models besides the target, member {target}, got none; bring models trained on random "
            "halves of the audited records, 16 for a start"
        )
    return others[keep], trained[keep]


def whole_pairs(trained: Trained) -> Bool[np.ndarray, " K"]:
    """Which models have a partner that was trained on exactly the records they were not; all, if there is no such pair.

    >>> whole_pairs(np.array([[True, True, False], [False, False, True], [True, False, True]])).tolist()
    [True, True, False]
    >>> whole_pairs(np.array([[True, True, False], [True, False, True]])).tolist()
    [True, True]
    """
    halves = {row.tobytes() for row in np.packbits(trained, axis=1)}
    paired = np.array([row.tobytes() in halves for row in np.packbits(~trained, axis=1)], dtype=bool)
    return paired if paired.any() else np.ones(len(trained), dtype=bool)


def require_both_sides(with_record: Int64[np.ndarray, " N"], without_record: Int64[np.ndarray, " N"], fewest: int) -> None:
    """Refuse records that too few reference models were trained with, or without.

    Raises:
        InputError: fewer than ``fewest`` on a side.
    """
    for count, side in ((with_record, "with"), (without_record, "without")):
        if len(count) and count.min() < fewest:
            remedy = "bring more reference models" if fewest == 1 else "bring more, or take one variance for all records"
            raise InputError(
                f"expected at least {fewest} reference model(s) trained {side} each record, got {int(count.min())} for "
                f"record {int(count.argmin())} of those judged and {int((count < fewest).sum())} such record(s); {remedy}"
            )
