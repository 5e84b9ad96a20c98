"""DP-SGD against plain training and against a loop over single records."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from networks import DATA, SEEDS, UNEVEN, ConvNet, Moody, OneDropoutTwice, Remember, both_backends, modules
from toy import CLASSES, FEATURES, blobs, ensemble_of, largest_difference, same_bytes, split_of, uneven_split
from wemem.data.batches import Group, plan_steps
from wemem.data.split import Role
from wemem.defenses import DPSGD, Clipping, Defense, MemoryRegularizer, chain, make_defense
from wemem.defenses.dp_sgd import LEAST_NOISE
from wemem.errors import InputError
from wemem.randomness import derive_seed
from wemem.results.privacy import account
from wemem.training import Ensemble, Recipe, fit
from wemem.training.ghost_norms import clipped_sums, has_closed_form
from wemem.training.per_sample import PerSample, RecordGradients, clipped

SGD = Recipe(epochs=2, patience=None, batch_size=16, learning_rate=0.05, optimizer="sgd")
EVERYTHING = DPSGD(clip=1e9, noise=0.0)
BACKENDS = pytest.mark.parametrize("backend", ["vmapped", "sequential"])


@dataclass(frozen=True)
class OnlyClips(Defense):
    """Another defense that bounds what a record does."""

    @property
    def name(self):
        return "only_clips"

    @property
    def capabilities(self):
        return (Clipping(1.0, 0.0),)


@pytest.fixture(params=["closed form", "each record"])
def way(request, monkeypatch):
    """Both ways to the clipped sum; the second is what models without a closed form get anyway."""
    if request.param == "each record":
        monkeypatch.setattr("wemem.training.per_sample.has_closed_form", lambda *_: False)
    return request.param


@pytest.fixture
def seen(monkeypatch):
    """The gradients of single records, as they are made, in portions."""
    portions: list[RecordGradients] = []

    def noting(records, clipping):
        portions.append(records)
        return clipped(records, clipping)

    monkeypatch.setattr("wemem.training.per_sample.has_closed_form", lambda *_: False)
    monkeypatch.setattr("wemem.training.per_sample.clipped", noting)
    return portions


class GroupNormNet(nn.Module):
    """Convolution and GroupNorm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().flatten(1))


def pruned_ensemble(dropout=0.0):
    """Half of the first layer's weights pruned."""
    ensemble = ensemble_of(DATA, dropout=dropout)
    weight = ensemble.parameters["1.weight"]
    mask = torch.arange(weight[0].numel()).view(weight[0].shape).remainder(2).bool().expand_as(weight)
    return replace(ensemble, parameters={**ensemble.parameters, "1.weight": weight * mask}, masks={"1.weight": mask})


def one_by_one(module, member, split, recipe, clip, masks):
    """DP-SGD without noise for one member of three, as a person would write it; its weights after the last epoch."""
    optimizer = torch.optim.SGD(module.parameters(), recipe.learning_rate, 0.9, weight_decay=recipe.weight_decay)
    features, labels = torch.from_numpy(DATA.features), torch.from_numpy(DATA.labels)
    groups = [(Group(split.records(k, Role.TRAIN)),) for k in range(3)]
    for step in plan_steps(groups, recipe.batch_size, SEEDS, 0):
        rows = step.records[member][step.weights[member] > 0]
        if len(rows) == 0:
            continue
        total = [torch.zeros_like(p) for p in module.parameters()]
        for i in rows:
            module.zero_grad()
            nn.functional.cross_entropy(module(features[i : i + 1]), labels[i : i + 1]).backward()
            own = [p.grad * masks.get(n, torch.ones(())) for n, p in module.named_parameters()]
            length = torch.cat([g.flatten() for g in own]).norm()
            total = [t + g / max(1.0, float(length) / clip) for t, g in zip(total, own, strict=True)]
        for p, t in zip(module.parameters(), total, strict=True):
            p.grad = t / len(rows)
        optimizer.step()
        with torch.no_grad():
            for n, p in module.named_parameters():
                p *= masks.get(n, torch.ones(()))
    return module.state_dict()


@BACKENDS
@pytest.mark.parametrize("build", [
    lambda: ensemble_of(DATA, dropout=0.0), lambda: ensemble_of(DATA, dropout=0.4), pruned_ensemble,
    lambda: Ensemble.from_modules(modules(OneDropoutTwice)),
])  # fmt: skip
def test_without_noise_and_with_a_wide_clip_it_is_plain_training_dropout_included(build, backend, way):
    ensemble, split = build(), uneven_split(DATA)
    plain = fit(ensemble, DATA, split, SGD, seeds=SEEDS, backend=backend)
    private = fit(ensemble, DATA, split, SGD, seeds=SEEDS, backend=backend, defense=EVERYTHING)
    assert largest_difference(plain.ensemble, private.ensemble) < 1e-6
    assert plain.history == private.history


