"""Structured pruning: the filters of the smallest norm go, for real, and what is left computes what it computed."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import small_images
from small_images import MODEL, images
from toy import blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.config.settings import PruningSettings
from wemem.defenses import Undefended, make_defense
from wemem.errors import InputError
from wemem.pruning import L1Filter, LayerChoice, Pruning, Schedule, iterate, make_criterion, pruned_share
from wemem.pruning.channels import coupled_channels, restrict_channels
from wemem.training import Ensemble, Recipe
from wemem.training.resize import resized

pytestmark = pytest.mark.slow

if importlib.util.find_spec("torch_pruning") is None:
    pytest.skip("needs the extra structured", allow_module_level=True)

DATA = images()
SHORT = Recipe(epochs=2, patience=None, batch_size=16, optimizer="sgd", learning_rate=0.05)
EXAMPLE = torch.from_numpy(DATA.features[:2])
TO_60 = Schedule(0.6, rounds=3)
NORMS = ["l1_filter", "l2_filter"]


def ensemble_of_images(members=2):
    made = Ensemble.initialize(MODEL, DATA.input_shape, DATA.classes, seeds=list(range(members)))
    rng = torch.Generator().manual_seed(0)
    # running statistics and affine parameters as of a trained model, so that a channel mixed up with another shows
    buffers = {n: torch.rand(t.shape, generator=rng) + 0.5 if "running" in n else t for n, t in made.buffers.items()}
    return replace(made, buffers=buffers)


def rounds(start, method, *, data=DATA, defense=None, schedule=TO_60, backend="auto", **settings):
    pruning = Pruning(schedule, criterion=make_criterion(method), recipe=SHORT, rewind=settings.pop("rewind", "none"))
    split = split_of(data, members=len(start))
    scores = [np.random.default_rng(k).random(len(data)) for k in range(len(start))]
    return list(
        iterate(
            start, data, split, pruning, defense or Undefended(), seeds=list(range(len(start))), scores=scores,
            backend=backend, **settings,
        )
    )  # fmt: skip


def prune_channels(ensemble, sparsity, method, example):
    return make_criterion(method).prune(ensemble, sparsity, example, LayerChoice(), "layer")


def norms_by_hand(module, layers, norm):
    """Over all layers that make the same channels, filter by filter."""
    found = []
    for c in range(len(module.get_submodule(layers[0]).weight)):
        w = np.concatenate([module.get_submodule(name).weight[c].detach().numpy().ravel() for name in layers])
        found.append(np.abs(w).sum() if norm == "l1_filter" else np.sqrt((w.astype(np.float64) ** 2).sum()))
    return found


def silenced(module, gone):
    """The dense module with the weights that read a removed channel at zero, which is what removal must equal."""
    readers = {"stem": ["block", "narrow"], "narrow": ["hidden"], "hidden": ["out"]}
    with torch.no_grad():
        for layer, lost in gone.items():
            for reader in readers[layer]:
                weight = module.get_submodule(reader).weight
                for c in lost:
                    if reader == "hidden":
                        weight.view(8, 5, 9)[:, c] = 0
                    else:
                        weight[:, c] = 0
    return module


@pytest.mark.parametrize("norm", NORMS)
def test_the_removed_channels_are_those_of_the_smallest_norm_and_the_rest_computes_the_same(norm):
    dense = ensemble_of_images()
    pruned = prune_channels(dense, 0.5, norm, EXAMPLE)
    tied = {"stem": ["stem", "block", "depthwise"], "narrow": ["narrow"], "hidden": ["hidden"]}
    for k in range(2):
        module, gone = dense.module(k), {}
        for layer, together in tied.items():
            values = norms_by_hand(module, together, norm)
            count = round(0.5 * len(values))
            gone[layer] = sorted(np.argsort(values, kind="stable")[:count].tolist())
            for name in together:
                assert (~pruned.channels[name][k]).nonzero().flatten().tolist() == gone[layer]
        with torch.no_grad():
            expected = silenced(module, gone)(EXAMPLE)
            torch.testing.assert_close(pruned.module(k)(EXAMPLE), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(pruned.channels["narrow"][0], pruned.channels["narrow"][1])


def test_channels_really_go_and_only_hidden_ones():
    module = prune_channels(ensemble_of_images(), 0.5, "l1_filter", EXAMPLE).module(0)
    assert isinstance(module, small_images.Residual)
    assert (module.stem.in_channels, module.stem.out_channels) == (2, 3)
    assert module.stem_norm.num_features == len(module.stem_norm.weight) == 3
    assert (module.depthwise.groups, module.depthwise.in_channels, len(module.depthwise.weight)) == (3, 3, 3)
    assert (module.narrow.in_channels, module.narrow.out_channels) == (3, 3)  # of 5, round half to even removes 2
    assert (module.hidden.in_features, module.hidden.out_features) == (27, 4)
    assert (module.out.in_features, module.out.out_features) == (4, 3)


def test_no_sparsity_changes_nothing_and_the_highest_leaves_one_channel():
    dense = ensemble_of_images()
    assert largest_difference(replace(prune_channels(dense, 0.0, "l1_filter", EXAMPLE), channels={}), dense) == 0
    module = prune_channels(dense, 0.999, "l2_filter", EXAMPLE).module(0)
    assert isinstance(module, small_images.Residual)
    assert module.hidden.weight.shape == (1, 9)


def test_pruning_in_two_steps_counts_from_the_dense_model():
    dense = ensemble_of_images()
    once = prune_channels(prune_channels(dense, 0.3, "l1_filter", EXAMPLE), 0.6, "l1_filter", EXAMPLE)
    for name, kept in once.channels.items():
        assert int((~kept[0]).sum()) == round(0.6 * len(kept[0])), name
    # norms of filters shrink with the channels they read, so the choice may differ from one step; the first stays gone
    first = prune_channels(dense, 0.3, "l1_filter", EXAMPLE)
    assert all((once.channels[name] <= first.channels[name]).all() for name in first.channels)
    with pytest.raises(InputError, match="do not return"):
        prune_channels(once, 0.3, "l1_filter", EXAMPLE)


def test_restricting_the_dense_model_to_what_was_kept_is_removing_the_rest():
    dense = ensemble_of_images()
    pruned = prune_channels(dense, 0.5, "l2_filter", EXAMPLE)
    again = restrict_channels(dense, pruned.channels, EXAMPLE)
    assert same_bytes(pruned, again)


@pytest.mark.parametrize("method", NORMS)
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_rounds_shrink_the_model_and_fine_tune_what_is_left(method, backend):
    done = rounds(ensemble_of_images(), method, backend=backend)
    assert [r.choice.backend for r in done] == [backend] * 3
    sizes = [sum(t.numel() for t in r.ensemble.parameters.values()) for r in done]
    assert sizes[0] > sizes[1] > sizes[2]
    # of 6, 6, 6, 5 and 8 filters go 2, 2, 2, 2 and 3, then 4, 4, 4, 3 and 5
    assert [r.sparsity for r in done] == [0, 11 / 31, 20 / 31]
    before = prune_channels(done[1].ensemble, 0.6, method, EXAMPLE)
    assert largest_difference(replace(done[2].ensemble, channels={}), replace(before, channels={})) > 0
    assert pruned_share(done[2].ensemble) == done[2].sparsity


def test_backends_agree_on_structured_pruning_with_sgd():
    one, other = (rounds(ensemble_of_images(), "l1_filter", backend=b)[-1].ensemble for b in ("vmapped", "sequential"))
    assert all(torch.equal(one.channels[name], other.channels[name]) for name in one.channels)
    assert largest_difference(one, other) < 1e-4


@pytest.mark.parametrize("defense", ["swmr", "ppb", "dpsgd"])
def test_defenses_work_on_models_that_shrink(defense):
    data = blobs()
    done = rounds(ensemble_of(data, members=2), "l2_filter", data=data, defense=make_defense(defense, {}))
    assert [len(done[-1].ensemble.parameters[name][0]) for name in ("1.weight", "4.weight")] == [6, 3]


def test_going_on_from_a_stored_round_gives_the_same_bytes():
    start = ensemble_of_images()
    whole = rounds(start, "l1_filter")
    stored = ensemble_of_images().with_arrays(whole[1].ensemble.arrays())
    assert same_bytes(stored, whole[1].ensemble)
    rest = rounds(stored, "l1_filter", first_round=2)
    assert same_bytes(rest[-1].ensemble, whole[-1].ensemble)
    assert np.array_equal(stored.logits(DATA.features), whole[1].ensemble.logits(DATA.features))


def test_rewinding_restores_the_first_weights_of_the_channels_that_are_left():
    initial = ensemble_of_images()
    still = Recipe(epochs=1, patience=None, learning_rate=0.0, weight_decay=0.0, optimizer="sgd")
    trained = rounds(initial, "l1_filter", schedule=Schedule(0.0, rounds=1))[-1].ensemble
    pruning = Pruning(Schedule(0.5, rounds=1), criterion=L1Filter(), recipe=still, rewind="initial")
    (only,) = iterate(
        trained, DATA, split_of(DATA, members=2), pruning, Undefended(), seeds=[0, 1], initial=initial
    )  # fmt: skip
    chosen = prune_channels(trained, 0.5, "l1_filter", EXAMPLE).channels
    expected = restrict_channels(initial, chosen, EXAMPLE)
    assert all(torch.equal(only.ensemble.parameters[name], t) for name, t in expected.parameters.items())


def test_members_can_be_taken_apart_and_put_together():
    pruned = prune_channels(ensemble_of_images(3), 0.5, "l1_filter", EXAMPLE)
    again = Ensemble.concatenate([pruned.select([0]), pruned.select([1, 2])])
    assert same_bytes(again, pruned)


class Odd(nn.Module):
    """A model with one part that is given."""

    def __init__(self, part, after=4):
        super().__init__()
        self.first, self.part, self.out = nn.Conv2d(2, 4, 3), part, nn.Linear(after, 3)

    def forward(self, x):
        return self.out(self.part(self.first(x)).mean((2, 3)))


class Fixed(nn.Module):
    def forward(self, x):
        return x.view(-1, 4, 4, 4)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, 4, 1, 1))

    def forward(self, x):
        return x * self.factor


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x.transpose(1, 3))).transpose(1, 3)


class Halves(nn.Module):
    """Adds two layers' outputs, side by side, to a third's."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.both = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return torch.cat([self.left(x), self.right(x)], 1) + self.both(x)


class TiedToInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.Conv2d(2, 2, 1), nn.Linear(2, 3)

    def forward(self, x):
        return self.out((x + self.layer(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(18, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.rnn(x.flatten(2).reshape(len(x), -1, 18))[0][:, -1])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Odd(Halves()), "their number would vary"),
        (TiedToInput(), "does not run with fewer channels"),
        (Odd(nn.GroupNorm(2, 4)), "GroupNorm"),
        (Odd(nn.Conv2d(4, 4, 1, groups=2)), "2 groups"),
        (Odd(nn.ConvTranspose2d(4, 4, 1)), "ConvTranspose2d"),
        (Odd(Scale()), "Parameter among them"),
        (Odd(Fixed()), "does not run with fewer channels"),
        (Odd(Tied()), "two that share one"),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), "besides the classifier"),
        (Recurrent(), "GRU 'rnn', whose parts cannot be removed; use pruning.method = 'magnitude'"),
    ],
)
def test_models_whose_channels_cannot_be_removed_are_refused_in_one_line(module, message):
    with pytest.raises(InputError, match=message) as refused:
        prune_channels(Ensemble.from_modules([module]), 0.5, "l1_filter", EXAMPLE)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", [nn.PReLU(), nn.PReLU(4), nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True)])
def test_layers_that_work_channel_by_channel_shrink_too(part):
    pruned = prune_channels(Ensemble.from_modules([Odd(part)]), 0.5, "l1_filter", EXAMPLE)
    assert pruned.module(0)(EXAMPLE).shape == (2, 3)


def test_the_classifier_is_found_where_it_is_computed_not_where_it_is_declared():
    class Early(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.hidden = nn.Linear(8, 3), nn.Linear(72, 8)

        def forward(self, x):
            return self.out(torch.relu(self.hidden(x.flatten(1))))

    assert [group.root for group in coupled_channels(Early(), EXAMPLE)] == ["hidden"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "l3_filter"}, "method among .* did you mean"),
        ({"method": "l1_filter", "scope": "global"}, "scope layer"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PruningSettings(**settings)


def test_resizing_refuses_what_is_no_part_of_the_network():
    network = nn.Sequential(nn.Linear(4, 3), nn.GroupNorm(1, 3))
    for shapes, message in (
        ({"0.weight": (4, 4)}, "or less"),
        ({"0.weight": (3,)}, "or less"),
        ({"0.bias": (0,)}, "or less"),
        ({"1.weight": (2,)}, "GroupNorm"),
    ):
        with pytest.raises(InputError, match=message):
            resized(network, shapes)
    assert resized(network, {"0.weight": (3, 4)}) is network
