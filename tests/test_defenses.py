"""The paper's defenses: what they show when, against plain loops, and what they turn into at their limits."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toy import blobs, ensemble_of, same_bytes, split_of
from wemem.data.batches import Group
from wemem.data.split import Role
from wemem.defenses import (
    DEFENSES,
    RADD,
    AdvReg,
    Batch,
    Chain,
    Defense,
    MemoryRegularizer,
    SlidingWindow,
    TrainingRecords,
    Undefended,
    chain,
    make_defense,
)  # fmt: skip
from wemem.errors import InputError
from wemem.training import Recipe, fit

UNKNOWN: Any = "unknown"


@dataclass(frozen=True)
class Doubled(Defense):
    """A defense with a loss of its own, and a setting."""

    factor: float = 2.0

    @property
    def name(self):
        return "doubled"

    def loss(self, batch):
        return self.factor * batch.mean(batch.cross_entropy())


def known(labels, scores, train=None, seed=0):
    train = np.arange(len(labels)) if train is None else np.asarray(train)
    return TrainingRecords(train, np.asarray(labels, np.int64), scores, seed)


def shown(defense, epoch, records):
    """Records by key."""
    return {g.key: g.records.tolist() for g in defense.plan(epoch, (Group(records.train),), records)}


def window_by_loop(records, epoch, width, stride, descending):
    """The definition, one class and one position at a time; counts only."""
    chosen: set[int] = set()
    for label in set(records.labels[records.train].tolist()):
        own = [int(i) for i in records.train if records.labels[i] == label]
        own.sort(key=lambda i: -records.scores[i] if descending else records.scores[i])
        start = stride * epoch
        while start + width > len(own):
            start -= 1
        chosen.update(own[start + j] for j in range(width))
    return sorted(chosen)


#: Labels, scores (with ties), and which records are trained on; at least four of each class.
knowledge = st.builds(
    lambda labels, scores, seed: known(
        labels, np.array(scores), train=np.sort(np.random.default_rng(seed).permutation(len(labels))), seed=seed
    ),
    st.just([0, 1, 2] * 5),
    st.lists(st.sampled_from([-0.25, 0.0, 0.125, 0.5, 1.0]), min_size=15, max_size=15),
    st.integers(0, 99),
)


@pytest.mark.parametrize("order", ["low_first", "high_first", "random"])
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_a_full_window_is_plain_training_to_the_byte(order, backend):
    data = blobs()
    split, scores = split_of(data), [np.random.default_rng(k).random(90) for k in range(3)]
    recipe = Recipe(epochs=3, patience=None, batch_size=16)
    plain, windowed = (
        fit(ensemble_of(data), data, split, recipe, seeds=[5, 6, 7], defense=d, scores=scores, backend=backend)
        for d in (Undefended(), SlidingWindow(width=1.0, stride=0, order=order))
    )
    assert same_bytes(plain.ensemble, windowed.ensemble)
    assert plain.history == windowed.history


def test_regularizing_nobody_is_plain_training_to_the_byte():
    data = blobs()
    split, scores = split_of(data), [np.random.default_rng(k).random(90) for k in range(3)]
    recipe = Recipe(epochs=3, patience=None, batch_size=16)
    plain, regularized = (
        fit(ensemble_of(data), data, split, recipe, seeds=[5, 6, 7], defense=d, scores=scores).ensemble
        for d in (Undefended(), MemoryRegularizer(threshold=1.5))
    )
    assert same_bytes(plain, regularized)


def test_regularizing_at_the_recipe_s_decay_still_keeps_two_groups_apart():
    records = known([0, 0, 1, 1], np.array([0.1, 0.9, 0.2, 0.8]))
    calm, risky = MemoryRegularizer(top=0.5, decay=Recipe().weight_decay).plan(0, (Group(records.train),), records)
    assert (calm.records.tolist(), risky.records.tolist()) == ([0, 2], [1, 3])
    assert (calm.weight_decay, risky.weight_decay) == (None, Recipe().weight_decay)
    assert calm.key != risky.key


def test_undefended_changes_nothing():
    records = known([0, 1], None)
    groups = (Group(np.arange(2)),)
    assert Undefended().plan(3, groups, records) is groups
    assert not Undefended().needs_scores
    assert Undefended().settings == {}


def test_the_plain_loss_is_cross_entropy_without_the_padding():
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, 0, 1]] * 2)
    weights = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    loss = Undefended().loss(Batch(logits, labels, weights, epoch=0))
    cross_entropy = torch.nn.functional.cross_entropy
    expected = [cross_entropy(logits[0], labels[0]), cross_entropy(logits[1, :2], labels[1, :2])]
    assert loss.tolist() == pytest.approx([float(e) for e in expected])


def test_window_positions_by_hand():
    scores = np.array([0.9, 0.1, 0.5, 0.3, 0.7])  # class 0 from low to high: 1, 3, 2, 4, 0
    records = known([0] * 5, scores)
    low = [shown(SlidingWindow(2, 1, "low_first"), e, records)["all"] for e in range(5)]
    assert low == [[1, 3], [2, 3], [2, 4], [0, 4], [0, 4]]
    high = [shown(SlidingWindow(2, 2, "high_first"), e, records)["all"] for e in range(4)]
    assert high == [[0, 4], [2, 3], [1, 3], [1, 3]]


@given(knowledge, st.integers(1, 5), st.integers(0, 3), st.integers(0, 6), st.booleans())
def test_the_window_is_what_a_loop_over_positions_finds(records, width, stride, epoch, descending):
    window = SlidingWindow(width, stride, "high_first" if descending else "low_first")
    assert shown(window, epoch, records)["all"] == window_by_loop(records, epoch, width, stride, descending)


@given(knowledge, st.sampled_from(["low_first", "high_first", "random"]), st.integers(1, 5), st.integers(1, 5))
def test_over_the_epochs_every_record_is_shown_unless_the_stride_skips_it(records, order, width, stride):
    union = {i for epoch in range(6) for i in shown(SlidingWindow(width, stride, order), epoch, records)["all"]}
    if stride <= width:
        assert union == set(records.train.tolist())
    assert len(union) >= 3 * width


@given(knowledge, st.sampled_from(["low_first", "random"]), st.integers(1, 5))
def test_every_class_fills_its_window_in_every_epoch(records, order, width):
    for epoch in (0, 1, 7):
        labels = records.labels[shown(SlidingWindow(width, 1, order), epoch, records)["all"]]
        assert np.bincount(labels).tolist() == [width] * 3


def test_the_window_stays_at_a_class_s_end_while_others_move_on():
    records = known([0] * 3 + [1] * 6, np.arange(9) / 10)
    window = SlidingWindow(2, 1, "low_first")
    assert [shown(window, e, records)["all"] for e in (0, 1, 2, 4, 9)] == [
        [0, 1, 3, 4], [1, 2, 4, 5], [1, 2, 5, 6], [1, 2, 7, 8], [1, 2, 7, 8],
    ]  # fmt: skip


def test_fractions_are_of_each_class_s_own_size():
    records = known([0] * 4 + [1] * 8, np.arange(12) / 20)
    window = SlidingWindow(0.5, 0.25, "low_first")
    assert shown(window, 0, records)["all"] == [0, 1, 4, 5, 6, 7]
    assert shown(window, 1, records)["all"] == [1, 2, 6, 7, 8, 9]
    assert shown(window, 2, records)["all"] == [2, 3, 8, 9, 10, 11]


@pytest.mark.parametrize("n", [49, 60])
def test_a_fraction_that_is_a_whole_number_of_records_equals_that_count(n):
    records = known([0] * n, np.random.default_rng(0).random(n))  # 1 / 49 * 49 is less than 1 in floating point
    for epoch in range(12):
        assert shown(SlidingWindow(7, 1), epoch, records) == shown(SlidingWindow(7, 1 / n), epoch, records)


def test_the_smallest_fraction_still_shows_a_record_of_each_class():
    assert shown(SlidingWindow(0.01, 0), 0, known([0, 0, 1, 1], np.arange(4) / 4))["all"] == [0, 2]


def test_only_training_records_are_ranked_and_shown():
    scores = np.array([np.nan, 0.2, 0.1, np.nan, 0.4])
    assert shown(SlidingWindow(2, 0), 0, known([0] * 5, scores, train=[1, 2, 4]))["all"] == [1, 2]


def test_a_random_order_needs_no_scores_and_changes_with_the_seed():
    window = SlidingWindow(4, 0, "random")
    assert not window.needs_scores
    first, again, other = (shown(window, 0, known([0] * 30, None, seed=s))["all"] for s in (0, 0, 1))
    assert first == again != other


def test_ranking_without_scores_is_refused():
    with pytest.raises(InputError, match="expected memorization scores, got none; let the study estimate them"):
        shown(SlidingWindow(1, 0), 0, known([0, 0], None))
    with pytest.raises(InputError, match="for every training record, got none for record 1;"):
        shown(MemoryRegularizer(), 0, known([0, 0], np.array([0.1, np.nan])))


def test_a_width_larger_than_a_class_is_refused():
    with pytest.raises(InputError, match="at most the smallest class's 2 training records, got 3; lower it"):
        shown(SlidingWindow(3, 0), 0, known([0, 0, 0, 1, 1], np.arange(5) / 5))


@given(knowledge, st.floats(0.01, 0.99))
def test_top_makes_exactly_that_share_risky_and_no_calm_record_scores_higher(records, top):
    risky = MemoryRegularizer(top=top).risky(records)
    assert risky.sum() == round(top * 15)
    scores = records.scores[records.train]
    assert scores[risky].min(initial=np.inf) >= scores[~risky].max(initial=-np.inf)


@given(knowledge, st.sampled_from([-1.0, 0.0, 0.125, 0.3, 1.0, 2.0]))
def test_a_threshold_makes_risky_what_reaches_it(records, threshold):
    parts = shown(MemoryRegularizer(threshold=threshold), 0, records)
    assert parts["all/risky"] == [i for i in records.train.tolist() if records.scores[i] >= threshold]
    assert parts["all"] == [i for i in records.train.tolist() if records.scores[i] < threshold]


def test_equal_scores_are_risky_in_the_order_of_the_data():
    assert shown(MemoryRegularizer(top=0.5), 0, known([0] * 4, np.zeros(4)))["all/risky"] == [0, 1]


@given(knowledge, st.integers(1, 5), st.integers(0, 2), st.integers(0, 6), st.floats(0.1, 0.9))
def test_swmr_is_rmr_inside_the_window(records, width, stride, epoch, top):
    window, regularizer = SlidingWindow(width, stride), MemoryRegularizer(top=top)
    inside = set(shown(window, epoch, records)["all"])
    parts = shown(chain(window, regularizer), epoch, records)
    assert parts == {
        key: [i for i in own if i in inside] for key, own in shown(regularizer, epoch, records).items()
    }  # fmt: skip
    assert parts == shown(chain(regularizer, window), epoch, records)


def test_a_fit_shows_each_member_the_records_of_its_own_window():
    data = blobs()
    split = split_of(data, members=2)
    scores = [np.random.default_rng(k).random(90) for k in range(2)]
    window = SlidingWindow(4, 2)
    fitted = fit(
        ensemble_of(data, members=2), data, split, Recipe(epochs=3, patience=None), seeds=[0, 1], defense=window,
        scores=scores,
    )  # fmt: skip
    assert [h.records_seen for h in fitted.history] == [3 * 3 * 4] * 2
    assert split.records(0, Role.TRAIN).tolist() != split.records(1, Role.TRAIN).tolist()


def test_the_paper_s_chain_is_called_swmr_and_others_by_their_parts():
    assert make_defense("swmr", {"width": 3}) == make_defense("rsw+rmr", {"width": 3})
    assert make_defense("swmr").name == "swmr"
    assert chain(MemoryRegularizer(), SlidingWindow()).name == "rmr+rsw"
    assert make_defense("swmr").settings.keys() == {"width", "stride", "order", "top", "threshold", "decay"}
    assert chain(SlidingWindow(order="random"), Doubled()).needs_scores is False
    assert make_defense("swmr").needs_scores is True


def test_a_chain_uses_the_one_loss_that_a_part_replaces():
    batch = Batch(torch.randn(1, 4, 3), torch.tensor([[0, 1, 2, 0]]), torch.ones(1, 4), epoch=0)
    assert chain(SlidingWindow(), Doubled()).loss(batch) == 2 * Undefended().loss(batch)
    assert chain(SlidingWindow(), MemoryRegularizer()).loss(batch) == Undefended().loss(batch)


@pytest.mark.parametrize(("defense", "text"), [
    (Undefended(), "Undefended()"),
    (SlidingWindow(15, 1, "random"), "SlidingWindow(width=15, stride=1, order='random')"),
    (AdvReg(theta=4.0), "AdvReg(theta=4.0)"),
    (RADD(top=0.1),
     "RADD(top=0.1, threshold=None, temperature=3.0, entropy=0.2, width=0.25, stride=0.0375, share=0.1)"),
    (MemoryRegularizer(), "MemoryRegularizer(top=0.27, threshold=None, decay=0.1)"),
    (MemoryRegularizer(threshold=0.5), "MemoryRegularizer(top=None, threshold=0.5, decay=0.1)"),
    (chain(Undefended(), MemoryRegularizer(top=0.1, decay=1.0)),
     "Chain(parts=(Undefended(), MemoryRegularizer(top=0.1, threshold=None, decay=1.0)))"),
])  # fmt: skip
def test_the_repr_is_the_expression_that_makes_the_value(defense, text):
    assert repr(defense) == text


@pytest.mark.parametrize("kind", [*DEFENSES, "swmr", "oosd+rsw", "advreg+rsw"])
def test_name_and_settings_make_the_value_again(kind):
    defense = make_defense(kind)
    given = {name: value for name, value in defense.settings.items() if value is not None}
    assert make_defense(defense.name, given) == defense


def test_a_whole_number_is_a_count_and_a_number_with_a_point_a_fraction():
    records = known([0] * 6, np.arange(6) / 6)
    assert len(shown(make_defense("rsw", {"width": 1}), 0, records)["all"]) == 1
    assert len(shown(make_defense("rsw", {"width": 1.0}), 0, records)["all"]) == 6


def test_a_user_s_defense_is_made_from_its_module(tmp_path, monkeypatch):
    (tmp_path / "early_bird.py").write_text(
        "from dataclasses import dataclass, replace\n"
        "from wemem.defenses import Defense\n\n\n"
        "@dataclass(frozen=True)\n"
        "class EarlyBird(Defense):\n"
        "    first: int = 2\n\n"
        "    @property\n"
        "    def name(self):\n"
        "        return 'early_bird'\n\n"
        "    def plan(self, epoch, groups, records):\n"
        "        return tuple(replace(g, records=g.records[: self.first]) for g in groups)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    defense = make_defense("early_bird:EarlyBird", {"first": 3})
    assert shown(defense, 0, known([0] * 5, None))["all"] == [0, 1, 2]
    both = make_defense("early_bird:EarlyBird+rmr", {"first": 3, "top": 0.5})
    assert both.name == "early_bird+rmr"
    assert shown(both, 0, known([0] * 4, np.arange(4) / 4)) == {"all": [0, 1], "all/risky": [2]}
    with pytest.raises(InputError, match="got 'frist'; did you mean 'first'"):
        make_defense("early_bird:EarlyBird", {"frist": 3})


@pytest.mark.parametrize(("build", "message"), [
    (lambda: make_defense("rws"), "expected a defense among undefended, .*, swmr or .*'rws'; did you mean 'rsw'"),
    (lambda: make_defense("rsw", {"widht": 1}), "got 'widht'; did you mean 'width'"),
    (lambda: make_defense("undefended", {"width": 1}), "expected settings among none, got 'width'"),
    (lambda: make_defense("rsw", {"width": "wide"}), "defense 'rsw': expected width"),
    (lambda: make_defense("rsw", {"width": 0}), "width must be positive, got 0; for no window use Undefended"),
    (lambda: make_defense("rsw", {"width": float("nan")}), "width must be positive, got nan"),
    (lambda: make_defense("rsw", {"width": 1.5}), "width as a fraction must be at most 1.0, got 1.5"),
    (lambda: make_defense("rsw", {"stride": -1}), "stride must be 0 or more, got -1"),
    (lambda: make_defense("rsw", {"order": "up"}), "expected order to be 'low_first', 'high_first' or 'random'"),
    (lambda: SlidingWindow(order=UNKNOWN), "order must be low_first, high_first or random, got 'unknown'"),
    (lambda: MemoryRegularizer(top=0.2, threshold=0.3), "either top or threshold, got top=0.2 and threshold=0.3"),
    (lambda: MemoryRegularizer(top=1.0), r"top must be a share in \(0, 1\), got 1.0"),
    (lambda: MemoryRegularizer(threshold=float("nan")), "threshold must be a number, got NaN"),
    (lambda: MemoryRegularizer(decay=-0.1), "decay must be 0 or more, got -0.1"),
    (lambda: make_defense("rsw+rsw"), r"two or more different defenses, got rsw \+ rsw"),
    (lambda: Chain(()), "two or more different defenses, got none"),
    (lambda: chain(SlidingWindow(), RADD()), r"different settings in rsw \+ radd, got 'width' twice"),
    (lambda: make_defense("wemem.defenses:chain"), "to name a subclass of wemem.defenses.Defense"),
    (lambda: make_defense("wemem.defenses:Defense"), "expected 'wemem.defenses:Defense' to define name, got none"),
    (lambda: make_defense("no_such_module:Mine"), "got no module 'no_such_module'"),
])  # fmt: skip
def test_what_is_no_defense_is_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_two_losses_are_refused_and_both_named():
    @dataclass(frozen=True)
    class Other(Defense):
        @property
        def name(self):
            return "other"

        def loss(self, batch):
            return batch.mean(batch.cross_entropy())

    with pytest.raises(InputError, match="doubled and other both replace the loss; chain only one of them"):
        chain(Doubled(), Other())
