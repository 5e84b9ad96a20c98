"""What attacks by reference models compare a record against: models trained with it and models trained without it."""

import numpy as np
from jaxtyping import Bool, Int64

from wemem.data.split import Role
from wemem.errors import InputError
from wemem.signals import Signals

Trained = Bool[np.ndarray, "K N"]


def references(
    signals: Signals, target: int, rows: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " k"], Bool[np.ndarray, "k n"]]:
    """The target's reference models, and which of the rows each was trained on (a record for early stopping is out).

    Every member but the target; of an ensemble of complementary halves only whole pairs. When members of such an
    ensemble are attacked in turn, the target's partner is left single, and with it a record is in one reference model
    fewer exactly if the target was trained on it: the *count* tells the truth, and an estimate over fewer models
    fits worse. So the single one is left out, as in the code of Zarifzadeh et al. It is known by what it lacks,
    not by the target's roles.

    Raises:
        InputError: no reference model.
    """
    others = np.delete(np.arange(signals.num_models), target)
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


def require_models(trained: Bool[np.ndarray, "K N"], *sides: bool, fewest: int = 1) -> None:
    """Refuse records with too few reference models to compare the target with.

    Args:
        trained: which records each model was trained on.
        sides: True, there must be models trained with each record; False, without it.
        fewest: how many.

    Raises:
        InputError: fewer on a side.
    """
    inside = trained.sum(axis=0)
    for side in sides:
        count = inside if side else len(trained) - inside
        few = count < fewest
        if few.any():
            raise InputError(
                f"expected at least {fewest} reference model(s) trained {'with' if side else 'without'} each judged "
                f"record, got {int(count[few][0])} for number {int(few.argmax())} of {len(count)} and {int(few.sum())} "
                "such record(s); bring more reference models"
                + (", or take one variance for all records" if fewest > 1 else "")
            )