@BACKENDS
def test_it_is_plain_training_of_a_convolution_too(backend):
    data = blobs(shape=(1, 4, 4))
    ensemble, split = Ensemble.from_modules(modules(GroupNormNet)), split_of(data)
    plain = fit(ensemble, data, split, SGD, seeds=SEEDS, backend=backend)
    private = fit(ensemble, data, split, SGD, seeds=SEEDS, backend=backend, defense=EVERYTHING)
    assert largest_difference(plain.ensemble, private.ensemble) < 1e-6


@BACKENDS
@pytest.mark.parametrize("clip", [0.3, 1.0])
def test_clipping_equals_a_loop_over_single_records(clip, backend, way):
    ensemble, split, recipe = pruned_ensemble(), uneven_split(DATA), replace(SGD, epochs=1)
    defense = DPSGD(clip=clip, noise=0.0)
    fitted = fit(ensemble, DATA, split, recipe, seeds=SEEDS, backend=backend, defense=defense)
    for k in range(3):
        masks = {name: mask[k] for name, mask in ensemble.masks.items()}
        expected = one_by_one(ensemble.module(k), k, split, recipe, clip, masks)
        for name, weight in fitted.ensemble.state(k).items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)


@BACKENDS
def test_padding_has_no_gradient_and_pruned_weights_have_gradient_zero(backend, seen):
    fit(pruned_ensemble(), DATA, uneven_split(DATA), replace(SGD, epochs=1), seeds=SEEDS, backend=backend,
        defense=OnlyClips())  # fmt: skip
    # members of 50, 33 (whose last record joins its neighbour's batch) and 20 records
    assert sorted(len(some["1.weight"]) for some in seen) == sorted([16, 16, 16, 2, 16, 17, 16, 4])
    pruned = ~pruned_ensemble().masks["1.weight"][0]
    assert all((some["1.weight"][:, pruned] == 0).all() for some in seen)
    assert any((some["1.weight"][:, ~pruned] != 0).any() for some in seen)


def test_portions_of_a_batch_give_the_gradient_of_the_whole(monkeypatch, seen):
    def run():
        return fit(ensemble_of(DATA), DATA, split_of(DATA), SGD, seeds=SEEDS, defense=DPSGD(0.5, 0.1)).ensemble

    whole = run()
    seen.clear()
    monkeypatch.setattr("wemem.training.per_sample.PORTION", 5 * sum(t[0].numel() for t in whole.parameters.values()))
    cut = run()
    assert {len(some["1.bias"]) for some in seen} == {5, 1, 2}
    assert largest_difference(whole, cut) < 1e-5


def test_both_backends_train_the_same_models_noise_included(way):
    defense = DPSGD(clip=0.5, noise=0.3)
    vmapped, sequential = both_backends(ensemble_of(DATA), DATA, uneven_split(DATA), SGD, defense=defense)
    assert (vmapped.choice.backend, sequential.choice.backend) == ("vmapped", "sequential")
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5


def test_both_backends_agree_in_a_chain_where_members_sit_steps_out(way):
    defense = chain(DPSGD(clip=0.5, noise=0.3), MemoryRegularizer(threshold=0.5))
    vmapped, sequential = both_backends(ensemble_of(DATA), DATA, split_of(DATA), SGD, defense=defense, scores=UNEVEN)
    assert largest_difference(vmapped.ensemble, sequential.ensemble) < 1e-5


def test_a_model_that_cannot_be_vmapped_is_trained_too():
    ensemble = Ensemble.from_modules(modules(lambda: Moody(by_item=True)))
    fitted = fit(ensemble, DATA, split_of(DATA), SGD, seeds=SEEDS, defense=EVERYTHING)
    plain = fit(ensemble, DATA, split_of(DATA), SGD, seeds=SEEDS)
    assert fitted.choice.backend == "sequential"
    assert largest_difference(fitted.ensemble, plain.ensemble) < 1e-6


