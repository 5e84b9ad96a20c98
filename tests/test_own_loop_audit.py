"""Audits by functions of a user's own defended loop: adaptive for that very loop, and for nothing else."""

import copy
import functools
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import wemem
from wemem.blocks import RecordModel
from wemem.cli.commands import app

RNG = np.random.default_rng(0)
Y = np.arange(320) % 2
X = (RNG.normal(size=(320, 6)) + Y[:, None]).astype(np.float32)
MEMBERS = np.sort(RNG.permutation(320)[:100])
SETTINGS = {"split": {"shadows": 2, "references": 4}}


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def scores_of(labels):
    """Memorization scores by a training of one step, which is enough for a test."""

    def train_on(records, seed):
        logits = np.random.default_rng(seed).normal(size=(len(labels), 2)).astype(np.float32)
        return lambda numbers: logits[numbers]

    return wemem.memorization_scores(train_on, labels, models=16).score


def loop(
    features, labels, seed, *, defense="undefended", rounds=2, epochs=2, patience=None, scores=None, lr=1e-2,
    batches=99, leave=99, stop=99, steps=True, passes=1,
):  # fmt: skip
    """The user's loop; its options are accidents."""
    torch.manual_seed(seed % 2**31)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=5e-4)
    loader = DataLoader(TensorDataset(torch.tensor(features), torch.tensor(labels)), batch_size=50)
    engine = wemem.PruningEngine(defense, sparsity=0.5, rounds=rounds)
    model, optimizer, planned = engine.prepare(model, optimizer, loader, scores=scores)
    for current in engine.rounds():
        if current.index == stop:
            break
        for epoch in engine.epochs(epochs, patience):
            if epoch == leave:
                break
            for i, (x, y) in enumerate(chain.from_iterable(planned for _ in range(passes))):
                if i == batches:
                    break
                engine.loss(model(x), y).backward()
                if steps:
                    optimizer.step()
                optimizer.zero_grad()
    return engine, model


def trained(features, labels, seed, **options):
    return loop(features, labels, seed, **options)[1]


def audited(model, train, attacks="confidence", **given):
    return wemem.audit(
        model, None if "labels" in given else (X, Y), MEMBERS, train=train, attacks=attacks, settings=SETTINGS,
        progress=False, **given,
    )  # fmt: skip


def outcome(result):
    """Whether every attack is adaptive, and the note on that."""
    (run,) = result.content["runs"]
    adaptive = {audit["adaptive"] for audit in run["attacks"].values()} | {run["certificate"]["adaptive"]}
    assert len(adaptive) == 1
    (note,) = [n for n in result.content["notes"] if n["code"] in ("loops_equal", "loops_unlike", "outputs_alone")]
    return adaptive.pop(), note


@pytest.fixture(scope="module")
def victim():
    return loop(X[MEMBERS], Y[MEMBERS], 1)


@pytest.fixture(scope="module")
def folder(victim, tmp_path_factory):
    place = tmp_path_factory.mktemp("victim") / "pruned"
    victim[0].save(place)
    return place


def test_the_loop_that_made_the_model_is_adaptive_for_every_attack(victim):
    adaptive, note = outcome(audited(victim[1], trained, attacks=["confidence", "lira", "rmia"]))
    assert (adaptive, note) == (True, {"code": "loops_equal", "models": 6})


def test_the_folder_of_an_engine_certifies_its_model_in_another_process(folder, monkeypatch):
    monkeypatch.setattr("wemem.study.loops.finished_loop", lambda module: None)  # as a new process would know none
    assert outcome(audited(folder, trained, architecture=network()))[0]
    own = wemem.load_pruned(network(), folder)
    assert outcome(audited(own, trained, file=folder))[0]
    assert outcome(audited(own, trained))[1]["reason"] == "no_certificate"


