"""Clusters of similar records, and groups of copies."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wemem.data.neighbours import NEAR, clusters, copies, keep_copies_together


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 5))
def test_every_record_is_in_one_cluster_and_sizes_are_balanced(n, count, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(100, 4)).astype(np.float32)
    records = np.sort(rng.choice(100, n, replace=False))
    found = clusters(features, records, count)
    assert len(found) == min(n, count)
    assert sorted(np.concatenate(found)) == records.tolist()
    sizes = [len(cluster) for cluster in found]
    assert min(sizes) >= 1
    assert max(sizes) <= 2 * min(sizes) + 1


def test_far_groups_are_found():
    rng = np.random.default_rng(0)
    centers = 100 * np.eye(4, dtype=np.float32)
    group = rng.permutation(np.repeat(np.arange(4), 10))
    features = centers[group] + rng.normal(size=(40, 4)).astype(np.float32)
    found = clusters(features, np.arange(40), 4)
    assert all(len(set(group[cluster])) == 1 for cluster in found)


def test_equal_records_can_be_cut():
    found = clusters(np.zeros((9, 3), np.float32), np.arange(9), 4)
    assert sorted(len(cluster) for cluster in found) == [2, 2, 2, 3]


def test_images_are_cut_like_vectors_and_the_same_way_every_time():
    features = np.random.default_rng(0).normal(size=(30, 3, 4, 4)).astype(np.float32)
    flat = clusters(features.reshape(30, -1), np.arange(30), 5)
    for again in (clusters(features, np.arange(30), 5), clusters(features, np.arange(30), 5)):
        assert [c.tolist() for c in again] == [c.tolist() for c in flat]


# --- copies ---


def groups_by_all_pairs(x, near):
    """The definition: all pairs are compared, and groups that touch are merged."""
    radius = near * np.sqrt(2 * x.var(axis=0).sum())
    group = list(range(len(x)))
    for i in range(len(x)):
        for j in range(i):
            if ((x[i] - x[j]) ** 2).sum() <= radius**2:
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    members = [[i for i in range(len(x)) if group[i] == g] for g in set(group)]
    return sorted(own for own in members if len(own) > 1)


@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 5), st.floats(0.0, 0.4))
def test_groups_of_copies_are_those_of_all_pairs(n, width, seed, spread):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, width))
    x = (centres[rng.integers(0, 10, n)] + spread * rng.normal(size=(n, width))).astype(np.float32)
    assert [g.tolist() for g in copies(x, np.arange(n))] == groups_by_all_pairs(x.astype(np.float64), NEAR)


def test_records_all_alike_are_one_group_and_records_far_apart_none():
    assert [g.tolist() for g in copies(np.ones((5, 3), np.float32), np.array([4, 1, 2]))] == [[1, 2, 4]]
    assert copies(np.eye(5, dtype=np.float32), np.arange(5)) == []
    assert copies(np.eye(5, dtype=np.float32), np.arange(1)) == []


@given(st.integers(1, 30), st.integers(0, 9))
def test_no_group_of_copies_is_divided_and_no_record_is_lost(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (60, 2)).astype(np.float32)
    records = rng.permutation(60)[:n]
    parts = [part for part in np.array_split(records, 5) if len(part)]
    groups = copies(x, records)
    together = keep_copies_together(x, parts, groups)
    assert sorted(np.concatenate(together)) == sorted(records)
    assert all(sum(bool(np.isin(group, part).any()) for part in together) == 1 for group in groups)
    single = np.setdiff1d(records, np.concatenate([*groups, np.zeros(0, np.int64)]))
    assert all(
        np.array_equal(a[np.isin(a, single)], b[np.isin(b, single)]) for a, b in zip(parts, together, strict=True)
    )


def test_parts_without_copies_stay_as_they_are():
    x, parts = np.eye(6, dtype=np.float32), [np.array([3, 1]), np.array([0, 5, 2])]
    assert keep_copies_together(x, parts, copies(x, np.arange(6))) == parts


def test_a_divided_group_moves_to_the_nearest_part():
    x = np.array([[0.0], [0.1], [5.0], [0.0], [9.0]], np.float32)
    near, far = keep_copies_together(x, [np.array([0, 1]), np.array([2, 3, 4])], [np.array([0, 3])])
    assert (near.tolist(), far.tolist()) == ([0, 1, 3], [2, 4])
