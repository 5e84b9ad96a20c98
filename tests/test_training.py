"""Training of ensembles: both backends against each other and against a hand-written plain PyTorch loop."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from toy import CLASSES, FEATURES, blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.data.batches import Group, plan_steps
from wemem.data.split import Role
from wemem.defenses import Defense, MemoryRegularizer, SlidingWindow, TrainingRecords, Undefended, make_defense
from wemem.errors import InputError
from wemem.models import CustomModel, FullyConnected, make_model
from wemem.training import FINETUNE, Ensemble, Recipe, accuracy, choose_backend, fit
from wemem.training.dropout import SeededDropout, replace_dropout

DATA = blobs()
IMAGES = blobs(shape=(1, 4, 4))
SEEDS = [11, 12, 13]
SGD = Recipe(epochs=4, patience=None, batch_size=16, learning_rate=0.05, optimizer="sgd")
ADAM = Recipe(epochs=4, patience=None, batch_size=16)
SCORES = [np.random.default_rng(k).random(len(DATA)) for k in range(3)]
#: Different numbers of risky records in each member, so that some sit out risky steps.
UNEVEN = [np.where(own < share, 0.9, 0.1) for own, share in zip(SCORES, (0, 0.2, 0.6), strict=True)]
UNKNOWN: Any = "rmsprop"


class ConvNet(nn.Module):
    """Convolution, BatchNorm, dropout, a linear classifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


class Moody(nn.Module):
    """A Python branch on a tensor's value: vmap cannot trace it."""

    def __init__(self, by_item=False):
        super().__init__()
        self.head, self.by_item = nn.Linear(FEATURES, CLASSES), by_item

    def forward(self, x):
        y = self.head(x)
        return -y if (y.sum().item() if self.by_item else y.sum()) > 1e9 else y


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(self.second(self.first(x).relu()).relu())


class OneDropoutTwice(nn.Module):
    """One dropout layer under two names, which is called three times."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
        self.drop = nn.Dropout(0.5)
        self.also_drop = self.drop
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(self.drop(self.also_drop(self.second(self.drop(self.first(x))))))


class Witness(nn.Module):
    """Notes which inputs its dropout keeps in every training step."""

    def __init__(self):
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        kept = self.drop(x)
        if self.training:
            KEPT.append((kept != 0).numpy())
        return self.head(kept)


KEPT: list[np.ndarray] = []


class Noisy(nn.Module):
    """Draws from PyTorch's global generator while training."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(x + torch.randn_like(x) if self.training else x)


@dataclass(frozen=True)
class Remember(Defense):
    """Plain training that notes how many members took part in every step."""

    @property
    def name(self):
        return "remember"

    def loss(self, batch):
        TAKING.append(len(batch.logits))
        return batch.mean(batch.cross_entropy())


TAKING: list[int] = []


class SubclassedStack(nn.Sequential):
    """Layers in a row, by a class that might do anything with them."""

    def forward(self, x):
        return -super().forward(x)


def stack(kind=nn.Sequential, dropout=0.3, **linear):
    """Layers in a row, two of which are one object."""
    relu = nn.ReLU()
    return kind(
        nn.Flatten(), nn.Linear(FEATURES, 9, **linear), relu, nn.Dropout(dropout), nn.Linear(9, 9, **linear), relu,
        nn.Dropout(dropout), nn.Linear(9, CLASSES, **linear),
    )  # fmt: skip


def tied_stack():
    built = stack()
    middle = nn.Linear(9, 9)
    middle.weight = built[4].weight
    return nn.Sequential(*built[:5], nn.ReLU(), middle, *built[5:])


def hooked_stack():
    built = stack()
    built[1].register_forward_hook(lambda module, given, output: -output)
    return built


def frozen_stack():
    built = stack()
    built[4].requires_grad_(False)
    return built


def modules(build, count=3):
    built = []
    for seed in range(count):
        torch.manual_seed(seed)
        built.append(build())
    return built