def test_functions_of_record_numbers_are_adaptive_by_the_module_that_they_read(victim):
    data = TensorDataset(torch.tensor(X), torch.tensor(Y))

    def train(records, seed):
        return RecordModel(trained(X[records], Y[records], seed), data, classes=2)

    assert outcome(audited(RecordModel(victim[1], data, classes=2), train, labels=Y))[0]
    assert outcome(audited(lambda records: RecordModel(victim[1], data, 2)(records), train, labels=Y))[1] == {
        "code": "loops_unlike", "model": "the audited model", "reason": "weights_unseen",
    }  # fmt: skip


def test_stored_models_are_adaptive_again_and_only_for_their_own_loop(victim, tmp_path):
    first = audited(victim[1], trained, store=tmp_path)
    again = audited(victim[1], trained, store=tmp_path)
    assert outcome(first) == outcome(again)
    other = trained(X[MEMBERS], Y[MEMBERS], 2, epochs=3)
    assert outcome(audited(other, trained, store=tmp_path))[1]["part"] == "rounds"


def scored(features, labels, seed):
    return trained(features, labels, seed, defense="swmr", scores=scores_of(labels))


def test_a_defense_that_reads_scores_is_adaptive_if_every_call_scores_its_own_records(tmp_path):
    model = scored(X[MEMBERS], Y[MEMBERS], 1)
    assert outcome(audited(model, scored))[0]
    assert outcome(audited(model, functools.partial(trained, defense="swmr", scores=RNG.random(100))))[1] == {
        "code": "loops_unlike", "model": "shadow model 1", "reason": "scored_otherwise", "part": "scores",
    }  # fmt: skip
    unknown = trained(X[MEMBERS], Y[MEMBERS], 1, defense="swmr", scores=RNG.random(100))
    assert outcome(audited(unknown, scored))[1]["reason"] == "scored_otherwise"
    scores = scores_of(Y[MEMBERS])  # those of the audited model, for every other
    borrowed = functools.partial(trained, defense="swmr", scores=scores)
    assert outcome(audited(borrowed(X[MEMBERS], Y[MEMBERS], 1), borrowed))[1]["reason"] == "scored_otherwise"


def fixed(features, labels, seed):
    """The records of the audited model, whatever the call gives."""
    return trained(X[MEMBERS], Y[MEMBERS], seed)


def twice(features, labels, seed):
    trained(features, labels, seed)
    return trained(features, labels, seed)


def goes_on(features, labels, seed):
    model = trained(features, labels, seed)
    with torch.no_grad():
        model[0].bias += 1e-4
    return model


CACHED: dict[str, nn.Module] = {}


def cached(features, labels, seed):
    if "model" not in CACHED:
        CACHED["model"] = trained(features, labels, seed)
    return CACHED["model"]


def average(features, labels, seed):
    model = trained(features, labels, seed)
    other = copy.deepcopy(model)
    nn.init.normal_(other[2].bias)
    return torch.optim.swa_utils.AveragedModel(other)


def all_seeds_alike(features, labels, seed):
    return trained(X[:100], Y[:100], 3)


