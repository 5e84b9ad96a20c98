"""Signals that an auditor brings: what is understood, and what is refused in one line that names the array."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from small_study import table, write_data
from wemem.attacks.rmia import Rmia
from wemem.auditing.signal_file import read_signals, signals_from_arrays
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.models.outputs import refuse_squashed, returning_logits
from wemem.pipeline.progress import Silent
from wemem.signals import Signals, refuse_probabilities
from wemem.store.store import Store
from wemem.study.black_box import audit_signals
from wemem.study.run import run_study
from wemem.testing import planted

MODELS, RECORDS, CLASSES = 9, 120, 5


def arrays():
    """Reference models trained on random halves, members lifted."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, RECORDS)
    roles = np.where(rng.random((MODELS, RECORDS)).argsort(0) < MODELS // 2, 1, 3).astype(np.int8)
    logits = rng.normal(size=(MODELS, RECORDS, CLASSES)).astype(np.float32)
    logits[:, np.arange(RECORDS), labels] += 1 + 2 * (roles == 1)
    return logits, labels, roles


def changed(name, change):
    made = dict(zip(("logits", "labels", "roles"), arrays(), strict=True))
    made[name] = change(made[name])
    return made["logits"], made["labels"], made["roles"]


def only_role(role):
    def change(roles):
        roles = roles.copy()
        roles[0] = role
        return roles

    return change


def with_value(value):
    def change(logits):
        logits = logits.copy()
        logits[0, 5, 2] = value
        return logits

    return change


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("roles", only_role(1), r"model 0 in it to have non-members \(role 3\), got none among 120"),
        ("roles", only_role(3), r"to have members \(role 1\), got none"),
        ("roles", only_role(0), "to have members"),
        ("roles", lambda a: a.T, r"roles \(9, 120\) as .* got \(120, 9\); transpose it"),
        ("roles", lambda a: a[:, 1:], r"roles \(9, 120\) as .* got \(9, 119\); give each model's role"),
        ("roles", lambda a: a + 1, "roles among 0 .unused., .*got .*4"),
        ("labels", lambda a: a + 1, r"labels 0..4 in it, got 1..5; give each record the column of its class"),
        ("labels", lambda a: a + 0.5, "whole numbers in it, got fractions"),
        ("labels", lambda a: np.where(a == 0, np.nan, a), "whole numbers in it, got fractions"),
        ("labels", lambda a: np.array([f"c{v}" for v in a]), "labels .N,. of whole numbers in it, got <U2"),
        ("labels", lambda a: np.eye(CLASSES)[a], r"of shape \(120, 5\)"),
        ("labels", lambda a: a[1:], "expected labels of shape"),
        ("logits", lambda a: a[0], r"logits \(K, N, C\) of numbers in it, got float32 of shape \(120, 5\)"),
        ("logits", lambda a: a.astype(str), "of numbers in it, got <U"),
        ("logits", with_value(np.nan), "finite logits, got NaN or infinity for model 0 and record 5"),
        ("logits", with_value(-np.inf), "NaN or infinity for model 0 and record 5"),
        ("logits", lambda a: a.astype(np.float64) * 1e300, "NaN or infinity for model 0"),
        ("logits", lambda a: softmax(a, axis=-1), "from model 0, got probabilities: .* np.log"),
        ("logits", lambda a: softmax(a, axis=-1).astype(np.float16), "got probabilities"),
        ("logits", lambda a: (a.argmax(-1)[..., None] == np.arange(CLASSES)).astype(np.float32), "got probabilities"),
    ],
)  # fmt: skip
def test_degenerate_arrays_are_refused_with_the_remedy(name, change, message):
    logits, labels, roles = changed(name, change)
    with pytest.raises(InputError, match=message):
        signals_from_arrays(logits, labels, roles, "it")


def test_boolean_roles_mean_member_or_not():
    logits, labels, roles = arrays()
    same = signals_from_arrays(logits, labels, roles == 1, "it")
    np.testing.assert_array_equal(same.roles, roles)


def test_labels_that_are_whole_floats_are_taken():
    logits, labels, roles = arrays()
    assert signals_from_arrays(logits, labels.astype(float), roles, "it").labels.dtype == np.int64


def test_log_probabilities_give_the_scores_of_their_logits(tmp_path):
    """The softmax of log-probabilities is the softmax of the logits; that of probabilities is not, and is refused."""
    logits, labels, roles = arrays()
    scores = []
    for given in (logits, log_softmax(logits.astype(np.float64), axis=-1)):
        np.savez(tmp_path / "it.npz", logits=given, labels=labels, roles=roles)
        seen = read_signals(tmp_path / "it.npz")
        scores.append(seen.logit_confidence)
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)