def both_backends(ensemble, data, split, recipe, **settings):
    return [fit(ensemble, data, split, recipe, seeds=SEEDS, backend=b, **settings) for b in ("vmapped", "sequential")]


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


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
@pytest.mark.parametrize("build", [ConvNet, Noisy])
def test_torch_s_global_generator_is_left_as_it_was(build, backend):
    data = IMAGES if build is ConvNet else DATA
    ensemble = Ensemble.from_modules(modules(build))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(ensemble, data, split_of(data), replace(ADAM, epochs=1), seeds=SEEDS, backend=backend)
    Ensemble.initialize(FullyConnected(), (FEATURES,), CLASSES, seeds=[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_a_model_that_draws_by_itself_is_reproducible_too(backend):
    ensemble = Ensemble.from_modules(modules(Noisy))

    def run(disturbance):
        torch.manual_seed(disturbance)
        return fit(ensemble, DATA, split_of(DATA), ADAM, seeds=SEEDS, backend=backend).ensemble

    assert same_bytes(run(1), run(2))


@pytest.mark.parametrize("by_item", [False, True])
def test_a_model_that_cannot_be_vmapped_falls_back_and_says_why(by_item):
    ensemble = Ensemble.from_modules(modules(lambda: Moody(by_item)))
    fitted = fit(ensemble, DATA, split_of(DATA), ADAM, seeds=SEEDS)
    assert fitted.choice.backend == "sequential"
    assert str(fitted.choice.reason).startswith("the model cannot be vmapped: ")
    assert ("item" if by_item else "data-dependent control flow") in str(fitted.choice.reason)
    with pytest.raises(InputError, match=r"the model cannot be vmapped: .*; use the sequential backend"):
        fit(ensemble, DATA, split_of(DATA), ADAM, seeds=SEEDS, backend="vmapped")


def test_the_rule_chooses_by_the_model_alone():
    example, images = torch.from_numpy(DATA.features[:2]), torch.from_numpy(IMAGES.features[:2])
    assert choose_backend(ensemble_of(DATA), example, CLASSES).backend == "vmapped"
    chosen = choose_backend(Ensemble.from_modules(modules(ConvNet)), images, CLASSES)
    assert chosen.backend == "sequential"
    assert str(chosen.reason).startswith("rule: convolutions")
    assert choose_backend(Ensemble.from_modules(modules(ConvNet)), images, CLASSES, "vmapped").backend == "vmapped"
    assert str(choose_backend(ensemble_of(DATA), example, CLASSES, "sequential").reason) == "requested"


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_frozen_parameters_stay_and_the_rest_trains(backend):
    built = modules(lambda: FullyConnected(hidden=(8, 8)).build((FEATURES,), CLASSES))
    for module in built:
        module[1].weight.requires_grad_(False)
    ensemble = Ensemble.from_modules(built)
    fitted = fit(ensemble, DATA, split_of(DATA), ADAM, seeds=SEEDS, backend=backend)
    for k, module in enumerate(built):
        state = fitted.ensemble.state(k)
        assert torch.equal(state["1.weight"], module[1].weight)
        assert not torch.equal(state["1.bias"], module[1].bias)
        assert not fitted.ensemble.module(k).get_parameter("1.weight").requires_grad


@pytest.mark.parametrize("build", [
    stack, frozen_stack, lambda: stack(SubclassedStack), lambda: stack(bias=False), tied_stack, hooked_stack,
    lambda: nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, FEATURES)), *stack()), lambda: nn.Sequential(stack()),
])  # fmt: skip
def test_layers_in_a_row_train_alike_in_both_backends(build):
    """Some are computed together without vmap, all others must not be."""
    start = Ensemble.from_modules(modules(build))
    vmapped, sequential = both_backends(start, DATA, split_of(DATA), SGD)
    assert vmapped.choice.backend == "vmapped"
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5
    assert largest_difference(start, sequential.ensemble) > 1e-2


def test_layers_in_a_row_take_records_of_more_than_one_dimension():
    def build():
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(20, CLASSES))

    data = blobs(shape=(4, 4))
    vmapped, sequential = both_backends(Ensemble.from_modules(modules(build)), data, split_of(data), SGD)
    assert vmapped.choice.backend == "vmapped"
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_tied_parameters_stay_tied(backend):
    ensemble = Ensemble.from_modules(modules(Tied))
    fitted = fit(ensemble, DATA, split_of(DATA), ADAM, seeds=SEEDS, backend=backend).ensemble
    state = fitted.state(1)
    assert torch.equal(state["first.weight"], state["second.weight"])
    assert not torch.equal(state["first.weight"], ensemble.state(1)["first.weight"])
    plain = Tied()
    plain.load_state_dict(state)
    with torch.no_grad():
        logits = plain(torch.from_numpy(DATA.features)).numpy()
    np.testing.assert_allclose(logits, fitted.logits(DATA.features)[1], atol=1e-6)


