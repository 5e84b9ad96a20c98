"""The split around a victim that exists already: shadows are matched to its number of training
records and classes.
"""

import numpy as np
from jaxtyping import Int64

from wemem.data.split import Indices, Role, Split, random_halves, require_shares, stratified_draw
from wemem.errors import InputError, TooFewRecordsError
from wemem.randomness import generator

#: A shadow of the victim's size has at least this many records to be audited by, relative to those
#: it trains on.
LEAST_AUDITED = 0.1
#: The sizes of two training sets are the same if they differ by no more than this share.
SAME_SIZE = 0.02
#: Their class shares are the same if no more than this share of the records would have to change
#: class, besides what stratified draws of whole records leave.
SAME_CLASSES = 0.05


def given_victim(
    labels: Int64[np.ndarray, " N"], members: Indices, shadows: int, *, seed: int, train: float = 0.6, dev: float = 0.1,
    adversary_share: float = 0.0, dev_records: Indices | None = None,
) -> Split:  # fmt: skip
    """Return the ``disjoint`` layout around a victim that exists already.

    The victim keeps its members. Of the other records it gets dev and audit records in the
    proportions that ``train`` and ``dev`` state, and the adversary gets the rest. From those every
    shadow draws as many training records of each class as the victim has, and dev and audit records
    in the same proportions, or as many as are left. If the adversary has too few records, its
    shadows train on the share ``train`` of what it has. Then :func:`matched` is false, and no audit
    is adaptive.

    Args:
        labels: the class of each of the N records.
        members: the records that the victim was trained on.
        shadows: the number of shadow models.
        seed: the seed of the study.
        train: the share of a model's records that it trains on.
        dev: the share of a model's records for early stopping.
        adversary_share: the share of the members that the adversary gets as data of its own; they
            are not audited.
        dev_records: the records on whose accuracy the victim was selected, if they are known. They
            are its dev records, and neither members nor non-members.

    Raises:
        InputError: unknown records, or too few that the victim was not trained on.
    """
    require_shares(shadows, train, dev)
    members = np.unique(members)
    if len(members) == 0 or members[0] < 0 or members[-1] >= len(labels):
        raise InputError(f"expected members among records 0..{len(labels) - 1}, got {members[:1]}..{members[-1:]}")
    others = np.setdiff1d(np.arange(len(labels)), members)
    known_dev = np.intersect1d(others, [] if dev_records is None else dev_records).astype(np.int64)
    n_lent = round(adversary_share * len(members))
    lent, audited = stratified_draw(labels, members, [n_lent, len(members) - n_lent], generator(seed, "split/lend"))
    n_dev, n_audit = round(dev / train * len(audited)), round((1 - train - dev) / train * len(audited))
    if n_dev + n_audit >= len(others):
        raise TooFewRecordsError(
            f"expected more than {n_dev + n_audit} records that the victim was not trained on, got {len(others)}; "
            "bring more of them, or give the adversary a share of them (adversary_share)"
        )
    if len(known_dev):
        others, n_dev = np.setdiff1d(others, known_dev), 0
    own_dev, own_audit, rest = stratified_draw(
        labels, others, [n_dev, n_audit, len(others) - n_dev - n_audit], generator(seed, "split/halves")
    )
    own_dev = known_dev if len(known_dev) else own_dev
    pool = np.sort(np.concatenate([rest, lent]))
    roles = np.zeros((1 + shadows, len(labels)), np.int8)
    for role, rows in ((Role.TRAIN, audited), (Role.DEV, own_dev), (Role.AUDIT, own_audit)):
        roles[0, rows] = role
    for k in range(1, 1 + shadows):
        rng = generator(seed, "split/member", k)
        drawn = _matched_parts(labels, pool, members, train, dev, rng) or _all_of_it(labels, pool, train, dev, rng)
        for role, rows in zip((Role.TRAIN, Role.DEV, Role.AUDIT), drawn, strict=True):
            roles[k, rows] = role
    return Split(roles, labels, "disjoint")


def halves_around(labels: Int64[np.ndarray, " N"], split: Split, members: Indices, models: int, *, seed: int) -> Split:
    """Return reference models on random halves of the audited records of a given victim, matched to
    its size.

    They are as large as the records allow: of those that are not audited, half is left for a
    population.

    Args:
        labels: the class of each of the N records.
        split: the roles of the victim and its shadows, as :func:`given_victim` gives them.
        members: the records that the victim was trained on.
        models: the number of reference models.
        seed: the seed of the study.
    """
    audited, dev = split.audited(0), split.records(0, Role.DEV)
    outside = np.setdiff1d(np.arange(len(labels)), np.concatenate([audited, dev]))
    size = min(len(members), len(audited) // 2 + max(0, len(outside) // 2 - len(dev)) // 2)
    return random_halves(labels, audited, models, seed=seed, outside=outside, train_size=size, dev_size=len(dev))


def matched(labels: Int64[np.ndarray, " N"], members: Indices, train: Indices) -> bool:
    """True if a model trains on as many records as the victim, with the same class shares.

    >>> labels = np.arange(200) % 2
    >>> matched(labels, np.arange(100), np.arange(100, 200)), matched(labels, np.arange(100), np.arange(150))
    (True, False)
    """
    classes = int(labels.max()) + 1
    return matched_counts(*(np.bincount(labels[rows], minlength=classes) for rows in (members, train)))


def matched_counts(own: Int64[np.ndarray, " C"], other: Int64[np.ndarray, " C"]) -> bool:
    """True if two numbers of records of each class are the same, as :func:`matched` compares them."""
    n, others = own.sum(), other.sum()
    moved = 0.5 * np.abs(own / n - other / others).sum()
    same_size = abs(n - others) <= max(1, SAME_SIZE * n)
    return bool(same_size and moved <= max(SAME_CLASSES, 1.5 * len(own) / n))


def _matched_parts(
    labels: Int64[np.ndarray, " N"], pool: Indices, members: Indices, train: float, dev: float,
    rng: np.random.Generator,
) -> list[Indices] | None:  # fmt: skip
    """Train, dev and audit records of a shadow with the victim's class counts; None if the pool is
    too small.
    """
    n_dev, n_audit = (round(share / train * len(members)) for share in (dev, 1 - train - dev))
    inside = []
    for label, count in zip(*np.unique(labels[members], return_counts=True), strict=True):
        of_class = pool[labels[pool] == label]
        if len(of_class) < count:
            return None
        inside.append(rng.permutation(of_class)[:count])
    chosen = np.sort(np.concatenate(inside))
    left = np.setdiff1d(pool, chosen)
    rarest = min(int((labels[left] == label).sum()) for label in np.unique(labels))
    if rarest == 0:
        return None
    if n_dev + n_audit > len(left):
        n_dev = round(dev / (1 - train) * len(left))
        n_audit = len(left) - n_dev
    # enough for one dev and one audit record of the rarest class
    n_dev, n_audit = (max(size, -(-len(left) // rarest)) for size in (n_dev, n_audit))
    if n_dev + n_audit > len(left) or n_audit < LEAST_AUDITED * len(members):
        return None
    return [chosen, *stratified_draw(labels, left, [n_dev, n_audit], rng)]


def _all_of_it(
    labels: Int64[np.ndarray, " N"], pool: Indices, train: float, dev: float, rng: np.random.Generator
) -> list[Indices]:
    """Train, dev and audit records of a shadow in the stated shares of the pool."""
    n_train, n_dev = round(train * len(pool)), round(dev * len(pool))
    return stratified_draw(labels, pool, [n_train, n_dev, len(pool) - n_train - n_dev], rng)