def test_clipping_bounds_one_record_s_part_by_the_norm_over_all_parameters():
    gradients = {"a": torch.tensor([[3.0], [0.3], [0.0]]), "b": torch.tensor([[[4.0]], [[0.4]], [[0.0]]])}
    scaled = clipped(gradients, Clipping(1.0, 1.0))
    torch.testing.assert_close(scaled["a"], torch.tensor([[0.6], [0.3], [0.0]]))
    torch.testing.assert_close(scaled["b"], torch.tensor([[[0.8]], [[0.4]], [[0.0]]]))


def test_noise_has_standard_deviation_noise_times_clip_over_the_number_of_records():
    zeros = {"w": torch.zeros(20000), "b": torch.zeros(())}
    drawn = Clipping(norm=2.0, noise=0.5).noisy_mean(zeros, 8, seed=1)
    assert drawn["w"].std().item() == pytest.approx(2.0 * 0.5 / 8, rel=0.03)  # 6 standard errors
    assert abs(drawn["w"].mean().item()) < 6 * 0.125 / 20000**0.5
    assert drawn["b"].shape == ()


def test_a_step_s_noise_follows_from_the_member_s_seed_and_the_step():
    # a clip so small that noise is all that moves the weights, by SGD's learning rate in the first step
    recipe = replace(SGD, epochs=1, batch_size=50, weight_decay=0.0)
    ensemble, defense = ensemble_of(DATA, dropout=0.0), DPSGD(clip=1e-6, noise=1e6)
    after = fit(ensemble, DATA, split_of(DATA), recipe, seeds=SEEDS, defense=defense).ensemble
    for k, seed in enumerate(SEEDS):
        draw = torch.Generator().manual_seed(derive_seed(seed, "dp noise", 0))
        for name, tensor in ensemble.parameters.items():
            expected = tensor[k] - 0.05 * torch.randn(tensor[k].shape, generator=draw) / 50
            torch.testing.assert_close(after.parameters[name][k], expected, rtol=0, atol=1e-6)


def test_no_two_steps_draw_the_same_noise():
    zeros, noisy_mean = {"w": torch.zeros(100)}, Clipping(1.0, 1.0).noisy_mean
    draws = [noisy_mean(zeros, 1, derive_seed(s, "dp noise", step))["w"] for s in SEEDS for step in range(4)]
    assert len({tuple(d.tolist()) for d in draws}) == 12


@BACKENDS
def test_the_same_seeds_give_the_same_bytes(backend):
    def run(seeds):
        return fit(ensemble_of(DATA), DATA, split_of(DATA), SGD, seeds=seeds, backend=backend, defense=DPSGD()).ensemble

    assert same_bytes(run(SEEDS), run(SEEDS))
    assert not same_bytes(run(SEEDS).select([2]), run([11, 12, 14]).select([2]))
    torch.manual_seed(9)
    assert same_bytes(run(SEEDS).select([0]), run([11, 12, 14]).select([0]))


def test_batchnorm_is_refused_before_training_with_the_reason_and_the_remedy():
    data = blobs(shape=(1, 4, 4))
    ensemble = Ensemble.from_modules(modules(ConvNet))
    for defense in (DPSGD(), chain(DPSGD(), MemoryRegularizer())):
        with pytest.raises(InputError, match=r"BatchNorm2d at 'norm': .* other records .* use GroupNorm or LayerNorm"):
            fit(
                ensemble,
                data,
                split_of(data),
                SGD,
                seeds=SEEDS,
                defense=defense,
                on_epoch=lambda *_: pytest.fail("trained"),
            )


def test_a_gradient_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="the gradient is not finite"):
        fit(ensemble_of(DATA), DATA, split_of(DATA), replace(SGD, learning_rate=1e30), seeds=SEEDS, defense=DPSGD())


@pytest.mark.parametrize(("settings", "message"), [
    ({"clip": 0}, "clip must be positive"), ({"clip": float("inf")}, "clip must be positive"),
    ({"noise": -0.1}, "noise must be 0 or more"), ({"noise": float("nan")}, "noise must be 0 or more"),
    ({"start": "new"}, "start must be fresh or dense"),
])  # fmt: skip
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        DPSGD(**settings)


def test_a_study_names_it_and_a_chain_keeps_its_settings():
    assert make_defense("dpsgd", {"noise": 0.1}) == DPSGD(clip=1.0, noise=0.1)
    both = make_defense("dpsgd+rsw", {"noise": 0.1, "width": 0.5})
    assert both.capability(Clipping) == Clipping(norm=1.0, noise=0.1)
    assert both.settings["noise"] == 0.1
    assert make_defense("swmr").capability(Clipping) is None