@pytest.mark.parametrize(("build", "data"), [
    (lambda: FullyConnected(hidden=(16, 8)).build((FEATURES,), CLASSES), DATA), (ConvNet, IMAGES),
])  # fmt: skip
def test_a_state_loads_into_the_plain_model_which_predicts_the_same(build, data):
    fitted = fit(Ensemble.from_modules(modules(build)), data, split_of(data), replace(ADAM, epochs=1), seeds=SEEDS)
    logits = fitted.ensemble.logits(data.features)
    for k in range(3):
        plain = build().eval()
        plain.load_state_dict(fitted.ensemble.state(k))
        with torch.no_grad():
            assert np.array_equal(plain(torch.from_numpy(data.features)).numpy(), logits[k])


def test_arrays_restore_an_ensemble_to_the_byte():
    ensemble = fit(ensemble_of(DATA), DATA, split_of(DATA), replace(ADAM, epochs=1), seeds=SEEDS).ensemble
    masked = replace(ensemble, masks={"1.weight": ensemble.parameters["1.weight"] > 0})
    assert same_bytes(ensemble_of(DATA).with_arrays(masked.arrays()), masked)
    assert same_bytes(Ensemble.concatenate([masked.select([0]), masked.select([1, 2])]), masked)


def test_logits_do_not_depend_on_the_batch_size():
    ensemble = ensemble_of(DATA)
    np.testing.assert_allclose(ensemble.logits(DATA.features, 7), ensemble.logits(DATA.features), atol=1e-6)


def test_members_sit_out_the_steps_in_which_they_have_no_records():
    TAKING.clear()
    split = split_of(DATA)
    roles = split.roles.copy()
    roles[0, np.flatnonzero(roles[0] == Role.TRAIN)[20:]] = Role.UNUSED
    fitted = fit(
        ensemble_of(DATA), DATA, replace(split, roles=roles), replace(ADAM, epochs=1), seeds=SEEDS, backend="vmapped",
        defense=Remember(),
    )  # fmt: skip
    assert sorted(TAKING) == [2, 2, 3, 3]
    assert [h.records_seen for h in fitted.history] == [20, 50, 50]


def masks(layer, keys, shape=(40, 50), call=0):
    """What ``layer`` keeps for each key, as 0 and 1."""
    drawn = []
    for key in keys:
        layer.key, layer.calls = torch.tensor(key, dtype=torch.int32), call
        drawn.append((layer(torch.ones(shape)) > 0).flatten().numpy().astype(int))
    return np.array(drawn)


def test_no_dropout_where_it_is_off():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert SeededDropout(0.0, 0).train()(x) is x
    assert SeededDropout(0.5, 0).eval()(x) is x


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate(p):
    dropped = 1 - masks(SeededDropout(p, 0), range(50))
    low, high = binom.interval(0.9999, dropped.size, p)
    assert low <= dropped.sum() <= high
    # every position by itself, and every mask by itself: as spread as a binomial
    for axis in (0, 1):
        n = dropped.shape[axis]
        variance = dropped.sum(axis).var() / (n * p * (1 - p))
        assert variance == pytest.approx(1, abs=4 * np.sqrt(2 / dropped.shape[1 - axis]) + 0.05)


def test_dropout_preserves_the_expectation():
    layer = SeededDropout(0.3, 0)
    layer.key = torch.tensor(1, dtype=torch.int32)
    kept = layer(torch.ones(1000, 100))
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    assert kept.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]


@pytest.mark.parametrize("other", ["the next step", "another layer", "another member", "a second call"])
def test_dropout_masks_are_independent(other):
    first, layer = SeededDropout(0.5, 0), SeededDropout(0.5, 1 if other == "another layer" else 0)
    keys = np.random.default_rng(0).integers(0, 2**31, 40)
    one = masks(first, keys)
    change = {"the next step": 0x9E3779B9, "another member": 1}.get(other, 0)
    two = masks(layer, (keys + change) & 0x7FFFFFFF, call=int(other == "a second call"))
    table = np.bincount((2 * one + two).ravel(), minlength=4)
    expected = one.size / 4
    assert ((table - expected) ** 2 / expected).sum() < 21.1  # chi-square with 3 degrees of freedom, 99.99 %


