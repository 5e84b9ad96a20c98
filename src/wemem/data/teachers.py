"""Teachers of a model: models that are each trained on a part of its training records.

They are linear discriminants (:mod:`wemem.training.linear`) where the records are real-valued, and
models of the model's own architecture where they are whole numbers, such as tokens. A discriminant
on ``P`` components takes about ``P / n`` of its answer to a training record from the label of that
record, where ``n`` is the number of records of the class. So by default ``P`` begins at
:data:`COMPONENTS_PER_RECORD` times the number of training records a class, and is doubled for as
long as a teacher names :data:`WORTH` more of the records that it has not seen. Teachers that
memorize name fewer of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int8, Real

from wemem.data.dataset import Dataset
from wemem.data.image_features import image_features, is_image
from wemem.data.neighbours import clusters, copies, keep_copies_together
from wemem.data.preprocessing import Preprocessing
from wemem.data.split import Indices, Role, Split
from wemem.data.table_form import TableForm
from wemem.data.views import Views
from wemem.errors import InputError, TooFewRecordsError
from wemem.randomness import generator

#: Records in a cluster, about.
CLUSTER = 10
#: Principal components of a discriminant for each training record of a class, and the most of them.
COMPONENTS_PER_RECORD, MOST_COMPONENTS = 0.5, 128
#: Share of the unseen records that a teacher must name more for twice the components.
WORTH = 0.0025


@dataclass(frozen=True)
class Teachers:
    """Models among which the training records are divided; some of them do not see a record.

    Args:
        count: number of teachers of a model.
        held_out: number of teachers that each record is held out from; the mean of their
            predictions is its target.
        clusters: number of clusters of similar records into which each class is cut; None for
            clusters of about :data:`CLUSTER` records. A cluster is held out as a whole; 0 holds out
            record by record. Exact and near copies are held out together in any case, whatever
            their labels.
        views: views of each record that the teachers predict too; None for the record alone.
        components: number of principal components of which the teachers are linear discriminants;
            0 for teachers of the same architecture as the model. None follows the rule above.

    Raises:
        InputError: fewer than two teachers, records held out from all or none of them, one cluster
            a class, or a negative number of components.
    """

    count: int
    held_out: int
    clusters: int | None = 0
    views: Views | None = None
    components: int | None = None

    def __post_init__(self) -> None:
        if self.clusters is not None and (self.clusters < 0 or self.clusters == 1):
            raise InputError(f"clusters must be 0 or at least 2, got {self.clusters}; 0 holds out record by record")
        if self.components is not None and self.components < 0:
            raise InputError(
                f"components must be 0 or more, got {self.components}; 0 trains teachers of the model's architecture"
            )
        if not 1 <= self.held_out < self.count:
            raise InputError(
                f"expected each record to be held out from 1 to {self.count - 1} of {self.count} teachers, got "
                f"{self.held_out}; give two teachers or more, of which some train on it and some do not"
            )

    @property
    def inputs_per_record(self) -> int:
        """Number of inputs that the teachers predict for a record: itself, and each of its views."""
        return 1 if self.views is None else 1 + self.views.count

    @property
    def passes_per_epoch(self) -> int:
        """Number of times that an epoch shows a record: as itself, and as some of its views."""
        return 1 if self.views is None else 1 + self.views.per_epoch

    def shown(self, epoch: int) -> list[int]:
        """Inputs of each record that an epoch shows: 0 is the record, others are views."""
        return [0] if self.views is None else [0, *self.views.of_epoch(epoch)]

    def trainings(self, tokens: bool) -> int:
        """Cost of training the teachers, in trainings on all records of the model; that of linear
        ones is small.

        Args:
            tokens: True if the records are token ids.
        """
        networks = tokens if self.components is None else self.components == 0
        return self.count - self.held_out if networks else 0

    def linear(self, data: Dataset) -> bool:
        """True if the teachers of models of this data set are linear discriminants."""
        if self.components is None:
            return data.features.dtype.kind == "f" and data.inputs is None
        return self.components > 0

    def components_of(self, records: int, classes: int) -> list[int]:
        """Numbers of principal components to try for the discriminants of a model, fewest first.

        Args:
            records: number of training records of the model.
            classes: number of classes.

        >>> Teachers(10, 3).components_of(1560, 30), Teachers(10, 3, components=20).components_of(1560, 30)
        ([26, 52, 104], [20])
        """
        if self.components is not None:
            return [self.components]
        count = min(MOST_COMPONENTS, max(1, round(COMPONENTS_PER_RECORD * records / classes)))
        return [count << i for i in range(MOST_COMPONENTS.bit_length()) if count << i <= MOST_COMPONENTS]


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
        InputError: linear teachers of whole-number features.
        TooFewRecordsError: a teacher that sees no record of some class.
    """
    if teachers.components is not None and teachers.components and features.dtype.kind != "f":
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
        _require_seen(roles[k], train, split.labels)
    return Split(roles.reshape(-1, len(split.labels)), split.labels, "subsets")


def _require_seen(roles: Int8[np.ndarray, "T N"], train: Indices, labels: Indices) -> None:
    """Refuse teachers of a model of which one sees no record of some class."""
    for label in np.unique(labels[train]):
        without = (roles[:, train[labels[train] == label]] != Role.TRAIN).all(axis=1)
        if without.any():
            raise TooFewRecordsError(
                f"expected every teacher to train on a record of class {label}, got {without.sum()} of {len(roles)} "
                "that train on none; hold records out from fewer teachers (held_out), take smaller clusters "
                "(clusters = 0), or bring more records of it that are no copies; where so few features make nearly all "
                "records near copies of one another, take another defense"
            )


def _held_together(
    features: Real[np.ndarray, "N ..."], train: Indices, labels: Indices, count: int | None
) -> list[list[Indices]]:
    """Records that are held out together, class by class.

    Copies with another label are listed with the class to whose records they are nearest.
    """
    classes = [train[labels[train] == label] for label in np.unique(labels[train])]
    cut = [
        list(own[:, None]) if count == 0 else _similar(features, own, count or max(2, round(len(own) / CLUSTER)))
        for own in classes
    ]
    parts = keep_copies_together(features, [part for own in cut for part in own], copies(features, train))
    ends = np.cumsum([len(own) for own in cut])
    return [[part for part in parts[end - len(own) : end] if len(part)] for own, end in zip(cut, ends, strict=True)]


def _similar(features: Real[np.ndarray, "N ..."], records: Indices, count: int) -> list[Indices]:
    """Clusters of similar records; images are compared by their untrained features."""
    if not is_image(features.shape[1:]):
        return clusters(features, records, count)
    return [records[part] for part in clusters(image_features(features[records]), np.arange(len(records)), count)]
