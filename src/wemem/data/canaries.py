"""Canaries: records made to be memorized, by which a study measures the worst case.

An average over ordinary records hides the few that a model must memorize. Aerni, Zhang & Tramèr
("Evaluations of machine learning privacy defenses are misleading", CCS 2024) audit defenses by
records of that kind. Three kinds are made from the study's own data:

* ``mislabelled``: an ordinary record with a wrong label.
* ``twins``: the same beside an identical record with the right label, on which every model of the
  party trains. The twin reveals the label of its original to a defense that holds out single
  records.
* ``out_of_distribution``: a record whose every feature comes from another record drawn at random,
  with a random label.

Half of the canaries are members of each model. The reference models come in pairs, of which one
trains on a canary and the other does not. The victim and the reference models share their canaries;
the shadows have others, from records of the adversary, so that they are trained as the victim is.
The records from which mislabelled canaries and twins are made are left out of every role.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64, Real

from wemem.data.dataset import Dataset
from wemem.data.split import Indices, Role, Split, stratified_draw
from wemem.errors import InputError, TooFewRecordsError
from wemem.randomness import generator

#: The kinds of canaries, in the order of their records.
KINDS = ("mislabelled", "twins", "out_of_distribution")
#: The fewest canaries of a study: eight of each kind.
FEWEST = 24


def require_count(count: int) -> None:
    """Refuse a number of canaries that cannot be divided among the kinds.

    Raises:
        InputError: the number is neither 0 nor a multiple of three of at least :data:`FEWEST`.
    """
    if count and (count < FEWEST or count % len(KINDS)):
        raise InputError(
            f"canaries must be 0 or a multiple of {len(KINDS)} of at least {FEWEST}, got {count}; there are as many "
            f"of each kind: {', '.join(KINDS)}"
        )


@dataclass(frozen=True, eq=False)
class Planted:
    """A data set with canaries behind its records, and the roles of the victim and the shadows.

    Args:
        data: the records, the canaries of the victim with the originals of its twins, and as many
            of the shadows.
        split: the roles of all of them for the victim, model 0, and its shadows.
        records: the number of records without canaries, N.
        canaries: the numbers of the victim's canaries by kind.
        originals: the numbers of the right-labelled copies beside the victim's twins.
        sources: the records from which the victim's canaries were made, which have no role.
        seed: the seed of the study.
    """

    data: Dataset
    split: Split
    records: int
    canaries: dict[str, Indices]
    originals: Indices
    sources: Indices
    seed: int

    @property
    def all_canaries(self) -> Indices:
        """The numbers of the victim's canaries of every kind."""
        return np.concatenate(list(self.canaries.values()))

    def without_canaries(self, split: Split) -> Split:
        """Cut roles of the whole data set to its records without canaries."""
        return Split(split.roles[:, : self.records], split.labels[: self.records], split.layout)

    def extended(self, halves: Split) -> Split:
        """Give reference models their roles for the canaries.

        Args:
            halves: the roles of an even number of models for the records without canaries.
        """
        roles = _appended(halves.roles, len(self.data))
        roles[:, self.originals] = Role.TRAIN
        for kind, records in self.canaries.items():
            for j in range(halves.num_models // 2):
                inside = _half(len(records), generator(self.seed, "canaries/pair", kind, j))
                roles[2 * j, records] = np.where(inside, Role.TRAIN, Role.AUDIT)
                roles[2 * j + 1, records] = np.where(inside, Role.AUDIT, Role.TRAIN)
        return Split(roles, self.data.labels, halves.layout)


def plant(data: Dataset, split: Split, count: int, *, seed: int) -> Planted:
    """Add canaries to a data set, and give them roles for the victim and its shadows.

    Args:
        data: the N records of the study.
        split: the roles of the victim and its shadows, in the layout ``disjoint``.
        count: the number of canaries of a party, a multiple of three.
        seed: the seed of the study.

    Raises:
        InputError: there are too few records to make canaries from.
    """
    pools = {
        "victim": split.audited(0),
        "shadows": np.flatnonzero(np.isin(split.roles[1:], (Role.TRAIN, Role.AUDIT)).any(axis=0)),
    }
    size = count // len(KINDS)
    features, labels, sources = [data.features], [data.labels], []
    for party, pool in pools.items():
        planted = _made(data, pool, size, generator(seed, "canaries", party))
        features.append(planted[0])
        labels.append(planted[1])
        sources.append(planted[2])
    joined = np.concatenate(features)
    ids = data.ids and data.ids.with_more(len(joined) - len(data), "canary")
    whole = replace(data, features=joined, labels=np.concatenate(labels), ids=ids)
    own = len(features[1])  # the canaries of a party with the originals of its twins
    roles = _appended(split.roles, len(whole))
    roles[:, np.concatenate(sources)] = Role.UNUSED
    for k in range(split.num_models):
        start = len(data) + (0 if k == 0 else own)
        for place, kind in enumerate(KINDS):
            inside = _half(size, generator(seed, "canaries/member", kind, k))
            own_kind = slice(start + place * size, start + (place + 1) * size)
            roles[k, own_kind] = np.where(inside, Role.TRAIN, Role.AUDIT)
        roles[k, start + count : start + own] = Role.TRAIN
    first = {kind: len(data) + place * size for place, kind in enumerate(KINDS)}
    return Planted(
        whole, Split(roles, whole.labels, split.layout), len(data),
        {kind: np.arange(start, start + size) for kind, start in first.items()},
        np.arange(len(data) + count, len(data) + own), sources[0], seed,
    )  # fmt: skip


def _made(
    data: Dataset, pool: Indices, size: int, rng: np.random.Generator
) -> tuple[Real[np.ndarray, "M ..."], Int64[np.ndarray, " M"], Indices]:  # fmt: skip
    """The canaries of a party by kind, the originals of its twins, and the records that they were
    made from.
    """
    if 2 * size > len(pool) // 2:
        raise TooFewRecordsError(
            f"expected at least {4 * size} records of a party to make {len(KINDS) * size} canaries from, got "
            f"{len(pool)}; plant fewer canaries, or bring more records"
        )
    single, twin = stratified_draw(data.labels, pool, [size, size], rng)
    strangers = _mixed(data, pool, size, rng)
    x = [data.features[single], data.features[twin], strangers, data.features[twin]]
    wrong = [_wrong(data.labels[records], data.classes, rng) for records in (single, twin)]
    y = [*wrong, rng.integers(0, data.classes, size), data.labels[twin]]
    return np.concatenate(x), np.concatenate(y), np.concatenate([single, twin])


def _wrong(labels: Int64[np.ndarray, " n"], classes: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """Another class for each label."""
    return np.asarray((labels + rng.integers(1, classes, len(labels))) % classes)


def _mixed(data: Dataset, pool: Indices, size: int, rng: np.random.Generator) -> Real[np.ndarray, "n ..."]:
    """Records whose every feature comes from a record of its own."""
    rows = data.features.reshape(len(data), -1)
    donors = pool[rng.integers(0, len(pool), (size, rows.shape[1]))]
    return np.take_along_axis(rows, donors, axis=0).reshape(size, *data.input_shape)


def _half(size: int, rng: np.random.Generator) -> np.ndarray:
    """True for a random half of some canaries."""
    return rng.permutation(size) < size // 2


def _appended(roles: np.ndarray, records: int) -> np.ndarray:
    """Roles with unused columns behind them."""
    return np.concatenate([roles, np.zeros((len(roles), records - roles.shape[1]), np.int8)], axis=1)
