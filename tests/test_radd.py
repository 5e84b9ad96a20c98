"""RADD: its limits, its loss by hand, what it shows when, and the whole way through a study and a single pruning."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import small_study
from test_defenses import known, shown
from toy import blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.defenses import (
    RADD,
    Batch,
    Distillation,
    OwnDenseModel,
    RecordRisk,
    SlidingWindow,
    Undefended,
    make_defense,
)
from wemem.errors import InputError
from wemem.exporting.checkpoint import write_weights
from wemem.memorization import Memorization
from wemem.pipeline.artifacts import MemorizationScores
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pruning import Pruning, Schedule
from wemem.store.key import Key
from wemem.store.store import Store
from wemem.study.run import run_study
from wemem.study.single_model import prune_model
from wemem.training import Recipe, fit

pytestmark = pytest.mark.slow

DATA = blobs()
SEEDS = [11, 12, 13]
SGD = Recipe(epochs=4, patience=None, batch_size=16, learning_rate=0.05, optimizer="sgd")
SCORES = [np.random.default_rng(k).uniform(-0.2, 1, len(DATA)) for k in range(3)]
EVERYTHING = {"width": 1.0, "stride": 0.0}
TAUGHT = np.log(np.random.default_rng(0).dirichlet(np.ones(DATA.classes), (3, len(DATA)))).astype(np.float32)


def trained(defense, **changed):
    settings: dict[str, Any] = {"scores": SCORES, "teacher_log_probs": TAUGHT} | changed
    return fit(ensemble_of(DATA), DATA, split_of(DATA), SGD, seeds=SEEDS, defense=defense, **settings)


# --- limit cases ---


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_with_nobody_at_risk_a_full_window_and_no_bonus_it_is_plain_training_to_the_byte(backend):
    off = RADD(threshold=2.0, entropy=0.0, **EVERYTHING)
    assert same_bytes(trained(off, backend=backend).ensemble, trained(Undefended(), backend=backend).ensemble)


def test_with_nobody_at_risk_it_is_the_window_and_the_bonus():
    off = RADD(threshold=2.0, entropy=0.0, width=0.5, stride=0.1)
    assert same_bytes(trained(off).ensemble, trained(SlidingWindow(0.5, 0.1)).ensemble)
    bonus = RADD(threshold=2.0, entropy=0.5, **EVERYTHING)
    assert largest_difference(trained(bonus).ensemble, trained(Undefended()).ensemble) > 1e-3


# --- the loss ---


def test_the_loss_by_hand():
    own, p = np.array([0.64, 0.36]), np.array([[0.81, 0.19], [0.3, 0.7]])
    batch = Batch(
        torch.tensor(np.log(p[None])), torch.tensor([[1, 1]]), torch.ones(1, 2, dtype=torch.float64), 0,
        teacher_log_probs=torch.tensor(np.log(np.stack([own] * 2)[None])), risk=torch.tensor([[0.25, 0.0]]),
    )  # fmt: skip
    # temperature 2 takes square roots
    q, own = np.array([0.8, 0.6]) / 1.4, np.sqrt(p[0]) / np.sqrt(p[0]).sum()
    first = 0.25 * 4 * (q * np.log(q / own)).sum() + 0.1 * (p[0] * np.log(p[0])).sum()
    second = -np.log(0.7) + 0.1 * (p[1] * np.log(p[1])).sum()
    assert RADD(temperature=2.0, entropy=0.1).loss(batch).item() == pytest.approx((first + second) / 2)


def test_the_label_of_a_high_risk_record_does_not_matter_and_that_of_another_does():
    rng = np.random.default_rng(0)
    logits, teacher_log_probs = (torch.tensor(rng.normal(size=(1, 2, 3))) for _ in range(2))
    for risk, same in (([[0.5, 0.5]], True), ([[0.5, 0.0]], False)):
        losses = [
            RADD().loss(Batch(
                logits, torch.tensor([[0, label]]), torch.ones(1, 2), 0, teacher_log_probs, risk=torch.tensor(risk)
            )).item()
            for label in (0, 1)
        ]  # fmt: skip
        assert (losses[0] == losses[1]) == same


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 3))
def test_padding_and_company_change_no_loss(counts, padding):
    rng, width = np.random.default_rng(sum(counts)), max(counts) + padding
    logits, teacher_log_probs = (
        torch.tensor(rng.normal(0, 3, (len(counts), width, 4)), dtype=torch.float32) for _ in range(2)
    )
    labels = torch.tensor(rng.integers(0, 4, (len(counts), width)))
    risk = torch.tensor(rng.uniform(-1, 1, (len(counts), width)), dtype=torch.float32).clamp(min=0)
    weights = (torch.arange(width) < torch.tensor(counts)[:, None]).float()
    together = RADD().loss(Batch(logits, labels, weights, 0, teacher_log_probs, risk))
    for k, n in enumerate(counts):
        cut = (slice(k, k + 1), slice(n))
        alone = RADD().loss(Batch(logits[cut], labels[cut], weights[cut], 0, teacher_log_probs[cut], risk[cut]))
        torch.testing.assert_close(together[k : k + 1], alone)


@pytest.mark.parametrize("size", [1e2, 1e30])
def test_loss_and_gradient_are_finite_for_extreme_logits(size):
    logits = (torch.eye(3)[None] * size).requires_grad_()
    teacher_log_probs, risk = torch.log_softmax(-torch.eye(3)[None] * size, -1), torch.tensor([[0.9, 0.0, 0.5]])
    loss = RADD().loss(Batch(logits, torch.tensor([[1, 2, 0]]), torch.ones(1, 3), 0, teacher_log_probs, risk))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


def test_risk_is_the_score_of_the_share_with_the_highest_if_it_is_positive_and_1_at_most():
    scores = np.array([0.5, -0.1, 1.5, 0.2, -0.3, 0.9])
    records = known([0] * 6, scores, train=[0, 1, 2, 3, 4])
    assert RADD(top=0.4).risk(records).tolist() == [0.5, 0, 1.0, 0, 0, 0]
    assert RADD(top=0.8).risk(records).tolist() == [0.5, 0, 1.0, 0.2, 0, 0]
    assert RADD(threshold=0.5).risk(records).tolist() == [0.5, 0, 1.0, 0, 0, 0]


# --- what is shown ---


def test_the_window_and_the_queue_by_hand():
    # class 0 is even, class 1 odd; 0 to 5 are at risk, from low to high scores
    scores = np.concatenate([np.linspace(0.5, 0.9, 6), np.full(18, 0.1)])
    records = known([0, 1] * 12, scores)
    defense = RADD(top=0.25, share=0.2, width=0.5, stride=0.0)
    seen = [shown(defense, epoch, records)["all"] for epoch in range(4)]
    # nine others of each class, of which round(4.5) = 4 are in the window; 2 of 10 may be at risk
    window = [6, 7, 8, 9, 10, 11, 12, 13]
    assert seen == [[0, 1, *window], [2, 3, *window], [4, 5, *window], window]


records_of_three_classes = st.builds(
    lambda scores: known([0, 1, 2] * 20, np.array(scores)),
    st.lists(st.floats(-0.5, 1), min_size=60, max_size=60),
)


@given(records_of_three_classes, st.floats(0.05, 0.8), st.floats(0, 0.5), st.floats(0.05, 1), st.floats(0, 0.2))
def test_a_high_risk_record_is_shown_once_a_round_at_most_and_few_at_a_time(records, top, share, width, stride):
    defense = RADD(top=top, share=share, width=width, stride=stride)
    risky = records.train[defense.high_risk(records)]
    exposures = np.zeros(60, int)
    for epoch in range(21):
        own = np.array(shown(defense, epoch, records)["all"])
        exposures[own] += 1
        assert np.isin(own, risky).sum() <= share * len(own) + 1e-9
        pending = [(exposures[risky[records.labels[risky] == c]] == 0).any() for c in range(3)]
        if all(pending):  # the classes take turns as long as none has run out
            total = [exposures[risky[records.labels[risky] == c]].sum() for c in range(3)]
            assert max(total) - min(total) <= 1
    assert exposures[risky].max(initial=0) <= 1


@given(records_of_three_classes)
def test_the_others_are_shown_as_by_a_window_of_their_own(records):
    defense = RADD(top=0.3, width=0.4, stride=0.1)
    risky = defense.high_risk(records)
    others = replace(records, train=records.train[~risky])
    for epoch in (0, 3, 9):
        own = [i for i in shown(defense, epoch, records)["all"] if i in others.train]
        assert own == shown(SlidingWindow(0.4, 0.1), epoch, others)["all"]


def test_a_share_of_nothing_shows_none():
    records = known([0, 1] * 10, np.linspace(0.1, 0.9, 20))
    defense = RADD(top=0.5, share=0.0, **EVERYTHING)
    assert shown(defense, 0, records)["all"] == list(range(10))


# --- the trainer and the study ---


def test_both_backends_learn_the_same():
    one, other = (trained(RADD(), backend=b).ensemble for b in ("vmapped", "sequential"))
    assert largest_difference(one, other) < 1e-4
    assert largest_difference(one, trained(Undefended()).ensemble) > 1e-2


def test_in_a_chain_it_keeps_its_teacher_and_its_risk():
    both = make_defense("radd+early_stopping", {"stop_after": 2})
    assert both.capability(Distillation) == Distillation(OwnDenseModel())
    records = known([0, 1] * 5, np.linspace(0.1, 0.9, 10))
    risk = both.capability(RecordRisk)
    assert risk is not None
    assert np.array_equal(risk.of(records), RADD().risk(records))
    assert both.needs_scores
    for other in ("oosd", "ppb", "relaxloss"):
        with pytest.raises(InputError, match=f"radd and {other} both replace the loss"):
            make_defense(f"radd+{other}")
    with pytest.raises(InputError, match="learns from teachers, got none"):
        trained(both, teacher_log_probs=None)


def test_it_learns_what_each_member_s_own_dense_model_says_of_its_train_records(tmp_path):
    config = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=["radd"]))
    data = config.data.load()
    split = split_of(data, members=2, train=120, dev=40)
    pipeline = Pipeline.open(config, data, Store(tmp_path / "store"), Silent())
    dense = pipeline.trainer.train("dense", split, [5, 6])
    teacher_log_probs = pipeline.teacher.teach("test", dense, split, [5, 6], RADD())
    assert teacher_log_probs is not None
    for k in range(2):
        train = split.records(k, Role.TRAIN)
        logits = torch.from_numpy(dense.ensemble.logits(data.features[train])[k])
        np.testing.assert_allclose(teacher_log_probs.log_probabilities[k, train], logits.log_softmax(-1), atol=1e-5)
        assert not teacher_log_probs.log_probabilities[k, split.roles[k] != Role.TRAIN].any()
    by_others = pipeline.teacher.teach(
        "test", dense, split, [5, 6], make_defense("oosd", {"teachers": 2, "held_out": 1})
    )
    assert by_others is not None
    assert by_others.key != teacher_log_probs.key


def test_a_round_is_kept_under_what_taught_it(tmp_path):
    config = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=["radd"]))
    data = config.data.load()
    split = split_of(data, members=1, train=120, dev=40)
    scores = Memorization(np.random.default_rng(0).random(len(data)), *[np.zeros(len(data))] * 3)
    scored = MemorizationScores(Key.of("scores", {}), scores, 1.0, 1, 0.0)
    pruning = Pruning(Schedule(0.6, 2), recipe=config.finetune)
    keys = set()
    pipeline = Pipeline.open(config, data, Store(tmp_path / "store"), Silent())
    for seed in (0, 1):
        dense = pipeline.trainer.train("dense", split, [seed])
        (last,) = pipeline.pruner.prune("prune", dense, split, pruning, RADD(), seeds=[0], scores=[scored])
        keys.add(last.key)
    assert len(keys) == 2
    made = {pipeline.workspace.recipe_fingerprint(pruning, d) for d in (RADD(), make_defense("oosd"), Undefended())}
    assert len(made) == 3


def test_a_study_attacks_it_adaptively(tmp_path):
    table = small_study.table(small_study.write_data(tmp_path), defenses=["radd"], pruning={"rounds": 2})
    (_, outcome) = run_study(parse_study(table), Store(tmp_path / "store"), Silent())
    assert outcome.defense == RADD()
    assert len(set(outcome.victim.provenance)) == 1
    assert set(outcome.signals) == {"disjoint", "shared"}
    assert outcome.victim.meta["records_seen"] > 0
    (_, again) = run_study(parse_study(table), Store(tmp_path / "other"), Silent())
    assert same_bytes(outcome.victim.ensemble, again.victim.ensemble)


def test_one_given_model_is_pruned_under_it_and_taught_by_itself(tmp_path):
    data = small_study.write_data(tmp_path, random_labels=True)
    table = small_study.table(data, defenses=["radd"], model={"kind": "fc", "hidden": [24, 12], "dropout": 0.0})
    config = parse_study(table)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = config.model.build((small_study.FEATURES,), small_study.CLASSES)
    write_weights(tmp_path / "given.safetensors", model.state_dict())
    np.savez(tmp_path / "members.npz", members=np.arange(0, small_study.RECORDS, 3))
    victim = {"weights": str(tmp_path / "given.safetensors"), "members": str(tmp_path / "members.npz")}
    pruned = prune_model(parse_study(table | {"victim": victim}), "radd", Store(tmp_path / "store"), Silent())
    assert pruned.stage.meta["rounds"][-1]["sparsity"] == pytest.approx(0.6, abs=0.01)
    (entry,) = [
        path for path in (tmp_path / "store").rglob("data.safetensors") if set(load_file(path)) == {"teacher_log_probs"}
    ]
    train = pruned.split.records(0, Role.TRAIN)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(config.data.load().features[train]))
    torch.testing.assert_close(load_file(entry)["teacher_log_probs"][0, train], logits.log_softmax(-1))


@pytest.mark.parametrize(("settings", "message"), [
    ({"top": 0.2, "threshold": 0.3}, "either top or threshold"),
    ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
    ({"entropy": -0.1}, "entropy must be finite and 0 or more, got -0.1; for no bonus give 0"),
    ({"share": 1.0}, r"share must be in \[0, 1\), got 1.0"),
    ({"width": 0.0}, "width must be positive, got 0.0"),
    ({"width": 2}, "width as a fraction must be at most 1.0, got 2.0"),
    ({"stride": -0.1}, "stride must be 0 or more"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        make_defense("radd", settings)


def test_where_everything_is_at_risk_nothing_can_be_shown_and_that_is_refused():
    with pytest.raises(InputError, match="expected records that are not high-risk, got none among a model's 4"):
        shown(RADD(threshold=0.0), 0, known([0, 0, 1, 1], np.full(4, 0.5)))
