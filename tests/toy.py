"""Small data, splits and ensembles that the tests of the training core share."""

from dataclasses import replace

import numpy as np

from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.models import FullyConnected
from wemem.training import Ensemble

FEATURES, CLASSES = 6, 3


def blobs(n=90, *, seed=0, noise=1.0, shape=(FEATURES,)):
    """``n`` records around one random center a class, the classes in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    centers = rng.normal(0, 1, (CLASSES, *shape))
    features = centers[labels] + rng.normal(0, noise, (n, *shape))
    return Dataset.from_arrays("blobs", features, labels)


def roles_of(n, *, members, train=50, dev=15, seed=0):
    """Random roles, unstratified: train, dev and the rest audited; equal sizes for all members."""
    rng = np.random.default_rng(seed)
    roles = np.full((members, n), Role.AUDIT, np.int8)
    for row in roles:
        order = rng.permutation(n)
        row[order[:train]], row[order[train : train + dev]] = Role.TRAIN, Role.DEV
    return roles


def split_of(data, *, members=3, train=50, dev=15, seed=0):
    return Split(roles_of(len(data), members=members, train=train, dev=dev, seed=seed), data.labels, "subsets")


def uneven_split(data):
    """Members of 50, 33 and 20 training records: the shorter ones' batches are padded, and some steps they sit out."""
    split = split_of(data)
    roles = split.roles.copy()
    for k, size in enumerate((50, 33, 20)):
        roles[k, np.flatnonzero(roles[k] == Role.TRAIN)[size:]] = Role.UNUSED
    return replace(split, roles=roles)


def ensemble_of(data, *, members=3, hidden=(16, 8), dropout=0.1):
    model = FullyConnected(hidden=hidden, dropout=dropout)
    return Ensemble.initialize(model, data.input_shape, data.classes, seeds=list(range(members)))


def same_bytes(one, other):
    """Whether two ensembles hold the very same arrays."""
    a, b = one.arrays(), other.arrays()
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() and a[k].shape == b[k].shape for k in a)


def largest_difference(one, other):
    """Over all parameters and buffers."""
    a, b = one.arrays(), other.arrays()
    assert a.keys() == b.keys()
    return max(float(np.abs(a[k].astype(np.float64) - b[k].astype(np.float64)).max()) for k in a)
