"""Who is trained on what: a ``(K, N)`` matrix of roles, member 0 the victim.

Three layouts are the same object:

* ``disjoint``: one half of the records is the victim's parties, the other the adversary's, from which every shadow
  draws its own train, dev and audit records. Nothing the adversary learns from is ever scored.
* ``shared``: random halves of one pool that holds the audited records (Carlini et al. 2022), as LiRA and RMIA need.
* ``subsets``: random subsets of one party's own records, for memorization scores (Feldman & Zhang 2020).
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

from wemem.errors import InputError
from wemem.randomness import generator

#: Share of the mean number of models that trained on a record that every record is to have at least, where reference
#: models train on less than half of the audited records. At 0.75 LiRA's leave-one-out AUC on noise is 0.497 with 24
#: models, as with independent draws; strict balance gives 0.49.
COVERED = 0.75

Layout = Literal["disjoint", "shared", "subsets"]
Indices = Int64[np.ndarray, " _"]


class Role(IntEnum):
    """What a record is to a member."""

    UNUSED = 0
    TRAIN = 1
    DEV = 2
    AUDIT = 3


@dataclass(frozen=True, eq=False)
class Split:
    """Roles of ``N`` records for ``K`` members.

    Args:
        roles: int8, shape ``(K, N)``, values of :class:`Role`.
        labels: int64, shape ``(N,)``.
        layout: which disjointness holds; it is proved here, at construction.

    Raises:
        InputError: a role without a class that occurs in the data, or records shared that must not be.
    """

    roles: Int8[np.ndarray, "K N"]
    labels: Int64[np.ndarray, " N"]
    layout: Layout

    def __post_init__(self) -> None:
        if self.roles.ndim != 2 or self.roles.shape[1] != len(self.labels):
            raise InputError(f"expected roles (K, {len(self.labels)}), got {self.roles.shape}")
        if self.roles.min(initial=0) < 0 or self.roles.max(initial=0) > max(Role):
            raise InputError(f"expected roles {[r.value for r in Role]}, got {np.unique(self.roles).tolist()}")
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
        classes = np.unique(self.labels)
        for k, row in enumerate(self.roles):
            missing = np.setdiff1d(classes, self.labels[row == role])
            if len(missing):
                raise InputError(
                    f"expected every class among the {role.name.lower()} records of member {k}, got none of class "
                    f"{int(missing[0])}; bring more records of it, fewer shadows, or a larger share for that role"
                )

    @property
    def num_models(self) -> int:
        """K, the number of models."""
        return len(self.roles)

    def records(self, member: int, role: Role) -> Indices:
        """Sorted indices of the records that have ``role`` for ``member``."""
        return np.flatnonzero(self.roles[member] == role)

    def audited(self, member: int) -> Indices:
        """Sorted indices of the records on which ``member`` is judged: its train and audit records."""
        return np.flatnonzero((self.roles[member] == Role.TRAIN) | (self.roles[member] == Role.AUDIT))

    @property
    def population(self) -> Indices:
        """Records that no member uses in any role (RMIA's population)."""
        return np.flatnonzero((self.roles == Role.UNUSED).all(axis=0))

    def select(self, members: Sequence[int]) -> "Split":
        """The same split for some of the members. Without member 0 in front there is no victim to be disjoint from."""
        rows = list(members)
        kept = self.layout != "disjoint" or rows[:1] == [0]
        return Split(self.roles[rows], self.labels, self.layout if kept else "subsets")

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
    """Disjoint random parts of ``pool``, of exactly the given sizes, each with the pool's class proportions.

    Sizes are met to the record, and each class gives every part its proportional number to within one record. Within a
    class a record with fewer ``turns`` goes to an earlier part, but for a random lead of up to two turns; all have had
    the same number if None.

    >>> import numpy as np
    >>> y = np.array([0] * 6 + [1] * 4)
    >>> a, b = stratified_draw(y, np.arange(10), [5, 5], np.random.default_rng(0))
    >>> np.bincount(y[a]).tolist(), np.bincount(y[b]).tolist()
    ([3, 2], [3, 2])
    """
    if min(sizes) < 0:
        raise InputError(f"expected sizes of 0 or more, got {sizes}")
    if sum(sizes) > len(pool):
        raise InputError(f"expected at least {sum(sizes)} records to draw from, got {len(pool)}; bring more records")
    everything = [*sizes, len(pool) - sum(sizes)]
    late = 2 * rng.random(len(pool)) + (0 if turns is None else turns[pool])
    shuffled = pool[np.argsort(late)]
    classes = [shuffled[labels[shuffled] == label] for label in np.unique(labels[pool])]
    counts = np.array([[size * len(own) // len(pool) for size in everything] for own in classes], np.int64)
    counts = counts.reshape(len(classes), len(everything))
    left = np.array([len(own) for own in classes], np.int64) - counts.sum(1)
    for part, size in enumerate(everything):
        # who has most left gives first, ties at random: then no class has to give a part two more (Gale and Ryser)
        givers = np.lexsort((rng.random(len(left)), -left))[: size - counts[:, part].sum()]
        counts[givers, part] += 1
        left[givers] -= 1
    cuts = [np.split(own, np.cumsum(n)) for own, n in zip(classes, counts, strict=True)]
    return [np.sort(np.concatenate([pool[:0], *(cut[part] for cut in cuts)])) for part in range(len(sizes))]


def victim_and_shadows(
    labels: Int64[np.ndarray, " N"], shadows: int, *, seed: int, train: float = 0.6, dev: float = 0.1
) -> Split:
    """The ``disjoint`` layout: half of the records to the victim, half to the adversary.

    Args:
        labels: shape ``(N,)``.
        shadows: number of shadow models; each redraws train, dev and audit records from the adversary's half.
        seed: the study's seed; shadow ``k`` does not depend on how many shadows there are.
        train: share of a half that is trained on.
        dev: share of a half for early stopping; what is left is audited as non-members.

    Raises:
        InputError: shares that leave no audit records, or a class too rare for every role.
    """
    require_shares(shadows, train, dev)
    n = len(labels)
    halves = stratified_draw(labels, np.arange(n), [n // 2, n - n // 2], generator(seed, "split/halves"))
    roles = np.zeros((1 + shadows, n), np.int8)
    for k in range(1 + shadows):
        own = halves[0] if k == 0 else halves[1]
        n_train, n_dev = round(train * (n // 2)), round(dev * (n // 2))
        sizes = [n_train, n_dev, len(own) - n_train - n_dev]
        drawn = stratified_draw(labels, own, sizes, generator(seed, "split/member", k))
        for role, rows in zip((Role.TRAIN, Role.DEV, Role.AUDIT), drawn, strict=True):
            roles[k, rows] = role
    return Split(roles, labels, "disjoint")


def require_shares(shadows: int, train: float, dev: float) -> None:
    """Refuse numbers that no split can have.

    Raises:
        InputError: no shadow, or shares that leave nothing to audit.
    """
    if shadows < 1:
        raise InputError(f"expected at least 1 shadow model, got {shadows}")
    if not (train > 0 and dev > 0 and train + dev < 1):
        raise InputError(f"expected train > 0, dev > 0 and train + dev < 1, got train={train}, dev={dev}")


def subsets(
    labels: Int64[np.ndarray, " N"], pool: Indices, size: int, models: int, *, seed: int, purpose: str,
    dev: Indices | int,
) -> Split:  # fmt: skip
    """The ``subsets`` layout: each model trains on a random ``size`` of ``pool``; who is left out is audited.

    Independent draws leave a record out of no model, or of all, more often than one thinks (20 models on 70 % each: one
    record in 1,250), and such a record has no score. So records take turns: those that fewer models were trained on
    come first, but for a random lead of up to two models. Strict turns would bind the records to each other (who was
    out together comes in together), which makes scores noisier than their standard error says.

    Args:
        labels: shape ``(N,)``.
        pool: the records of one party; nothing else is trained on.
        size: records that each model trains on.
        models: number of models; model ``k`` does not depend on how many there are.
        seed: the study's seed.
        purpose: whose ensemble this is; two parties with equal pools still draw differently.
        dev: records outside the pool for early stopping, or how many each model draws from those it leaves out.

    Raises:
        InputError: the pool is too small, or has dev records in it.
    """
    drawn = dev if isinstance(dev, int) else 0
    if not isinstance(dev, int):
        _require_apart(dev, pool, "dev records outside the pool")
    if size < 1 or drawn < 0:
        raise InputError(f"expected subsets of 1 or more records and 0 or more dev records, got {size} and {drawn}")
    if size + drawn > len(pool):
        raise InputError(f"expected at least {size + drawn} records to draw from, got {len(pool)}; bring more records")
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
    """The ``shared`` layout: complementary random halves of ``pool``; each record is in exactly half of the models.

    Model ``2j`` trains on a random half of the pool and is audited on the other, model ``2j+1`` the reverse. Where the
    victim trains on more than half of the audited records, ``train_size`` tops the models up with random records
    from ``outside``, halved between the two just the same, so that they see as much data as it did. Dev records come
    from ``outside`` too, the same for all; what is left there is the population.

    Where the victim trains on less than half, so must they, or they would memorize less than it does: then each model
    trains on ``train_size`` records of the pool. They are drawn at random, but records that too few models were trained
    on so far come first, so that every record ends in at least about :data:`COVERED` of the mean number of models. A
    stricter balance would let the number of models that saw a record tell whether one more did.

    Args:
        labels: shape ``(N,)``.
        pool: the audited records.
        models: how many; an even number, so that the halves are complementary.
        seed: the study's seed; model ``k`` does not depend on how many there are.
        outside: records that are not audited, for dev, top-up and population.
        train_size: records each model trains on; half of the pool if None.
        dev_size: records for early stopping.

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
    """Train records of the next two models, those first that fewer models were trained on than should have been."""
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
            raise InputError(
                f"expected at least {least} reference models {side} each audited record, got {int(counts.min())} for "
                f"record {int(pool[counts.argmin()])} with {split.num_models} models; raise split.references to "
                f"{max(enough, split.num_models + 2)}, or let models train on more records (split.train)"
            )


def _require_apart(records: Indices, pool: Indices, expected: str) -> None:
    shared = np.intersect1d(records, pool)
    if len(shared):
        raise InputError(f"expected {expected}, got {len(shared)} record(s) in both, first {shared[0]}; leave them out")
