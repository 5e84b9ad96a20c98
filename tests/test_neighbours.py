"""Clusters of similar records."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wemem.data.neighbours import clusters


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
