"""Training of models that draw, share, freeze or hook: both backends, and the state that comes back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from networks import (
    ADAM,
    DATA,
    IMAGES,
    SEEDS,
    SGD,
    TAKING,
    ConvNet,
    Moody,
    Noisy,
    Remember,
    SubclassedStack,
    Tied,
    both_backends,
    frozen_stack,
    hooked_stack,
    modules,
    stack,
    tied_stack,
)
from toy import CLASSES, FEATURES, blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.models import FullyConnected
from wemem.training import Ensemble, choose_backend, fit


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
