"""Batches: every record once an epoch, padding that does not count, members that do not see each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wemem.data.batches import Group, batch_bounds, join_single_records, plan_steps
from wemem.errors import InputError


def group(*records, key="all", decay=None):
    return Group(np.array(records, np.int64), key, decay)


def shown(steps, member):
    """The records that a member is shown, step by step, without padding."""
    return [step.records[member][step.weights[member] > 0].tolist() for step in steps]


#: One to three members with one or two groups each; records of a member are 100 * member + 0, 1, 2, ...
ensembles = st.lists(
    st.tuples(st.integers(0, 23), st.integers(0, 23)).filter(any), min_size=1, max_size=3
).map(
    lambda sizes: [
        (
            Group(np.arange(100 * k, 100 * k + calm)),
            Group(np.arange(100 * k + calm, 100 * k + calm + risky), "risky", 0.1),
        )
        for k, (calm, risky) in enumerate(sizes)
    ]
)  # fmt: skip


def test_one_batch_that_holds_all_is_a_permutation_of_the_records():
    (step,) = plan_steps([[group(*range(10))]], 10, seeds=[0], epoch=0)
    assert sorted(step.records[0].tolist()) == list(range(10))
    assert step.records[0].tolist() != list(range(10))
    assert (step.weights == 1).all()


def test_no_records_make_no_steps():
    assert batch_bounds(0, 4) == []
    assert plan_steps([[group()]], 4, seeds=[0], epoch=0) == []


@given(st.integers(0, 60), st.integers(1, 20))
def test_bounds_cut_without_gap_and_leave_no_single_record(n, size):
    bounds = batch_bounds(n, size)
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(n))
    assert all(stop - start <= size + 1 for start, stop in bounds)
    assert n == 1 or size == 1 or all(stop - start > 1 for start, stop in bounds)


@given(ensembles, st.integers(1, 9), st.integers(0, 5))
def test_every_record_of_every_group_is_shown_exactly_once_an_epoch(groups, size, epoch):
    steps = plan_steps(groups, size, seeds=range(len(groups)), epoch=epoch)
    for k, own in enumerate(groups):
        for part in join_single_records(own):
            of_key = [step for step in steps if step.key == part.key]
            seen = [i for records in shown(of_key, k) for i in records]
            assert sorted(seen) == sorted(part.records.tolist())


@given(ensembles, st.integers(1, 9))
def test_groups_never_mix_and_keep_their_decay(groups, size):
    for step in plan_steps(groups, size, seeds=range(len(groups)), epoch=0):
        assert step.weight_decay == {"all": None, "risky": 0.1}[step.key]
        for k, own in enumerate(groups):
            records = [g.records for g in join_single_records(own) if g.key == step.key]
            assert set(step.records[k][step.weights[k] > 0]) <= set(np.concatenate([*records, []]))


@given(ensembles, st.integers(1, 9))
def test_padding_weighs_nothing_and_repeats_the_member_s_own_records(groups, size):
    for step in plan_steps(groups, size, seeds=range(len(groups)), epoch=0):
        assert step.weights.dtype == np.float32
        assert set(np.unique(step.weights)) <= {0.0, 1.0}
        for records, weights in zip(step.records, step.weights, strict=True):
            n = int(weights.sum())
            assert weights.tolist() == [1.0] * n + [0.0] * (len(weights) - n)
            if n:
                assert records.tolist() == [records[i % n] for i in range(len(records))]


def test_padding_by_hand():
    steps = plan_steps([[group(0, 1, 2, 3, 4)], [group(10, 11, 12)]], 3, seeds=[0, 1], epoch=0)
    by_width = {step.records.shape[1]: step for step in steps}
    assert by_width[3].weights.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert by_width[2].weights.tolist() == [[1, 1], [0, 0]]


def test_a_member_s_order_does_not_depend_on_the_others():
    own, others = group(*range(20)), [group(*range(50, 70)), group(*range(80, 100))]
    together = plan_steps([[others[0]], [own], [others[1]]], 6, seeds=[7, 8, 9], epoch=4)
    alone = plan_steps([[own]], 6, seeds=[8], epoch=4)
    assert shown(together, 1) == shown(alone, 0)


def test_the_order_changes_with_seed_epoch_and_key():
    def order(seed, epoch, key):
        return shown(plan_steps([[group(*range(30), key=key)]], 30, seeds=[seed], epoch=epoch), 0)[0]

    orders = [order(0, 0, "all"), order(1, 0, "all"), order(0, 1, "all"), order(0, 0, "risky")]
    assert order(0, 0, "all") == orders[0]
    assert len({tuple(o) for o in orders}) == 4


def test_steps_of_two_groups_come_in_mixed_order():
    both = [group(*range(40)), group(*range(40, 80), key="risky", decay=0.1)]
    keys = ["".join(step.key[0] for step in plan_steps([both], 4, seeds=[0], epoch=e)) for e in range(3)]
    assert len(set(keys)) == 3
    assert not any(k in ("a" * 10 + "r" * 10, "r" * 10 + "a" * 10) for k in keys)


def test_two_groups_of_one_key_are_refused():
    with pytest.raises(InputError, match="one group of key 'all' for each model, got several; name their keys apart"):
        plan_steps([[group(0, 1), group(2, 3)]], 2, seeds=[0], epoch=0)


def test_members_that_disagree_on_a_decay_are_refused():
    with pytest.raises(InputError, match="one weight decay for key 'all'"):
        plan_steps([[group(0, 1)], [group(2, 3, decay=0.1)]], 2, seeds=[0, 1], epoch=0)


def test_a_group_of_one_record_joins_its_neighbour_and_takes_its_key_and_decay():
    calm, risky = group(1, 2, 3), group(7, key="risky", decay=0.1)
    for groups in ([calm, risky], [risky, calm]):
        steps = plan_steps([groups], 2, seeds=[0], epoch=0)
        assert {(step.key, step.weight_decay) for step in steps} == {("all", None)}
        assert sorted(record for step in shown(steps, 0) for record in step) == [1, 2, 3, 7]


def test_single_records_join_one_another_and_the_only_record_stays():
    single = [group(k, key=str(k)) for k in range(5)]
    assert [(g.key, sorted(g.records)) for g in join_single_records(single)] == [("1", [0, 1]), ("3", [2, 3, 4])]
    assert shown(plan_steps([[group(5)]], 10, seeds=[0], epoch=0), 0) == [[5]]


@given(ensembles, st.integers(2, 9))
def test_no_step_is_taken_on_one_record_where_a_model_has_more(groups, batch_size):
    steps = plan_steps(groups, batch_size, seeds=range(len(groups)), epoch=0)
    for k, own in enumerate(groups):
        if sum(len(g.records) for g in own) > 1:
            assert all(len(records) != 1 for records in shown(steps, k))
