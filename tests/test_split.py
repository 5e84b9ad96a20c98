"""Who is trained on what: sizes, strata, independence from company, and proof that what must be apart is apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wemem.data.given_victim import given_victim, matched
from wemem.data.split import (
    COVERED,
    Role,
    Split,
    random_halves,
    require_covered,
    stratified_draw,
    subsets,
    victim_and_shadows,
)  # fmt: skip
from wemem.errors import InputError

LABELS = np.repeat(np.arange(4), [40, 50, 30, 80])
N = len(LABELS)
TRAIN, DEV, AUDIT = Role.TRAIN, Role.DEV, Role.AUDIT


@st.composite
def pools_and_sizes(draw):
    labels = np.repeat(np.arange(draw(st.integers(1, 5))), draw(st.integers(0, 30)))
    labels = np.concatenate([labels, draw(st.lists(st.integers(0, 6), min_size=1, max_size=40))])
    cuts = sorted(draw(st.lists(st.integers(0, len(labels)), min_size=1, max_size=4)))
    return labels.astype(np.int64), np.diff([0, *cuts]).tolist(), draw(st.integers(0, 99))


def halves(**changed):
    settings = {"pool": np.arange(0, N, 2), "models": 6, "seed": 0, "outside": np.arange(1, N, 2), "dev_size": 20}
    return random_halves(LABELS, **{**settings, **changed})


def subset_split(**changed):
    settings = {"pool": np.arange(N), "size": 100, "models": 4, "seed": 0, "purpose": "victim", "dev": 20}
    return subsets(LABELS, **{**settings, **changed})


def test_drawing_everything_gives_the_pool():
    pool = np.arange(3, 40)
    assert stratified_draw(LABELS, pool, [len(pool)], np.random.default_rng(0))[0].tolist() == pool.tolist()


def test_drawing_from_nothing_gives_nothing():
    drawn = stratified_draw(LABELS, np.arange(0), [0, 0], np.random.default_rng(0))
    assert [part.tolist() for part in drawn] == [[], []]


@given(pools_and_sizes())
def test_parts_are_disjoint_of_exact_size_and_within_one_of_proportional_in_every_class(case):
    labels, sizes, seed = case
    pool = np.arange(len(labels))
    parts = stratified_draw(labels, pool, sizes, np.random.default_rng(seed))
    assert [len(part) for part in parts] == sizes
    assert len(np.unique(np.concatenate(parts))) == sum(sizes)
    for part, size in zip(parts, sizes, strict=True):
        exact = np.bincount(labels) * size / len(labels)
        assert (np.abs(np.bincount(labels[part], minlength=len(exact)) - exact) <= 1).all()


def test_every_record_is_drawn_equally_often():
    rng, draws = np.random.default_rng(0), 2000
    labels = np.repeat([0, 1], [5, 8])
    counts = np.zeros(13)
    for _ in range(draws):
        counts[stratified_draw(labels, np.arange(13), [6, 7], rng)[0]] += 1
    # within a class all records are alike; 4 standard deviations of a binomial
    for label in (0, 1):
        share = counts[labels == label] / draws
        assert np.abs(share - share.mean()).max() < 4 * np.sqrt(0.25 / draws)


def test_victim_and_shadows_have_the_sizes_that_were_asked_for_to_the_record():
    split = victim_and_shadows(LABELS, 3, seed=0, train=0.6, dev=0.1)
    for k in range(4):
        assert [len(split.records(k, role)) for role in (TRAIN, DEV, AUDIT)] == [60, 10, 30]


def test_the_shadows_share_no_record_with_the_victim():
    split = victim_and_shadows(LABELS, 5, seed=3)
    used = split.roles != Role.UNUSED
    assert not (used[0] & used[1:].any(axis=0)).any()
    assert len(split.population) == 0


def test_a_planted_shared_record_is_refused_at_construction():
    roles = victim_and_shadows(LABELS, 2, seed=0).roles.copy()
    planted = int(np.flatnonzero(roles[0] == AUDIT)[0])
    roles[1, planted] = DEV
    with pytest.raises(InputError, match=rf"no record with the victim, got 1 shared record\(s\), first {planted};"):
        Split(roles, LABELS, "disjoint")


@pytest.mark.parametrize("build", [lambda: victim_and_shadows(LABELS, 3, seed=1), halves, subset_split])
def test_every_role_has_every_class(build):
    split = build()
    for k in range(split.num_models):
        for role in (TRAIN, DEV, AUDIT):
            assert set(LABELS[split.records(k, role)]) == {0, 1, 2, 3}


@pytest.mark.parametrize("role", [TRAIN, DEV, AUDIT])
def test_a_class_missing_from_a_role_is_refused(role):
    roles = victim_and_shadows(LABELS, 1, seed=0).roles.copy()
    roles[1, (roles[1] == role) & (LABELS == 2)] = Role.UNUSED
    expected = f"every class among the {role.name.lower()} records of model 1, got none of class 2;"
    with pytest.raises(InputError, match=expected):
        Split(roles, LABELS, "disjoint")


def test_a_shadow_does_not_depend_on_how_many_there_are():
    few, many = victim_and_shadows(LABELS, 2, seed=5), victim_and_shadows(LABELS, 7, seed=5)
    assert (few.roles == many.roles[:3]).all()


def test_a_subset_model_does_not_depend_on_how_many_there_are():
    assert (subset_split(models=3).roles == subset_split(models=8).roles[:3]).all()


def test_a_reference_pair_does_not_depend_on_how_many_there_are():
    assert (halves(models=4, train_size=60).roles == halves(models=10, train_size=60).roles[:4]).all()


@pytest.mark.parametrize("build", [
    lambda seed: victim_and_shadows(LABELS, 3, seed=seed), lambda seed: halves(seed=seed),
    lambda seed: subset_split(seed=seed),
])  # fmt: skip
def test_the_seed_alone_decides(build):
    assert build(1).fingerprint == build(1).fingerprint != build(2).fingerprint


def test_members_of_an_ensemble_draw_differently():
    for split in (victim_and_shadows(LABELS, 3, seed=0), subset_split(), halves()):
        rows = {row.tobytes() for row in split.roles}
        assert len(rows) == split.num_models


def test_two_parties_draw_different_subsets_of_the_same_pool():
    assert (subset_split(purpose="victim").roles != subset_split(purpose="adversary").roles).any()


def test_subset_models_train_and_are_judged_on_the_pool_only():
    pool = np.arange(20, N)
    split = subset_split(pool=pool, size=90, dev=15)
    for k in range(split.num_models):
        assert [len(split.records(k, role)) for role in (TRAIN, DEV, AUDIT)] == [90, 15, len(pool) - 105]
        assert np.isin(split.audited(k), pool).all()
    assert split.population.tolist() == list(range(20))


@pytest.mark.parametrize("size", [60, 137])
def test_subsets_are_within_one_of_proportional_in_every_class(size):
    split = subset_split(size=size, models=20)
    for k in range(20):
        exact = np.bincount(LABELS) * size / N
        assert (np.abs(np.bincount(LABELS[split.records(k, TRAIN)]) - exact) <= 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_twenty_subset_models_leave_no_record_without_a_score(seed):
    roles = subset_split(size=140, models=20, seed=seed).roles
    inside, outside = (roles == TRAIN).sum(axis=0), (roles == AUDIT).sum(axis=0)
    assert inside.min() >= 12
    assert inside.max() <= 16
    assert outside.min() >= 1


def test_subsets_bind_no_two_records_to_each_other():
    roles = subset_split(size=120, models=400).roles
    inside = (roles == TRAIN).astype(float)
    together = np.corrcoef(inside.T)[~np.eye(N, dtype=bool)]
    # as spread as 400 independent draws are, with a little to spare
    assert together.std() == pytest.approx(1 / np.sqrt(400), rel=0.2)
    assert np.abs(together).max() < 6 / np.sqrt(400)


def test_subset_models_may_share_dev_records_outside_the_pool():
    dev = np.arange(0, N, 10)
    pool = np.setdiff1d(np.arange(N), dev)
    split = subset_split(pool=pool, dev=dev)
    assert all(split.records(k, DEV).tolist() == dev.tolist() for k in range(split.num_models))
    with pytest.raises(InputError, match=r"dev records outside the pool, got 2 record\(s\) in both, first 3"):
        subset_split(pool=pool, dev=np.array([0, 3, 5]))


@pytest.mark.parametrize("train_size", [None, 60, 61])
@pytest.mark.parametrize("pool_size", [100, 99])
def test_every_pool_record_is_in_exactly_half_of_the_models(train_size, pool_size):
    pool = np.arange(0, N, 2)[:pool_size]
    split = halves(pool=pool, train_size=train_size)
    inside = split.roles[:, pool] == TRAIN
    assert (inside.sum(axis=0) == 3).all()
    assert (inside[0::2] != inside[1::2]).all()
    assert (split.roles[:, pool][~inside] == AUDIT).all()


@pytest.mark.parametrize("pool_size", [100, 99])
def test_reference_models_train_on_as_many_records_as_asked(pool_size):
    split = halves(pool=np.arange(0, N, 2)[:pool_size], train_size=63)
    assert {len(split.records(k, TRAIN)) for k in range(6)} == {63}


def test_dev_population_and_pool_of_reference_models_are_apart():
    split = halves(train_size=60)
    pool, dev = set(range(0, N, 2)), set(split.records(0, DEV))
    assert all(set(split.records(k, DEV)) == dev for k in range(6))
    trained = {int(i) for k in range(6) for i in split.records(k, TRAIN)}
    assert len(dev) == 20
    assert not dev & (pool | trained)
    population = set(split.population)
    assert len(population) == 100 - 20 - 20
    assert not population & (pool | dev | trained)


def test_reference_records_outside_must_be_outside():
    with pytest.raises(InputError, match=r"outside to be none of the pool's, got 1 record\(s\) in both, first 4;"):
        halves(outside=np.concatenate([np.arange(1, N, 2), [4]]))


def test_a_given_victim_keeps_its_members_and_lent_ones_are_not_audited():
    members = np.arange(0, N, 2)
    split = given_victim(LABELS, members, 2, seed=0, adversary_share=0.2)
    assert len(split.records(0, TRAIN)) == 80
    assert np.isin(split.records(0, TRAIN), members).all()
    assert not np.isin(split.records(0, AUDIT), members).any()
    lent = np.setdiff1d(members, split.records(0, TRAIN))
    assert (split.roles[1:, lent] != Role.UNUSED).all()


def first_of_each_class(*counts: int) -> np.ndarray:
    return np.concatenate([np.flatnonzero(label == LABELS)[:count] for label, count in enumerate(counts)])


def test_shadows_of_a_given_victim_have_its_number_of_records_of_every_class():
    members = first_of_each_class(12, 6, 6, 10)
    split = given_victim(LABELS, members, 3, seed=0)
    assert split.records(0, TRAIN).tolist() == np.sort(members).tolist()
    for k in range(1, 4):
        assert np.bincount(LABELS[split.records(k, TRAIN)]).tolist() == np.bincount(LABELS[members]).tolist()
        assert len(split.records(k, AUDIT)) >= len(split.records(0, AUDIT))
        assert matched(LABELS, members, split.records(k, TRAIN))


def test_a_shadow_of_a_given_victim_does_not_depend_on_how_many_there_are():
    members = np.arange(0, N, 4)
    assert (given_victim(LABELS, members, 4, seed=0).roles[:3] == given_victim(LABELS, members, 2, seed=0).roles).all()


def test_where_records_do_not_suffice_shadows_train_on_a_share_of_all_and_are_not_matched():
    members = first_of_each_class(16, 20, 12, 32)
    split = given_victim(LABELS, members, 2, seed=0, train=0.6, dev=0.1)
    pool = np.flatnonzero((split.roles[1:] != Role.UNUSED).any(0))
    for k in (1, 2):
        assert len(split.records(k, TRAIN)) == round(0.6 * len(pool)) < len(members)
        assert not matched(LABELS, members, split.records(k, TRAIN))


def test_a_model_of_the_same_size_and_other_classes_is_not_matched():
    zeros, others = np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS != 0)
    assert matched(LABELS, zeros[:20], zeros[20:40])
    assert not matched(LABELS, zeros[:20], others[:20])


def test_selecting_members_keeps_their_roles():
    split = victim_and_shadows(LABELS, 4, seed=0)
    assert (split.select([0, 3]).roles == split.roles[[0, 3]]).all()
    assert split.select([0, 3]).layout == "disjoint"
    assert (halves().select([2, 3]).roles == halves().roles[2:4]).all()


def test_shadows_without_the_victim_claim_no_disjointness():
    split = victim_and_shadows(LABELS, 4, seed=0)
    assert (split.select([1, 2]).roles == split.roles[1:3]).all()
    assert split.select([1, 2]).layout == "subsets"


def test_audited_records_are_train_and_audit_records_in_order():
    split = victim_and_shadows(LABELS, 1, seed=0)
    both = np.sort(np.concatenate([split.records(0, TRAIN), split.records(0, AUDIT)]))
    assert split.audited(0).tolist() == both.tolist()


@pytest.mark.parametrize("changed", [
    {"labels": np.repeat([0, 1, 2, 3], 50)}, {"layout": "subsets"}, {"roles": subset_split(seed=9).roles},
])  # fmt: skip
def test_the_fingerprint_sees_roles_labels_and_layout(changed):
    base = {"roles": halves().roles, "labels": LABELS, "layout": "shared"}
    assert Split(**base).fingerprint != Split(**{**base, **changed}).fingerprint


@pytest.mark.parametrize(("build", "message"), [
    (lambda: victim_and_shadows(LABELS, 0, seed=0), "at least 1 shadow model, got 0"),
    (lambda: victim_and_shadows(LABELS, 1, seed=0, train=0.9, dev=0.1), "train > 0, dev > 0 and train . dev < 1"),
    (lambda: victim_and_shadows(np.array([0, 0, 1]), 1, seed=0), "expected every class among the train records"),
    (lambda: victim_and_shadows(LABELS, 1, seed=0, dev=0.01), "every class among the dev records of model 0"),
    (lambda: subset_split(size=190), "at least 210 records to draw from, got 200"),
    (lambda: subset_split(size=-1), "subsets of 1 or more records and 0 or more dev records, got -1 and 20"),
    (lambda: halves(dev_size=-1), "sizes of 0 or more"),
    (lambda: halves(models=5), "an even number of reference models, got 5"),
    (lambda: halves(models=0), "an even number of reference models, got 0"),
    (lambda: halves(dev_size=120), "at least 120 records to draw from, got 100"),
    (lambda: halves(train_size=95), "at least 110 records to draw from, got 100"),
    (lambda: given_victim(LABELS, np.array([0, N]), 1, seed=0), "members among records 0..199"),
    (lambda: given_victim(LABELS, np.arange(N), 1, seed=0), "that the victim was not trained on, got 0"),
    (lambda: given_victim(LABELS, np.arange(9), 1, seed=0, train=0), "train > 0, dev > 0"),
    (lambda: Split(np.zeros((2, 5), np.int8), LABELS, "shared"), r"roles \(K, 200\), got \(2, 5\)"),
    (lambda: Split(np.full((1, N), 7, np.int8), LABELS, "shared"), r"expected roles \[0, 1, 2, 3\], got \[7\]"),
])  # fmt: skip
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_cannot_be_split_is_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_reference_models_of_a_victim_that_trains_on_less_than_half_train_on_as_little():
    split = halves(train_size=20)
    assert {len(split.records(k, Role.TRAIN)) for k in range(split.num_models)} == {20}
    assert len({split.roles[k].tobytes() for k in range(split.num_models)}) == split.num_models


@pytest.mark.parametrize("models", [8, 16, 32, 64])
@pytest.mark.parametrize("train_size", [20, 30, 40, 49])
def test_small_reference_models_leave_no_record_far_behind_the_mean(models, train_size):
    split = halves(models=models, train_size=train_size)
    counts = (split.roles[:, ::2] == Role.TRAIN).sum(0)
    assert counts.mean() == pytest.approx(models * train_size / 100)
    assert counts.min() >= int(COVERED * counts.mean()) - 1
    assert counts.max() < models
    assert np.ptp(counts) > 1  # no strict balance, which would tell whether one more model saw a record


def test_small_reference_models_do_not_depend_on_how_many_there_are():
    assert np.array_equal(halves(models=32, train_size=20).roles[:8], halves(models=8, train_size=20).roles)


@pytest.mark.parametrize(("models", "train_size"), [(4, None), (4, 60), (24, 20)])
def test_covered_reference_models_are_accepted(models, train_size):
    require_covered(halves(models=models, train_size=train_size), np.arange(0, N, 2), least=2)


@pytest.mark.parametrize(("models", "train_size"), [(2, None), (4, 20), (8, 10)])
def test_uncovered_records_are_refused_with_a_number_that_does(models, train_size):
    pool = np.arange(0, N, 2)
    with pytest.raises(InputError, match=r"raise split\.references to") as caught:
        require_covered(halves(models=models, train_size=train_size), pool, least=2)
    enough = int(str(caught.value).split("split.references to ")[1].split(",")[0])
    require_covered(halves(models=enough, train_size=train_size), pool, least=2)