def distilled(features, labels, seed, **settings):
    """The loop under out-of-sample distillation, whose targets are computed by the defense with these settings."""
    defense = wemem.make_defense("oosd", {"views": 2})
    own = wemem.make_defense("oosd", {"views": 2, **settings})
    targets = wemem.out_of_sample_targets(None, labels, features, defense=own, seed=seed)
    torch.manual_seed(seed % 2**31)
    model = network()
    data = targets.viewed(TensorDataset(torch.tensor(features), torch.tensor(labels)))
    engine = wemem.PruningEngine(defense, sparsity=0.5, rounds=1, untrained=True)
    model, optimizer, planned = engine.prepare(
        model, torch.optim.Adam(model.parameters()), DataLoader(data, batch_size=50), targets=targets.log_probabilities
    )
    for _ in chain.from_iterable(engine.epochs(2) for _ in engine.rounds()):
        for x, y in planned:
            engine.loss(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model


def test_a_loop_with_linear_teachers_is_adaptive_if_all_calls_compute_their_targets_alike():
    model = distilled(X[MEMBERS], Y[MEMBERS], 1)
    assert outcome(audited(model, distilled))[0]
    note = outcome(audited(model, functools.partial(distilled, components=1)))[1]
    assert (note["reason"], note["part"]) == ("other_recipe", "targets")


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (functools.partial(trained, defense="label_smoothing"), "other_recipe"),
        (functools.partial(trained, epochs=1), "other_recipe"),
        (functools.partial(trained, lr=1e-4), "other_recipe"),
        (functools.partial(trained, stop=1), "loops_in_call"),
        (functools.partial(trained, leave=1), "incomplete"),
        (functools.partial(trained, batches=1), "incomplete"),
        (functools.partial(trained, steps=False), "incomplete"),
        (functools.partial(trained, passes=2), "incomplete"),
        (twice, "loops_in_call"),
        (lambda features, labels, seed: network(), "loops_in_call"),
        (goes_on, "other_weights"),
        (average, "other_weights"),
        (lambda features, labels, seed: (trained(features, labels, seed), network())[1], "other_weights"),
        (lambda features, labels, seed: trained(features, labels, seed).__call__, "weights_unseen"),
        (lambda features, labels, seed: trained(features[:50], labels[:50], seed), "other_recipe"),
        (fixed, "same_as_another"),
        (cached, "loops_in_call"),
        (all_seeds_alike, "same_as_another"),
        (lambda features, labels, seed: trained(X[:150], Y[:150], seed), "more_records"),
    ],
)  # fmt: skip
def test_an_accident_is_never_adaptive_and_its_reason_stands_in_the_results(victim, train, reason):
    def wrapped(features, labels, seed):
        model = train(features, labels, seed)
        return model if isinstance(model, nn.Module) else lambda x: model(torch.tensor(x)).detach().numpy()

    result = audited(victim[1], wrapped, attacks=["lira"])
    adaptive, note = outcome(result)
    assert (adaptive, note["code"], note["reason"]) == (False, "loops_unlike", reason)


def test_an_audited_model_that_changed_after_its_loop_is_not_adaptive(victim, folder):
    changed = copy.deepcopy(victim[1])
    with torch.no_grad():
        changed[0].weight.mul_(1.01)
    assert outcome(audited(changed, trained))[1]["reason"] == "no_certificate"
    assert outcome(audited(changed, trained, file=folder))[1]["reason"] == "no_certificate"


def test_a_model_saved_after_further_training_or_in_mid_loop_has_no_certificate(tmp_path):
    engine, model = loop(X[MEMBERS], Y[MEMBERS], 1)
    with torch.no_grad():
        model[2].bias.add_(1)
    engine.save(tmp_path / "changed")
    engine, _ = loop(X[MEMBERS], Y[MEMBERS], 1, stop=1)
    engine.save(tmp_path / "early")
    for name in ("changed", "early"):
        assert outcome(audited(tmp_path / name, trained, architecture=network()))[1]["reason"] == "no_certificate"


def test_one_model_of_the_adversary_is_too_few(victim):
    result = wemem.audit(
        victim[1], (X, Y), MEMBERS, train=trained, attacks="confidence", settings={"split": {"shadows": 1}},
        progress=False,
    )  # fmt: skip
    assert outcome(result)[1]["reason"] == "too_few"


def test_an_edited_certificate_is_none(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("wemem.study.loops.finished_loop", lambda module: None)
    for file in folder.iterdir():
        text = file.read_bytes().replace(b'"new weights": false', b'"new weights": true')
        (tmp_path / file.name).write_bytes(text)
    assert outcome(audited(tmp_path, trained, architecture=network()))[1]["reason"] == "no_certificate"


def test_the_command_audits_a_folder_by_the_loop_that_made_it(folder, tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    np.savez(tmp_path / "members.npz", members=MEMBERS)
    (tmp_path / "mine.py").write_text(
        "from test_own_loop_audit import network as net, trained as train\ndef network(*_): return net()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    result = CliRunner().invoke(
        app,
        ["audit", "--weights", str(folder), "--model", "mine:network", "--train", "mine:train", "--data", "data.npz",
         "--members", "members.npz", "--attacks", "confidence", "--set", "split.shadows=2", "--out", "out"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "The audit is adaptive: 2 models were trained by the loop" in " ".join(result.output.split())
