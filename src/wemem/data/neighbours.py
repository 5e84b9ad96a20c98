"""Clusters of similar records, all of nearly the same size.

A set is cut in two at a quantile of its leading principal component, each part again, until there are as many clusters
as asked for (principal direction divisive partitioning, Boley 1998, with cuts that balance the sizes). Records that
are alike then mostly share a cluster, which is all that is asked of it.
"""

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.utils.extmath import randomized_svd

Indices = Int64[np.ndarray, " n"]


def clusters(features: Float32[np.ndarray, "N ..."], records: Indices, count: int) -> list[Indices]:
    """Cut some records into clusters of similar ones, whose sizes differ by one at most a cut.

    Args:
        features: of the whole data set.
        records: indices of those to be cut, at least one.
        count: clusters; as many as there are records if that is fewer. At least 1.

    >>> line = np.array([[0.0], [9.0], [1.0], [8.0]], np.float32)
    >>> sorted(np.sort(cluster).tolist() for cluster in clusters(line, np.arange(4), 2))
    [[0, 2], [1, 3]]
    """
    count = min(count, len(records))
    if count == 1:
        return [records]
    x = features[records].reshape(len(records), -1).astype(np.float64)
    x -= x.mean(axis=0)
    # seeded, and with a sign of its own choosing, so that the same records are always cut alike
    u, s, _ = randomized_svd(x, n_components=1, random_state=0)
    order = np.argsort(u[:, 0] * s[0], kind="stable")
    first = count // 2
    cut = round(len(records) * first / count)
    parts = (records[order[:cut]], first), (records[order[cut:]], count - first)
    return [cluster for part, share in parts for cluster in clusters(features, part, share)]