def test_the_budget_covers_all_training_if_a_model_starts_from_new_weights_and_nothing_is_chained():
    def covered(defense: Defense) -> object:
        payload = account(defense, records=100, batch_size=10, steps=5)
        assert payload is not None
        return payload["covers"]

    fresh = DPSGD(noise=0.0, start="fresh")
    assert covered(fresh) == "victim_training"
    assert covered(DPSGD(noise=0.0)) == "victim_fine_tuning"
    assert covered(chain(fresh, make_defense("rsw"))) == "victim_fine_tuning"


def test_a_chain_takes_no_second_maker_of_the_gradient():
    for other in (OnlyClips(), Remember()):
        with pytest.raises(InputError, match="chain only one"):
            chain(DPSGD(), other)


def linear_stack(*, bias, frozen):
    """Linear layers of every kind that has a closed form."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 7, bias=bias), nn.ReLU(), nn.Sequential(nn.Dropout(0.5), nn.Linear(7, 5), nn.GELU()),
        nn.Linear(5, CLASSES, bias=bias),
    )  # fmt: skip
    model[0 if frozen is None else frozen].requires_grad_(False)
    return model


@pytest.mark.parametrize("frozen", [None, 1, 4])
@pytest.mark.parametrize("bias", [True, False])
@BACKENDS
def test_the_closed_form_is_the_sum_over_single_records(backend, bias, frozen):
    ensemble = Ensemble.from_modules(modules(lambda: linear_stack(bias=bias, frozen=frozen)))
    ensemble.template.train()
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(0, 2, (3, 9, 2, 3)), dtype=torch.float32)
    labels, weights = torch.tensor(rng.integers(0, CLASSES, (3, 9))), torch.ones(3, 9)
    weights[0, 4:], weights[2, 8:] = 0, 0
    parameters = {n: 3 * t for n, t in ensemble.parameters.items()}
    buffers = {n: torch.tensor([5, 6, 7], dtype=torch.int32) if "key" in n else t for n, t in ensemble.buffers.items()}
    pruned = {"3.1.weight": torch.tensor(rng.random((3, 5, 7)) < 0.6)}
    clipping = Clipping(norm=0.7, noise=0.0)
    assert has_closed_form(ensemble.template, x[0])
    sums = clipped_sums(ensemble.template, backend, parameters, buffers, x, labels, weights, pruned, clipping)
    each = PerSample(clipping, ensemble.template, backend, [0, 0, 0], pruned, closed_form=False)
    mean = each.gradients(parameters, buffers, x, labels, weights, [0, 1, 2], [0, 0, 0])
    for name, gradient in zip(parameters, mean, strict=True):
        for k, count in enumerate((4, 9, 8)):
            torch.testing.assert_close(sums[name][k] / count, gradient[k], rtol=1e-5, atol=1e-6)
    assert (sums["3.1.weight"][pruned["3.1.weight"]] == 0).all()
    # some records are clipped and some are not
    wide = clipped_sums(
        ensemble.template, backend, parameters, buffers, x, labels, weights, pruned, Clipping(1e9, 0.0)
    )  # fmt: skip
    assert not torch.allclose(wide["3.1.weight"], sums["3.1.weight"], atol=1e-2)


class Mixed(nn.Sequential):
    """Its records see each other."""

    def forward(self, x):
        return super().forward(x - x.mean(0))


def used_twice():
    layer = nn.Linear(FEATURES, FEATURES)
    return nn.Sequential(layer, nn.ReLU(), layer)


@pytest.mark.parametrize(("build", "shape"), [
    (lambda: Mixed(nn.Linear(6, 3)), (6,)),
    (OneDropoutTwice, (6,)),
    (used_twice, (6,)),
    (lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), (6,)),
    (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), (6,)),
    (lambda: nn.Sequential(nn.Linear(6, 3), nn.Flatten()), (2, 6)),
    (lambda: nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 3)), (2, 6)),
    (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))), (6,)),
    (GroupNormNet, (1, 4, 4)),
])  # fmt: skip
def test_what_is_not_linear_layers_alone_has_no_closed_form(build, shape):
    assert not has_closed_form(build(), torch.zeros(4, *shape))
    assert has_closed_form(nn.Linear(6, 3), torch.zeros(4, 6))


def test_the_least_noise_changes_a_gradient_of_the_size_of_the_clip():
    ones = {"w": torch.ones(1000)}
    moved = Clipping(norm=1.0, noise=LEAST_NOISE).noisy_mean(ones, 1, seed=0)["w"]
    assert (moved != 1).float().mean() > 0.9
