"""Teachers of a member: models on parts of its own train records, so that some did not train on a record."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wemem.data.neighbours import clusters
from wemem.data.split import Indices, Role, Split
from wemem.data.views import Views
from wemem.errors import InputError
from wemem.randomness import generator


@dataclass(frozen=True)
class Teachers:
    """Models that a member's training records are split over, so that some did not train on a record.

    Args:
        count: models a member has.
        held_out: how many of them each record is held out from; its targets are the mean of what those predict.
        clusters: into how many clusters of similar records each class is cut; a cluster is held out as a whole. 0
            holds out record by record.
        views: of a record, about which its teachers are asked too; None asks about the record alone.

    Raises:
        InputError: fewer than two models, records that all or none of them train on, or classes held out as a whole.
    """

    count: int
    held_out: int
    clusters: int = 0
    views: Views | None = None

    def __post_init__(self) -> None:
        if self.clusters < 0 or self.clusters == 1:
            raise InputError(f"clusters must be 0 or at least 2, got {self.clusters}; 0 holds out record by record")
        if not 1 <= self.held_out < self.count:
            raise InputError(
                f"expected each record to be held out from 1 to {self.count - 1} of {self.count} teachers, got "
                f"{self.held_out}; give two teachers or more, of which some train on it and some do not"
            )

    @property
    def passes_per_epoch(self) -> int:
        """How often an epoch shows a record: as itself, and as each of its views."""
        return 1 if self.views is None else 1 + self.views.count

    @property
    def trainings(self) -> int:
        """Of how many models on all of the records the work is."""
        return self.count - self.held_out


def held_out(
    split: Split, teachers: Teachers, seeds: Sequence[int], features: Float32[np.ndarray, "N ..."]
) -> Split:  # fmt: skip
    """The teachers of every member: models on parts of its own train records.

    A class's records are spread evenly over the models, so that one held out is stratified cross-fitting. Dev records
    are the member's own; records that are held out are audited.

    Args:
        split: roles (K, N) of the members.
        teachers: how many a member has, and from how many of them a record is held out.
        seeds: one per member.
        features: of the N records, for their clusters.

    Returns:
        Roles (K * teachers.count, N), member by member.

    Raises:
        InputError: a class with too few train records for every model to see one.
    """
    count, times = teachers.count, teachers.held_out
    roles = np.zeros((split.num_models, count, len(split.labels)), np.int8)
    for k, seed in enumerate(seeds):
        rng = generator(seed, "split/held out", count, times)
        roles[k][:, split.records(k, Role.DEV)] = Role.DEV
        train = rng.permutation(split.records(k, Role.TRAIN))
        for label in np.unique(split.labels[train]):
            turns = np.zeros(count, np.int64)
            for together in _held_together(features, train[split.labels[train] == label], teachers.clusters):
                # the models that were left without the fewest records, ties at random
                out = np.lexsort((rng.random(count), turns))[:times]
                turns[out] += len(together)
                roles[k][:, together] = Role.TRAIN
                roles[k][np.ix_(out, together)] = Role.AUDIT
    return Split(roles.reshape(-1, len(split.labels)), split.labels, "subsets")


def _held_together(features: Float32[np.ndarray, "N ..."], records: Indices, count: int) -> list[Indices]:
    return clusters(features, records, count) if count else list(records[:, None])
