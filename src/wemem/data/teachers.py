"""Teachers of a model: models that are each trained on a part of its training records."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Real

from wemem.data.neighbours import clusters, copies, keep_copies_together
from wemem.data.preprocessing import Preprocessing
from wemem.data.split import Indices, Role, Split
from wemem.data.table_form import TableForm
from wemem.data.views import Views
from wemem.errors import InputError
from wemem.randomness import generator
from wemem.settings import ADDED


@dataclass(frozen=True)
class Teachers:
    """Models among which the training records are divided; some of them do not see a record.

    Args:
        count: number of teachers of a model.
        held_out: number of teachers that each record is held out from; the mean of their
            predictions is its target.
        clusters: number of clusters of similar records into which each class is cut. A cluster is
            held out as a whole; 0 holds out record by record. Exact and near copies are held out
            together in any case, whatever their labels.
        views: views of each record that the teachers predict too; None for the record alone.
        components: number of principal components of which the teachers are linear discriminants;
            0 for teachers of the same architecture as the model.

    Raises:
        InputError: fewer than two teachers, records held out from all or none of them, one cluster
            a class, or a negative number of components.
    """

    count: int
    held_out: int
    clusters: int = 0
    views: Views | None = None
    components: int = field(default=0, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.clusters < 0 or self.clusters == 1:
            raise InputError(f"clusters must be 0 or at least 2, got {self.clusters}; 0 holds out record by record")
        if self.components < 0:
            raise InputError(
                f"components must be 0 or more, got {self.components}; 0 trains teachers of the model's architecture"
            )
        if not 1 <= self.held_out < self.count:
            raise InputError(
                f"expected each record to be held out from 1 to {self.count - 1} of {self.count} teachers, got "
                f"{self.held_out}; give two teachers or more, of which some train on it and some do not"
            )

    @property
    def passes_per_epoch(self) -> int:
        """Number of times that an epoch shows a record: as itself, and as each of its views."""
        return 1 if self.views is None else 1 + self.views.count

    @property
    def trainings(self) -> int:
        """Cost of training the teachers, in trainings on all records of the model; that of linear
        ones is small.
        """
        return 0 if self.components else self.count - self.held_out


def held_out(
    split: Split, teachers: Teachers, seeds: Sequence[int], features: Real[np.ndarray, "N ..."],
    table: TableForm | None = None,
) -> Split:  # fmt: skip
    """Divide every model's training records among its teachers.

    A class's records are spread evenly over the teachers, so that one held out is stratified
    cross-fitting. Dev records are those of the model; records that are held out have the role of
    audited ones.

    Args:
        split: roles (K, N) of the models.
        teachers: number of teachers of a model, and how many of them a record is held out from.
        seeds: one per model.
        features: features of the N records, for their clusters and copies.
        table: the columns of a table, whose records are compared as a model trained on those of one
            model would take them.

    Returns:
        Roles (K * teachers.count, N), model by model.

    Raises:
        InputError: a class with too few training records for every teacher to see one, or linear
            teachers of whole-number features.
    """
    if teachers.components and features.dtype.kind != "f":
        raise InputError(f"expected real-valued features for linear teachers, got {features.dtype}; set components = 0")
    count, times = teachers.count, teachers.held_out
    roles = np.zeros((split.num_models, count, len(split.labels)), np.int8)
    for k, seed in enumerate(seeds):
        rng = generator(seed, "split/held out", count, times)
        roles[k][:, split.records(k, Role.DEV)] = Role.DEV
        train = rng.permutation(split.records(k, Role.TRAIN))
        x = features if table is None else Preprocessing.fit(table, features[train]).apply(features)
        for parts in _held_together(x, train, split.labels, teachers.clusters):
            turns = np.zeros(count, np.int64)
            for together in parts:
                # the teachers with the fewest records held out so far, ties at random
                out = np.lexsort((rng.random(count), turns))[:times]
                turns[out] += len(together)
                roles[k][:, together] = Role.TRAIN
                roles[k][np.ix_(out, together)] = Role.AUDIT
    return Split(roles.reshape(-1, len(split.labels)), split.labels, "subsets")


def _held_together(
    features: Real[np.ndarray, "N ..."], train: Indices, labels: Indices, count: int
) -> list[list[Indices]]:
    """Records that are held out together, class by class.

    Copies with another label are listed with the class to whose records they are nearest.
    """
    classes = [train[labels[train] == label] for label in np.unique(labels[train])]
    cut = [clusters(features, own, count) if count else list(own[:, None]) for own in classes]
    parts = keep_copies_together(features, [part for own in cut for part in own], copies(features, train))
    ends = np.cumsum([len(own) for own in cut])
    return [[part for part in parts[end - len(own) : end] if len(part)] for own, end in zip(cut, ends, strict=True)]
