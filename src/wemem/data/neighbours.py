"""Similar records: clusters of nearly the same size, and groups of exact and near copies.

Clusters: a set is cut in two at a quantile of its leading principal component, each part again,
until there are as many clusters as wanted (principal direction divisive partitioning, Boley 1998,
with cuts that balance the sizes). Similar records then mostly share a cluster.

Copies: two records are near copies if their Euclidean distance is at most :data:`NEAR` times the
root mean square distance between two records of the set. A group of copies is a connected component
of that relation, so that no two near copies are in different groups.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import KDTree
from sklearn.utils.extmath import randomized_svd

Indices = Int64[np.ndarray, " _"]

#: Distance of near copies, in units of the root mean square distance between two records.
NEAR = 0.1
#: Principal components by which candidates for near copies are looked up; a lookup by more is slow.
COMPONENTS = 12
#: Records whose candidates are looked up at a time, and numbers that a comparison holds at a time.
LOOKUP, COMPARED = 256, 2**22


def clusters(features: Real[np.ndarray, "N ..."], records: Indices, count: int) -> list[Indices]:
    """Cut some records into clusters of similar ones, whose sizes differ by at most one per cut.

    Args:
        features: features of the whole data set.
        records: indices of the records to be cut, at least one.
        count: number of clusters, at least 1; as many as there are records if those are fewer.

    >>> line = np.array([[0.0], [9.0], [1.0], [8.0]], np.float32)
    >>> sorted(np.sort(cluster).tolist() for cluster in clusters(line, np.arange(4), 2))
    [[0, 2], [1, 3]]
    """
    count = min(count, len(records))
    if count == 1:
        return [records]
    x = _rows(features, records)
    x = x - x.mean(axis=0)
    # seeded, and with a sign of its own choosing, so that the same records are always cut alike
    u, s, _ = randomized_svd(x, n_components=1, random_state=0)
    order = np.argsort(u[:, 0] * s[0], kind="stable")
    first = count // 2
    cut = round(len(records) * first / count)
    parts = (records[order[:cut]], first), (records[order[cut:]], count - first)
    return [cluster for part, share in parts for cluster in clusters(features, part, share)]


def copies(features: Real[np.ndarray, "N ..."], records: Indices) -> list[Indices]:
    """Groups of two or more exact or near copies, whatever their labels.

    Args:
        features: features of the whole data set.
        records: indices of the records that are compared.

    >>> line = np.array([[0.0], [9.0], [0.1], [9.0], [4.0]], np.float32)
    >>> [group.tolist() for group in copies(line, np.arange(5))]
    [[0, 2], [1, 3]]
    """
    x, place = np.unique(_rows(features, records) + 0, axis=0, return_inverse=True)  # + 0 makes -0 to 0
    place = place.reshape(-1)
    group = np.arange(len(x))
    radius = NEAR * np.sqrt(2 * x[place].var(axis=0).sum())
    for one, other in _candidates(x, radius):
        apart = group[one] != group[other]
        near = _near(x, one[apart], other[apart], radius)
        edges = group[one[apart][near]], group[other[apart][near]]
        if len(edges[0]):
            graph = csr_array((np.ones(len(edges[0]), bool), edges), shape=(len(x), len(x)))
            group = connected_components(graph, directed=False)[1].astype(np.int64)[group]
    order = np.argsort(group[place], kind="stable")
    cuts = np.flatnonzero(np.diff(group[place][order])) + 1
    groups = [np.sort(records[part]) for part in np.split(order, cuts) if len(part) > 1]
    return sorted(groups, key=lambda own: int(own[0]))


def keep_copies_together(
    features: Real[np.ndarray, "N ..."], parts: Sequence[Indices], groups: Sequence[Indices]
) -> list[Indices]:
    """Parts in which no group of copies is divided; parts that are left without a record are empty.

    A divided group moves, as a whole, to the part whose mean is nearest to the group's, among the
    parts that had one of its records.

    Args:
        features: features of the whole data set.
        parts: disjoint sets of records.
        groups: disjoint groups of copies among these records.
    """
    if not groups:
        return list(parts)
    records = np.concatenate(parts)
    home = np.full(int(records.max()) + 1, -1)
    for number, part in enumerate(parts):
        home[part] = number
    moved = home.copy()
    for group in groups:
        if len(choices := np.unique(home[group])) > 1:
            middle = _rows(features, group).mean(axis=0)
            distances = [np.linalg.norm(_rows(features, parts[c]).mean(axis=0) - middle) for c in choices]
            moved[group] = choices[int(np.argmin(distances))]
    # records keep the order of their part, and those that move in come last
    return [
        np.concatenate([part[moved[part] == number], np.setdiff1d(np.flatnonzero(moved == number), part)])
        for number, part in enumerate(parts)
    ]


def _rows(features: Real[np.ndarray, "N ..."], records: Indices) -> Float64[np.ndarray, "n F"]:
    return np.asarray(features[records].reshape(len(records), -1), np.float64)


def _candidates(x: Float64[np.ndarray, "m F"], radius: float) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of rows that are within a radius by their leading principal components, block by block."""
    if len(x) < 2:
        return
    count = min(COMPONENTS, *x.shape)
    centred = x - x.mean(axis=0)
    _, _, axes = randomized_svd(centred, n_components=count, random_state=0)
    low = centred @ axes.T
    tree = KDTree(low)
    for start in range(0, len(low), LOOKUP):
        # a projection is no longer than what it is of, but for rounding
        within = tree.query_radius(low[start : start + LOOKUP], radius * (1 + 1e-6))
        one = np.repeat(np.arange(start, start + len(within)), [len(own) for own in within])
        other = np.concatenate(within).astype(np.int64)
        yield one[one < other], other[one < other]


def _near(
    x: Float64[np.ndarray, "m F"], one: Indices, other: Indices, radius: float
) -> Bool[np.ndarray, " n"]:  # fmt: skip
    """True for each pair of rows within the radius."""
    size = max(1, COMPARED // x.shape[1])
    near = np.zeros(len(one), bool)
    for start in range(0, len(one), size):
        block = slice(start, start + size)
        near[block] = np.square(x[one[block]] - x[other[block]]).sum(axis=1) <= radius**2
    return near
