"""Design of a diagnosis: the records that each round shows to each model.

Every model trains on a random part of one pool of records. Half of that, its *base*, trains the
dense model. The other half is divided into one part for each round of pruning. The dense model was
not trained on the parts, so they cannot leak before the first round. The arms differ only in the
parts that each round shows::

    fresh    round r shows part r: no record is ever shown in a second round
    reused   every round shows the last part
    dosed    part d is shown in d + 1 rounds, the last one among them, spread evenly over the others

In the last round, fresh and reused are shown the same records: fresh for the first time, reused as
in every round. In the dosed arm the number of exposures varies within one model. All other records
of the pool are never shown to the model.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from wemem.data.split import Role, Split, stratified_draw, subsets
from wemem.errors import InputError
from wemem.randomness import generator

Arm = Literal["fresh", "reused", "dosed", "all"]

#: Values of :attr:`Exposures.part` besides the index of a part.
BASE, NEVER, ELSEWHERE = -1, -2, -3
#: Largest share of the pool that a model trains on. It leaves models for each record that were not
#: trained on it.
MOST = 0.75


@dataclass(frozen=True, eq=False)
class Exposures:
    """The part of each model's training that each record of the data set belongs to.

    Args:
        part: int64, shape ``(K, N)``: 0 and up the parts, :data:`BASE`, :data:`NEVER` (in the pool,
            but never met), or :data:`ELSEWHERE` (not in the pool).
        labels: int64, shape ``(N,)``: the class of each record.
        dev: the indices of the records for dev accuracy, outside of the pool.
        rounds: R, the number of parts.
    """

    part: Int64[np.ndarray, "K N"]
    labels: Int64[np.ndarray, " N"]
    dev: Int64[np.ndarray, " d"]
    rounds: int

    @cached_property
    def pool(self) -> Int64[np.ndarray, " p"]:
        """Indices of the records that models draw from."""
        return np.flatnonzero(self.part[0] != ELSEWHERE)

    @property
    def never(self) -> Bool[np.ndarray, "K N"]:
        """True for records of the pool that a model is never trained on."""
        return np.asarray(self.part == NEVER)

    @property
    def base(self) -> Split:
        """The split of dense models that train on their base alone."""
        return self._split(self.part == BASE)

    @property
    def everything(self) -> Split:
        """The split of models that train on their base and all parts, as in an ordinary run."""
        return self._split(self.part >= BASE)

    def shown(self, arm: Arm, index: int) -> Bool[np.ndarray, "K N"]:
        """Records that round ``index`` of an arm shows to each model."""
        if arm == "all":
            return self.part >= BASE
        return np.asarray(np.isin(self.part, self.parts(arm, index)))

    def parts(self, arm: Arm, index: int) -> list[int]:
        """Numbers of the parts that round ``index`` of an arm shows.

        >>> none = np.zeros((1, 1), np.int64)
        >>> five = Exposures(none, none[0], none[0], rounds=5)
        >>> [five.parts("dosed", r) for r in range(5)]
        [[4], [2, 3, 4], [1, 3, 4], [2, 3, 4], [0, 1, 2, 3, 4]]
        """
        last = self.rounds - 1
        if arm == "fresh":
            return [index]
        if arm == "reused":
            return [last]
        return [d for d in range(self.rounds) if last - index in {i * self.rounds // (d + 1) for i in range(d + 1)}]

    def split(self, arm: Arm, index: int) -> Split:
        """The split of round ``index`` of an arm."""
        return self._split(self.shown(arm, index))

    def select(self, models: range) -> "Exposures":
        """The exposures of some of the models."""
        return Exposures(self.part[list(models)], self.labels, self.dev, self.rounds)

    def _split(self, train: Bool[np.ndarray, "K N"]) -> Split:
        roles = np.zeros(self.part.shape, np.int8)
        roles[:, self.pool] = Role.AUDIT
        roles[:, self.dev] = Role.DEV
        roles[train] = Role.TRAIN
        return Split(roles, self.labels, "subsets")


def draw_exposures(
    labels: Int64[np.ndarray, " N"], pool: Int64[np.ndarray, " p"], dev: Int64[np.ndarray, " d"], size: int,
    rounds: int, models: int, *, seed: int,
) -> Exposures:  # fmt: skip
    """Draw exposures at random; those of a model do not depend on the number of models.

    Args:
        labels: the class of each record, shape ``(N,)``.
        pool: the indices of the records to draw from, all of one party.
        dev: the indices of records of that party outside of the pool.
        size: the number of records for each model; at most :data:`MOST` of the pool is used.
        rounds: R, the number of rounds; each part has ``size / 2R`` records, with the class
            proportions of the pool.
        models: K, the number of models.
        seed: the seed of the study.

    Raises:
        InputError: fewer than two rounds, or a class too rare for every part to have one of it.
    """
    if rounds < 2:
        raise InputError(
            f"expected at least 2 rounds to compare fresh with reused data, got {rounds}; raise pruning.rounds"
        )
    size = min(size, round(MOST * len(pool)))
    drawn = subsets(labels, pool, size, models, seed=seed, purpose="diagnosis", dev=dev)
    part = np.full((models, len(labels)), ELSEWHERE)
    part[:, pool] = NEVER
    for k in range(models):
        train = drawn.records(k, Role.TRAIN)
        fewest = int(np.unique(labels[train], return_counts=True)[1].min())
        if fewest < 2 * rounds:
            raise InputError(
                f"expected at least {2 * rounds} training records of every class, so that each of {rounds} parts has "
                f"one, got {fewest}; give more records of it, or lower pruning.rounds"
            )
        part[k, train] = BASE
        cut = stratified_draw(labels, train, [size // (2 * rounds)] * rounds, generator(seed, "diagnosis/parts", k))
        for d, records in enumerate(cut):
            part[k, records] = d
    return Exposures(part, labels, dev, rounds)
