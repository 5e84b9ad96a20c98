"""The roles of records for each model: a ``(K, N)`` matrix, in which model 0 is the victim.

Three layouts are the same object:

* ``disjoint``: one half of the records is the victim's, the other the adversary's, from which every
  shadow draws train, dev and audit records. No record from which the adversary learns is ever
  scored.
* ``shared``: random halves of one pool of audited records (Carlini et al. 2022), as LiRA and RMIA
  need.
* ``subsets``: random subsets of one party's own records, for memorization scores (Feldman & Zhang
  2020).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int8, Int64

from wemem.errors import InputError, TooFewRecordsError
from wemem.randomness import generator

#: The number of models that train on a record is at least this share of its mean, where reference
#: models train on less than half of the audited records. At 0.75 LiRA's leave-one-out AUC on noise
#: is 0.497 with 24 models, as with independent draws; strict balance gives 0.49.
COVERED = 0.75

Layout = Literal["disjoint", "shared", "subsets"]
Indices = Int64[np.ndarray, " _"]


class Role(IntEnum):
    """The use that a model makes of a record."""

    UNUSED = 0
    TRAIN = 1
    DEV = 2
    AUDIT = 3


@dataclass(frozen=True, eq=False)
class Split:
    """Roles of ``N`` records for ``K`` models.

    Args:
        roles: int8, shape ``(K, N)``, values of :class:`Role`.
        labels: int64, shape ``(N,)``.
        layout: the rule by which models may share records; it is checked at construction.

    Raises:
        InputError: a role without records of some class, or shared records that must not be.
    """

    roles: Int8[np.ndarray, "K N"]
    labels: Int64[np.ndarray, " N"]
    layout: Layout

    def __post_init__(self) -> None:
        if self.roles.ndim != 2 or self.roles.shape[1] != len(self.labels):
            raise InputError(
                f"expected roles (K, {len(self.labels)}), got {self.roles.shape}; give one row for each model"
            )
        if self.roles.min(initial=0) < 0 or self.roles.max(initial=0) > max(Role):
            raise InputError(
                f"expected roles {[r.value for r in Role]}, got {np.unique(self.roles).tolist()[:20]}; use Role"
            )
        if self.layout == "disjoint":
            shared = (self.roles[0] != Role.UNUSED) & (self.roles[1:] != Role.UNUSED).any(axis=0)
            if shared.any():
                raise InputError(
                    f"expected the shadows to share no record with the victim, got {int(shared.sum())} shared "
                    f"record(s), first {int(shared.argmax())}; give the shadows other records"
                )
        for role in (Role.TRAIN, Role.DEV):
            self._require_every_class(role)
        if self.layout != "subsets":
            self._require_every_class(Role.AUDIT)

    def _require_every_class(self, role: Role) -> None:
        classes, place = np.unique(self.labels, return_inverse=True)
        for k, row in enumerate(self.roles):
            missing = classes[np.bincount(place[row == role], minlength=len(classes)) == 0]
            if len(missing):
                raise TooFewRecordsError(
                    f"expected every class among the {role.name.lower()} records of model {k}, got none of class "
                    f"{int(missing[0])}; bring more records of it, fewer shadows, or a larger share for that role"
                )

    @property
    def num_models(self) -> int:
        """K, the number of models."""
        return len(self.roles)

    def records(self, model: int, role: Role) -> Indices:
        """Sorted indices of the records that have ``role`` for ``model``."""
        return np.flatnonzero(self.roles[model] == role)

    def audited(self, model: int) -> Indices:
        """Sorted indices of the records on which ``model`` is attacked: its train and audit
        records.
        """
        return np.flatnonzero((self.roles[model] == Role.TRAIN) | (self.roles[model] == Role.AUDIT))

    @property
    def population(self) -> Indices:
        """Records without a role for any model (RMIA's population)."""
        return np.flatnonzero((self.roles == Role.UNUSED).all(axis=0))

    def select(self, models: Sequence[int]) -> "Split":
        """The same split for some of the models. Without model 0 in front there is no victim to be
        disjoint from.
        """
        rows = list(models)
        same = self.layout != "disjoint" or rows[:1] == [0]
        return Split(self.roles[rows], self.labels, self.layout if same else "subsets")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over roles, labels and layout."""
        digest = hashlib.sha256(repr((self.roles.shape, self.layout)).encode())
        digest.update(np.ascontiguousarray(self.roles).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def stratified_draw(
    labels: Int64[np.ndarray, " N"], pool: Indices, sizes: list[int], rng: np.random.Generator, *,
    turns: Int64[np.ndarray, " N"] | None = None,
) -> list[Indices]:  # fmt: skip
    """Draw disjoint random parts of ``pool``, of exactly the given sizes, each with the pool's
    class proportions.

    Each class gives every part its proportional number to within one record. Within a class,
    records with fewer ``turns`` go to earlier parts, but for a random lead of up to two turns; None
    means the same number for all.

    >>> import numpy as np
    >>> y = np.array([0] * 6 + [1] * 4)
    >>> a, b = stratified_draw(y, np.arange(10), [5, 5], np.random.default_rng(0))
    >>> np.bincount(y[a]).tolist(), np.bincount(y[b]).tolist()
    ([3, 2], [3, 2])
    """
    if min(sizes) < 0:
        raise InputError(f"expected sizes of 0 or more, got {sizes}; make them positive")
    if sum(sizes) > len(pool):
        raise TooFewRecordsError(
            f"expected at least {sum(sizes)} records to draw from, got {len(pool)}; bring more records"
        )
    everything = [*sizes, len(pool) - sum(sizes)]
    late = 2 * rng.random(len(pool)) + (0 if turns is None else turns[pool])
    shuffled = pool[np.argsort(late)]
    classes = [shuffled[labels[shuffled] == label] for label in np.unique(labels[pool])]
    counts = np.array([[size * len(own) // len(pool) for size in everything] for own in classes], np.int64)
    counts = counts.reshape(len(classes), len(everything))
    left = np.array([len(own) for own in classes], np.int64) - counts.sum(1)
    for part, size in enumerate(everything):
        # who has most left gives first, ties at random: then no class has to give a part two more
        # (Gale and Ryser)
        givers = np.lexsort((rng.random(len(left)), -left))[: size - counts[:, part].sum()]
        counts[givers, part] += 1
        left[givers] -= 1
    ends = np.cumsum(counts, axis=1)
    parts = list(zip((ends - counts).T.tolist(), ends.T.tolist(), strict=True))[: len(sizes)]
    return [
        np.sort(np.concatenate([pool[:0], *(own[a:b] for own, a, b in zip(classes, first, last, strict=True))]))
        for first, last in parts
    ]


def victim_and_shadows(
    labels: Int64[np.ndarray, " N"], shadows: int, *, seed: int, train: float = 0.6, dev: float = 0.1
) -> Split:
    """Draw the ``disjoint`` layout: half of the records to the victim, half to the adversary.

    Args:
        labels: the class of each record, shape ``(N,)``.
        shadows: the number of shadow models; each draws train, dev and audit records from the
            adversary's half.
        seed: the study's seed; shadow ``k`` does not depend on the number of shadows.
        train: the share of a half that is trained on.
        dev: the share of a half for early stopping; the rest is audited as non-members.

    Raises:
        InputError: shares that leave no audit records, or a class too rare for every role.
    """
    require_shares(shadows, train, dev)
    n = len(labels)
    halves = stratified_draw(labels, np.arange(n), [n // 2, n - n // 2], generator(seed, "split/halves"))
    roles = np.zeros((1 + shadows, n), np.int8)
    for k in range(1 + shadows):
        half = halves[0] if k == 0 else halves[1]
        n_train, n_dev = round(train * (n // 2)), round(dev * (n // 2))
        sizes = [n_train, n_dev, len(half) - n_train - n_dev]
        drawn = stratified_draw(labels, half, sizes, generator(seed, "split/member", k))
        for role, rows in zip((Role.TRAIN, Role.DEV, Role.AUDIT), drawn, strict=True):
            roles[k, rows] = role
    return Split(roles, labels, "disjoint")


def require_shares(shadows: int, train: float, dev: float) -> None:
    """Refuse a number of shadows and shares that no split can have.

    Raises:
        InputError: no shadow, or shares that leave no records to audit.
    """
    if shadows < 1:
        raise InputError(f"expected at least 1 shadow model, got {shadows}; raise split.shadows")
    if not (train > 0 and dev > 0 and train + dev < 1):
        raise InputError(f"expected train > 0, dev > 0 and train + dev < 1, got train={train}, dev={dev}; change split")


def subsets(
    labels: Int64[np.ndarray, " N"], pool: Indices, size: int, models: int, *, seed: int, purpose: str,
    dev: Indices | int,
) -> Split:  # fmt: skip
    """Draw the ``subsets`` layout: each model trains on ``size`` random records of ``pool``; the
    others are audited.

    Independent draws leave some records out of no model, or of all (one in 1,250 with 20 models on
    70 % each), and such a record has no score. So records on which fewer models were trained come
    first, but for a random lead of up to two models. A strict order would bind records to each
    other, because those that were left out together would come in together, and the scores would be
    noisier than their standard error.

    Args:
        labels: the class of each record, shape ``(N,)``.
        pool: the records of one party; no others are trained on.
        size: the number of records that each model trains on.
        models: the number of models; model ``k`` does not depend on it.
        seed: the study's seed.
        purpose: the name of the party; two parties with equal pools still draw differently.
        dev: records outside the pool for early stopping, or the number that each model draws from
            its left-out ones.

    Raises:
        InputError: the pool is too small, or has dev records in it.
    """
    drawn = dev if isinstance(dev, int) else 0
    if not isinstance(dev, int):
        _require_apart(dev, pool, "dev records outside the pool")
    if size < 1 or drawn < 0:
        raise InputError(
            f"expected subsets of 1 or more records and 0 or more dev records, got {size} and {drawn}; change the sizes"
        )
    if size + drawn > len(pool):
        raise TooFewRecordsError(
            f"expected at least {size + drawn} records to draw from, got {len(pool)}; bring more records"
        )
    roles = np.zeros((models, len(labels)), np.int8)
    for k in range(models):
        rng, before = generator(seed, "split/subset", purpose, k), roles[:k]
        (inside,) = stratified_draw(labels, pool, [size], rng, turns=(before == Role.TRAIN).sum(0))
        left_out = np.setdiff1d(pool, inside)
        own_dev = stratified_draw(labels, left_out, [drawn], rng, turns=(before != Role.AUDIT).sum(0))[0]
        roles[k, pool], roles[k, inside] = Role.AUDIT, Role.TRAIN
        roles[k, own_dev if isinstance(dev, int) else dev] = Role.DEV
    return Split(roles, labels, "subsets")


def random_halves(
    labels: Int64[np.ndarray, " N"], pool: Indices, models: int, *, seed: int, outside: Indices,
    train_size: int | None = None, dev_size: int,
) -> Split:  # fmt: skip
    """Draw the ``shared`` layout: complementary halves of ``pool``, so that half of the models
    train on each record.

    Model ``2j`` trains on a random half of the pool and is audited on the other, model ``2j+1`` the
    reverse. Where the victim trains on more than half of the audited records, ``train_size`` tops
    the models up with random records from ``outside``, halved between the two in the same way, so
    that they see as much data as it did. Dev records come from ``outside`` too, the same for all;
    the rest of them is the population.

    Where the victim trains on less than half, so must they, or they would memorize less than it
    does: then each model trains on ``train_size`` records of the pool. They are drawn at random,
    but records that too few models were trained on so far come first, so that every record ends in
    at least about :data:`COVERED` of the mean number of models. A stricter balance would let the
    number of models that saw a record tell whether one more did.

    Args:
        labels: the class of each record, shape ``(N,)``.
        pool: the audited records.
        models: the number of models, which is even, so that the halves are complementary.
        seed: the study's seed; model ``k`` does not depend on the number of models.
        outside: records that are not audited, for dev, top-up and population.
        train_size: the number of records that each model trains on; None means half of the pool.
        dev_size: the number of records for early stopping.

    Raises:
        InputError: an odd number of models, too few records outside, or records that are in both.
    """
    if models < 2 or models % 2:
        raise InputError(f"expected an even number of reference models, got {models}; halves come in pairs")
    _require_apart(outside, pool, "the records outside to be none of the pool's")
    halves = [len(pool) // 2, len(pool) - len(pool) // 2]
    size = halves[0] if train_size is None else train_size
    extra = [max(0, size - half) for half in halves]
    dev, reserve = stratified_draw(labels, outside, [dev_size, sum(extra)], generator(seed, "split/outside"))
    roles = np.zeros((models, len(labels)), np.int8)
    for j in range(models // 2):
        rng = generator(seed, "split/pair", j)
        inside = (
            stratified_draw(labels, pool, halves, rng)
            if size >= halves[0]
            else _covering(labels, pool, size, roles[: 2 * j], rng)
        )
        fills = stratified_draw(labels, reserve, extra, rng)
        for side in range(2):
            row = roles[2 * j + side]
            row[pool], row[reserve], row[dev] = Role.AUDIT, Role.AUDIT, Role.DEV
            row[inside[side]], row[fills[side]] = Role.TRAIN, Role.TRAIN
    return Split(roles, labels, "shared")


def _covering(
    labels: Int64[np.ndarray, " N"], pool: Indices, size: int, before: Int8[np.ndarray, "k N"], rng: np.random.Generator
) -> list[Indices]:
    """Train records of the next two models, those first that fewer models were trained on than
    should have been.
    """
    seen, drawn = (before == Role.TRAIN).sum(0), list[Indices]()
    for model in range(len(before), len(before) + 2):
        wanted = int(COVERED * size / len(pool) * (model + 2))  # one model ahead, for not all may fit in the next
        drawn += stratified_draw(labels, pool, [size], rng, turns=-2 * np.maximum(0, wanted - seen))
        seen[drawn[-1]] += 1
    return drawn


def require_covered(split: Split, pool: Indices, least: int) -> None:
    """Refuse reference models of which too few were trained with an audited record, or without it.

    Args:
        split: the roles of the reference models.
        pool: the audited records.
        least: models that must be left on each side of every record.

    Raises:
        InputError: with the number of models that would do, by the records of the rarest side.
    """
    inside = (split.roles[:, pool] == Role.TRAIN).sum(0)
    outside = (split.roles[:, pool] == Role.AUDIT).sum(0)
    for side, counts in (("trained with", inside), ("trained without", outside)):
        if counts.min() < least:
            share = float(counts.mean()) / split.num_models
            enough = 2 * least if share >= 0.5 else 2 * math.ceil((least + 1) / (2 * COVERED * share))
            raise TooFewRecordsError(
                f"expected at least {least} reference models {side} each audited record, got {int(counts.min())} for "
                f"record {int(pool[counts.argmin()])} with {split.num_models} models; raise split.references to "
                f"{max(enough, split.num_models + 2)}, or let models train on more records (split.train)"
            )


def _require_apart(records: Indices, pool: Indices, expected: str) -> None:
    shared = np.intersect1d(records, pool)
    if len(shared):
        raise InputError(f"expected {expected}, got {len(shared)} record(s) in both, first {shared[0]}; leave them out")