def test_neighbours_in_a_mask_are_independent():
    drawn = masks(SeededDropout(0.5, 0), range(20), shape=(64, 64)).reshape(20, 64, 64)
    for shift in ((0, 1), (1, 0), (0, 2), (0, 16), (16, 0), (0, 32)):
        agree = (drawn == np.roll(drawn, shift, axis=(1, 2))).mean()
        assert agree == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(drawn.size))


def test_corners_of_a_rectangle_in_a_mask_are_independent():
    """What is hashed along rows and along units, and only then together, must not cancel out."""
    signs = 1 - 2 * masks(SeededDropout(0.5, 0), range(20), shape=(64, 64)).reshape(20, 64, 64)
    for rows in (1, 3, 16):
        for units in (1, 5, 32):
            along = signs * np.roll(signs, rows, axis=1)
            corners = (along * np.roll(along, units, axis=2)).mean()
            assert corners == pytest.approx(0, abs=4 * np.sqrt(4 / signs.size))


def test_every_dropout_layer_is_replaced_wherever_it_stands():
    module = replace_dropout(nn.Sequential(nn.Linear(2, 2), OneDropoutTwice(), nn.Dropout(0.3)))
    kinds = [type(m) for _, m in module.named_modules(remove_duplicate=False)]
    assert nn.Dropout not in kinds
    assert kinds.count(SeededDropout) == 3
    layers = [m.layer for m in module.modules() if isinstance(m, SeededDropout)]
    assert len(set(layers)) == len(layers)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.drop(x))


@pytest.mark.parametrize("build", [Twice, lambda: nn.Sequential(*[nn.Dropout(0.5)] * 2)])
def test_a_dropout_layer_that_is_called_twice_draws_two_masks_in_every_pass(build):
    module, x = replace_dropout(build()).train(), torch.ones(400, 50)
    first = module(x)
    assert (first > 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(module(x), first)


def test_both_backends_draw_the_same_masks_where_a_layer_is_called_twice():
    start = Ensemble.from_modules(modules(OneDropoutTwice))
    vmapped, sequential = both_backends(start, DATA, split_of(DATA), SGD)
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5


def test_every_member_drops_anew_in_every_step():
    ensemble, recipe = Ensemble.from_modules(modules(Witness)), replace(SGD, epochs=2)
    KEPT.clear()
    fit(ensemble, DATA, split_of(DATA), recipe, seeds=SEEDS, backend="sequential")
    full = [kept for kept in KEPT if len(kept) == 16]
    assert len(full) == 3 * 2 * 3
    for i, one in enumerate(full):
        assert all(0.25 < (one == other).mean() < 0.75 for other in full[:i])
    first = [kept.copy() for kept in KEPT]
    KEPT.clear()
    fit(ensemble, DATA, split_of(DATA), recipe, seeds=SEEDS, backend="sequential")
    assert all(np.array_equal(one, again) for one, again in zip(first, KEPT, strict=True))


def test_dropout_changes_what_is_trained():
    without, with_dropout = (
        fit(ensemble_of(DATA, dropout=p), DATA, split_of(DATA), SGD, seeds=SEEDS).ensemble for p in (0.0, 0.3)
    )
    assert not torch.allclose(without.parameters["1.weight"], with_dropout.parameters["1.weight"], atol=1e-3)


def test_the_paper_s_recipes_are_the_defaults():
    assert Recipe() == Recipe(100, 5, 1e-3, 5e-4, 128, "adam")
    assert Recipe(epochs=21) == FINETUNE
    assert make_model("fc", {}) == FullyConnected(hidden=(256, 128), dropout=0.1)


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 1e25), ("sgd", 1e9), ("sgd", 1e30)])
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_training_that_diverges_is_refused(optimizer, rate, backend):
    recipe = replace(ADAM, optimizer=optimizer, learning_rate=rate)
    with pytest.raises(InputError, match=r"training diverged in epoch \d: .*; lower the learning rate"):
        fit(ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS, backend=backend)


def test_a_last_step_that_diverges_is_refused():
    recipe = replace(SGD, epochs=1, batch_size=50, learning_rate=1e38)
    with pytest.raises(InputError, match="training diverged in epoch 0: the output is not finite"):
        fit(ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS)


