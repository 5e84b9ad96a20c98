"""Training of ensembles: both backends against each other and against a hand-written plain PyTorch loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from networks import ADAM, DATA, IMAGES, SCORES, SEEDS, SGD, UNEVEN, ConvNet, both_backends, modules
from toy import ensemble_of, largest_difference, same_bytes, split_of
from wemem.data.batches import Group, plan_steps
from wemem.data.split import Role
from wemem.defenses import MemoryRegularizer, SlidingWindow, TrainingRecords, Undefended, make_defense
from wemem.models import FullyConnected, make_model
from wemem.training import FINETUNE, Ensemble, Recipe, accuracy, fit


def plain_loop(module, member, data, split, recipe, defense, scores):
    """What ``fit`` should do for one member, as a person would write it; without dropout and early stopping."""
    optimizers, curve, states = {}, [], []
    records = [TrainingRecords(split.records(k, Role.TRAIN), data.labels, s, SEEDS[k]) for k, s in enumerate(scores)]
    dev = split.records(member, Role.DEV)
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    for epoch in range(recipe.epochs):
        groups = [defense.plan(epoch, (Group(own.train),), own) for own in records]
        for step in plan_steps(groups, recipe.batch_size, SEEDS, epoch):
            rows = step.records[member][step.weights[member] > 0]
            if len(rows) == 0:
                continue
            decay = recipe.weight_decay if step.weight_decay is None else step.weight_decay
            if step.key not in optimizers:
                optimizers[step.key] = torch.optim.Adam(module.parameters(), recipe.learning_rate, weight_decay=decay)
            loss = nn.functional.cross_entropy(module(features[rows]), labels[rows])
            module.zero_grad()
            loss.backward()
            optimizers[step.key].step()
        with torch.no_grad():
            curve.append(accuracy(module(features[dev]).numpy(), data.labels[dev]))
        states.append({name: t.clone() for name, t in module.state_dict().items()})
    return curve, states[int(np.argmax(curve))]


@pytest.fixture(scope="module")
def trained():
    """An ensemble that both backends trained alike, with dropout and early stopping."""
    recipe = replace(ADAM, epochs=30, patience=3, learning_rate=5e-3)
    return fit(ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS, backend="sequential")


def test_a_learning_rate_of_zero_leaves_the_weights_as_they_are():
    ensemble = ensemble_of(DATA)
    fitted = fit(ensemble, DATA, split_of(DATA), replace(ADAM, learning_rate=0, epochs=1), seeds=SEEDS)
    assert all(torch.equal(t, ensemble.parameters[n]) for n, t in fitted.ensemble.parameters.items())


@pytest.mark.parametrize("defense", ["undefended", "rsw", "rmr", "swmr"])
def test_both_backends_train_the_same_models(defense):
    chosen = make_defense(defense, {} if defense in ("undefended", "rmr") else {"width": 0.5, "stride": 1})
    vmapped, sequential = both_backends(ensemble_of(DATA), DATA, split_of(DATA), SGD, defense=chosen, scores=SCORES)
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5
    assert vmapped.history == sequential.history
    assert (vmapped.choice.backend, sequential.choice.backend) == ("vmapped", "sequential")


def test_both_backends_agree_where_members_sit_steps_out():
    defense = MemoryRegularizer(threshold=0.5)
    vmapped, sequential = both_backends(ensemble_of(DATA), DATA, split_of(DATA), SGD, defense=defense, scores=UNEVEN)
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5


def test_both_backends_keep_batchnorm_statistics_for_each_member():
    start = Ensemble.from_modules(modules(ConvNet))
    vmapped, sequential = both_backends(start, IMAGES, split_of(IMAGES), SGD)
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5
    means = sequential.ensemble.buffers["norm.running_mean"]
    assert not torch.equal(means, start.buffers["norm.running_mean"])
    assert not torch.equal(means[0], means[1])
    assert set(sequential.ensemble.buffers["norm.num_batches_tracked"].tolist()) <= {4, 8, 12, 16}


def test_both_backends_keep_batchnorm_statistics_where_members_sit_steps_out():
    start, defense = Ensemble.from_modules(modules(ConvNet)), MemoryRegularizer(threshold=0.5)
    vmapped, sequential = both_backends(start, IMAGES, split_of(IMAGES), SGD, defense=defense, scores=UNEVEN)
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5


def test_both_backends_judge_members_by_their_own_dev_records():
    split = split_of(DATA)
    roles = split.roles.copy()
    roles[1, np.flatnonzero(roles[1] == Role.DEV)[7:]] = Role.UNUSED
    vmapped, sequential = both_backends(ensemble_of(DATA), DATA, replace(split, roles=roles), SGD)
    assert vmapped.history == sequential.history
    logits = vmapped.ensemble.logits(DATA.features)
    for k, history in enumerate(vmapped.history):
        dev = np.flatnonzero(roles[k] == Role.DEV)
        assert accuracy(logits[k, dev], DATA.labels[dev]) == pytest.approx(max(history.dev_accuracy))


@pytest.mark.parametrize(("defense", "scores"), [
    (Undefended(), SCORES), (MemoryRegularizer(threshold=0.5), UNEVEN), (SlidingWindow(0.5, 1), SCORES),
    (make_defense("swmr", {"width": 0.5, "stride": 1, "threshold": 0.5}), UNEVEN),
])  # fmt: skip
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_fit_is_a_plain_loop_with_one_adam_for_each_group(defense, scores, backend):
    ensemble, split = ensemble_of(DATA, dropout=0.0), split_of(DATA)
    fitted = fit(ensemble, DATA, split, ADAM, seeds=SEEDS, defense=defense, scores=scores, backend=backend)
    for k in range(3):
        curve, state = plain_loop(ensemble.module(k), k, DATA, split, ADAM, defense, scores)
        assert fitted.history[k].dev_accuracy == pytest.approx(curve)
        for name, weight in fitted.ensemble.state(k).items():
            torch.testing.assert_close(weight, state[name], rtol=0, atol=1e-6)


def test_the_best_checkpoint_by_dev_accuracy_is_kept(trained):
    split = split_of(DATA)
    logits = trained.ensemble.logits(DATA.features)
    for k, history in enumerate(trained.history):
        dev = split.records(k, Role.DEV)
        assert accuracy(logits[k, dev], DATA.labels[dev]) == pytest.approx(max(history.dev_accuracy))
        assert history.dev_accuracy[history.best_epoch] == max(history.dev_accuracy)


def test_the_last_checkpoint_is_that_of_its_epoch_whatever_the_dev_accuracy(trained):
    split = split_of(DATA)
    recipe = replace(ADAM, epochs=30, patience=3, learning_rate=5e-3, keep="last")
    last = fit(ensemble_of(DATA), DATA, split, recipe, seeds=SEEDS)
    logits = last.ensemble.logits(DATA.features)
    for k, (history, best) in enumerate(zip(last.history, trained.history, strict=True)):
        dev = split.records(k, Role.DEV)
        assert history.dev_accuracy == best.dev_accuracy
        assert history.best_epoch == len(history.dev_accuracy) - 1 > best.best_epoch
        assert accuracy(logits[k, dev], DATA.labels[dev]) == pytest.approx(history.dev_accuracy[-1])


def test_members_stop_by_themselves_after_their_patience(trained):
    lengths = [len(history.dev_accuracy) for history in trained.history]
    assert len(set(lengths)) > 1
    for history, length in zip(trained.history, lengths, strict=True):
        assert length == history.best_epoch + 1 + 3
        assert history.records_seen == 50 * length


def test_a_member_that_has_stopped_is_the_same_however_long_the_others_go_on(trained):
    recipe = replace(ADAM, epochs=30, patience=3, learning_rate=5e-3)
    vmapped = fit(ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS, backend="vmapped")
    assert [len(h.dev_accuracy) for h in vmapped.history] == [len(h.dev_accuracy) for h in trained.history]
    assert [h.best_epoch for h in vmapped.history] == [h.best_epoch for h in trained.history]
    assert largest_difference(vmapped.ensemble, trained.ensemble) < 1e-3  # Adam amplifies round-off


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_on_epoch_hears_how_many_still_train(backend):
    heard = []
    recipe = replace(ADAM, epochs=2)
    fit(
        ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS, backend=backend,
        on_epoch=lambda epoch, running: heard.append((epoch, running)),
    )  # fmt: skip
    assert heard == ([(0, 3), (1, 3)] if backend == "vmapped" else [(0, 3), (1, 3), (0, 2), (1, 2), (0, 1), (1, 1)])


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_the_same_seeds_give_the_same_bytes(backend):
    def run(seeds):
        return fit(ensemble_of(DATA), DATA, split_of(DATA), ADAM, seeds=seeds, backend=backend).ensemble

    assert same_bytes(run(SEEDS), run(SEEDS))
    assert not same_bytes(run(SEEDS), run([11, 12, 14]))


def test_a_member_alone_equals_the_member_in_company():
    ensemble, split = ensemble_of(DATA), split_of(DATA)
    company = fit(ensemble, DATA, split, ADAM, seeds=SEEDS, backend="sequential").ensemble
    alone = fit(ensemble.select([1]), DATA, split.select([1]), ADAM, seeds=SEEDS[1:2], backend="sequential").ensemble
    assert same_bytes(company.select([1]), alone)


def test_the_members_that_were_given_are_not_changed():
    ensemble = ensemble_of(DATA)
    before = {name: array.copy() for name, array in ensemble.arrays().items()}
    both_backends(ensemble, DATA, split_of(DATA), ADAM)
    assert all((before[name] == array).all() for name, array in ensemble.arrays().items())


def test_the_paper_s_recipes_are_the_defaults():
    assert Recipe() == Recipe(100, 5, 1e-3, 5e-4, 128, "adam")
    assert Recipe(epochs=21) == FINETUNE
    assert make_model("fc", {}) == FullyConnected(hidden=(256, 128), dropout=0.1)