@pytest.mark.parametrize("kept", [1, 3])
def test_few_members_are_audited_with_the_fpr_that_they_support(tmp_path, kept):
    logits, labels, roles = arrays()
    members = np.flatnonzero(roles[0] == 1)
    roles[0, members[kept:]] = 0
    np.savez(tmp_path / "it.npz", logits=logits, labels=labels, roles=roles)
    audit = audit_signals(tmp_path / "it.npz", {"rmia": Rmia()}, seed=0)
    assert int(audit.report["rmia"].member.sum()) == kept


# Probabilities, wherever they come from.


def test_signals_of_probabilities_are_refused_for_any_model():
    seen = planted.shared(planted.LEAK, pool=60, outside=300)
    logits = seen.logits.copy()
    logits[3] = softmax(logits[3], axis=-1)
    with pytest.raises(InputError, match="from model 3, got probabilities"):
        Signals(logits, seen.labels, seen.roles, seen.records, seen.layout, seen.provenance)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("decimals", [2, 3, 4])
@pytest.mark.parametrize("total", [1, 100])
def test_rounded_probabilities_and_percentages_are_refused(classes, decimals, total):
    shares = softmax(np.random.default_rng(0).normal(0, 4, (200, classes)), axis=1)
    outputs = (total * np.round(shares, decimals)).astype(np.float32)
    with pytest.raises(InputError, match=rf"probabilities: every record's outputs lie in \[0, {total}\]"):
        refuse_probabilities(outputs, "a model")


def test_logits_are_taken_whatever_their_rounding():
    logits = np.random.default_rng(0).normal(0, 1, (200, 10))
    for outputs in (np.round(logits, 1), np.abs(np.round(logits, 2)), np.abs(logits)):
        refuse_probabilities(outputs, "a model")


@pytest.mark.parametrize(
    "outputs", [np.zeros((5, 3)), np.full((5, 2), 0.25), np.array([[0.5, 0.5], [2.0, -1.0]]), np.empty((0, 3))]
)
def test_logits_that_only_resemble_probabilities_are_taken(outputs):
    refuse_probabilities(outputs, "a model")


@pytest.mark.parametrize("layer", [nn.Sigmoid(), nn.Softmax(1)])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_module_that_ends_in_a_sigmoid_or_softmax_is_known_by_its_last_operation(layer, classes):
    plain = nn.Sequential(nn.Linear(4, classes))
    refuse_squashed(returning_logits(plain, 2), torch.zeros(2, 4))
    refuse_squashed(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, classes)), torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"got one that ends in a s.*; return what goes into it"):
        refuse_squashed(returning_logits(nn.Sequential(nn.Linear(4, classes), layer), 2), torch.zeros(2, 4))


def test_outputs_of_a_sigmoid_are_refused_in_a_signal_file_and_logits_moved_by_one_are_not():
    logits = np.random.default_rng(0).normal(0, 3, (2, 100, 3))
    labels, roles = np.arange(100) % 3, np.arange(200).reshape(2, 100) % 2 == 0
    sigmoid = 1 / (1 + np.exp(-logits))
    with pytest.raises(InputError, match=r"expected logits from model 0 in arrays, got numbers in \[0, 1\] alone"):
        signals_from_arrays(sigmoid, labels, roles, "arrays")
    for outputs in (logits, sigmoid - 1, np.zeros_like(logits)):
        signals_from_arrays(outputs, labels, roles, "arrays")


def test_one_number_for_each_record_is_the_log_odds_of_class_1():
    odds = np.random.default_rng(0).normal(0, 3, (2, 100, 1))
    labels, roles = np.arange(100) % 2, np.arange(200).reshape(2, 100) % 2 == 0
    signals = signals_from_arrays(odds, labels, roles, "arrays")
    chance = softmax(signals.logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(chance[..., 1:], 1 / (1 + np.exp(-odds)), atol=1e-6)
    share = 1 / (1 + np.exp(-odds))
    with pytest.raises(
        InputError, match=r"numbers in \[0, 1\] alone.* log odds, give two columns, -1 and the log odds"
    ):
        signals_from_arrays(share, labels, roles, "arrays")
    signals_from_arrays(np.concatenate([np.full_like(share, -1), share - 1], -1), labels, roles, "arrays")


def test_a_model_that_ends_in_a_softmax_is_refused_before_any_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ends_in_softmax.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, classes):\n"
        "    first, last = nn.Linear(*input_shape, 8), nn.Linear(8, classes)\n"
        "    return nn.Sequential(first, nn.ReLU(), last, nn.Softmax(-1))\n"
    )
    config = parse_study(table(write_data(tmp_path), model={"kind": "ends_in_softmax:net"}, attacks=["confidence"]))
    begun = []

    class Heard(Silent):
        def begin(self, *arguments):
            begun.append(arguments)

    with pytest.raises(InputError, match="from the model, got probabilities"):
        list(run_study(config, Store(tmp_path / "store", lambda message: None), Heard(), config.data.load()))
    assert not begun