def test_models_of_different_architecture_are_refused():
    def fc(*hidden):
        return FullyConnected(hidden=hidden).build((FEATURES,), CLASSES)

    with pytest.raises(InputError, match=r"all models to be built alike, got another '1\.weight' in model 2"):
        Ensemble.from_modules([fc(8), fc(8), fc(9)])
    with pytest.raises(InputError, match=r"all models to be built alike, got another '7\.weight' in model 1"):
        Ensemble.from_modules([fc(8), fc(8, CLASSES)])
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(InputError, match=r"got another '1\.running_mean' in model 1"):
        Ensemble.from_modules([plain, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: fit(ensemble_of(DATA), DATA, split_of(DATA), ADAM, seeds=[1, 2]), "for 3 models, got 3 and 2"),
    (lambda: fit(ensemble_of(DATA), DATA, split_of(DATA, members=2), ADAM, seeds=SEEDS), "for 3 models, got 2 and 3"),
    (lambda: fit(ensemble_of(DATA), DATA, split_of(blobs(120)), ADAM, seeds=SEEDS), "set's 90 records, got one of 120"),
    (lambda: fit(ensemble_of(IMAGES), DATA, split_of(DATA), ADAM, seeds=SEEDS),
     r"the model fails on float32 input of shape \(2, 6\): .*mat1 and mat2 shapes cannot be .*; check its input size"),
    (lambda: fit(Ensemble.from_modules(modules(ConvNet)), DATA, split_of(DATA), ADAM, seeds=SEEDS), "fails on"),
    (lambda: fit(ensemble_of(replace(DATA, classes=4)), DATA, split_of(DATA), ADAM, seeds=SEEDS),
     r"to map \(2, 6\) to logits \(2, 3\), got \(2, 4\); give it one output for each class"),
    (lambda: fit(Ensemble.from_modules([nn.LSTM(FEATURES, CLASSES)] * 3), DATA, split_of(DATA), ADAM, seeds=SEEDS),
     r"to logits \(2, 3\), got tuple of 2 entries;"),
    (lambda: fit(ensemble_of(DATA), DATA, split_of(DATA), ADAM, seeds=SEEDS, backend="gpu"), "backend must be"),
    (lambda: Ensemble.from_modules([nn.ReLU()]), "a model with trainable parameters, got none; unfreeze some"),
    (lambda: Recipe(epochs=0), "epochs must be at least 1, got 0"),
    (lambda: Recipe(patience=0), "patience must be at least 1, got 0"),
    (lambda: Recipe(learning_rate=float("nan")), "learning_rate must be at least 0, got nan"),
    (lambda: Recipe(optimizer=UNKNOWN), "optimizer must be adam or sgd, got 'rmsprop'"),
    (lambda: FullyConnected(hidden=()), "hidden must be one or more positive widths"),
    (lambda: FullyConnected(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0"),
    (lambda: make_model("cnn", {}), "expected model kind fc, .* or package.module:factory, got 'cnn'"),
    (lambda: make_model("fc", {"hiden": [8]}), "got 'hiden'; did you mean 'hidden'"),
    (lambda: CustomModel("math:pi").build((2,), 2), "expected 'math:pi' to be a function, got 3.14"),
    (lambda: CustomModel("math:floor").build((2,), 2), r"math:floor\(input_shape, classes, \*\*arguments\) to"),
    (lambda: CustomModel("builtins:divmod").build((2,), 2), r"divmod\(input_shape, classes, \*\*arguments\) to work"),
    (lambda: CustomModel("operator:contains").build((2,), 2), "to return a torch.nn.Module, got bool"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def with_batch_norm(members):
    return Ensemble.from_modules([
        nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES)) for _ in range(members)
    ])  # fmt: skip


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_one_risky_record_under_batch_norm_trains(backend):
    scores = [np.where(np.arange(len(DATA)) == split_of(DATA).records(k, Role.TRAIN)[0], 1.0, 0.0) for k in range(3)]
    defense = MemoryRegularizer(threshold=0.5, decay=0.1)
    fitted = fit(
        with_batch_norm(3), DATA, split_of(DATA), ADAM, seeds=SEEDS, defense=defense, scores=scores, backend=backend
    )  # fmt: skip
    assert [history.records_seen for history in fitted.history] == [50 * ADAM.epochs] * 3


def test_steps_on_one_record_under_batch_norm_are_refused_before_the_first():
    with pytest.raises(InputError, match=r"expected at least 2 records for each step .*, got batch_size = 1"):
        fit(with_batch_norm(3), DATA, split_of(DATA), replace(ADAM, batch_size=1), seeds=SEEDS)
