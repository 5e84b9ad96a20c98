"""Networks for small images: their published sizes, and that they train, prune and store like any other."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from toy import blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.defenses import Undefended
from wemem.errors import InputError
from wemem.models import MODELS, ResNet8, make_model
from wemem.models.image import ImageModel
from wemem.pipeline import querier
from wemem.pruning import LayerChoice, Pruning, Schedule, iterate, prunable_weights
from wemem.queries import query_models
from wemem.training import Ensemble, Recipe, fit
from wemem.training.layout import CHANNELS_LAST, channels_last_pays
from wemem.training.side_by_side import draws_globally, side_by_side

pytestmark = pytest.mark.slow

IMAGE_MODELS = [kind for kind, cls in MODELS.items() if issubclass(cls, ImageModel)]
TINY = 0.05
IMAGES = blobs(48, shape=(3, 32, 32))
SMALL = blobs(48, shape=(3, 8, 8))
SEEDS = [5, 6]
SGD = Recipe(epochs=2, patience=None, batch_size=16, learning_rate=0.02, optimizer="sgd")


def parameters_of(kind, classes=10):
    return sum(p.numel() for p in make_model(kind, {}).build((3, 32, 32), classes).parameters())


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        # He et al. 2016, table 6: 0.27 M; 2,752 of them are the projections that stand for its padding
        ("resnet20", 269_722 + 2_752),
        # eight convolutions of 3 x 3, a classifier without bias, two numbers of BatchNorm for each channel
        ("resnet9", 9 * (3 * 64 + 64 * 128 + 2 * 128**2 + 128 * 256 + 256 * 512 + 2 * 512**2) + 5_120 + 2 * 2_240),
        # that of ImageNet, 11,689,512, less its classifier and 7 x 7 stem, with those of CIFAR
        ("resnet18", 11_689_512 - 513_000 - 9_408 + 5_130 + 1_728),
        # convolutions of configuration D, 14,714,688 with the biases that BatchNorm's shifts replace, and its scales
        ("vgg16_bn", 14_714_688 + 4_224 + 5_130),
        # that of ImageNet, 7,978,856, less classifier, stem and the stem's BatchNorm, with those of CIFAR
        ("densenet121", 7_978_856 - 1_025_000 - 9_408 - 128 + 10_250 + 1_728),
        # that of ImageNet, 3,504,872, with another classifier
        ("mobilenet_v2", 3_504_872 - 1_281_000 + 12_810),
    ],
)
def test_networks_have_their_published_numbers_of_parameters(kind, parameters):
    assert parameters_of(kind) == parameters


@pytest.mark.parametrize("kind", IMAGE_MODELS)
def test_all_convolutions_and_no_classifier_are_prunable(kind):
    ensemble = Ensemble.initialize(make_model(kind, {"width": TINY}), (3, 32, 32), 3, [0])
    layers = [n for n, m in ensemble.template.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert layers[-1] == "classifier"
    example = torch.zeros(1, 3, 32, 32)
    assert prunable_weights(ensemble.template, example, LayerChoice()) == [f"{name}.weight" for name in layers[:-1]]


@pytest.mark.parametrize("kind", IMAGE_MODELS)
def test_vmapped_and_one_after_another_give_the_same_logits_and_gradients(kind):
    ensemble = Ensemble.initialize(make_model(kind, {"width": TINY}), (3, 32, 32), 3, SEEDS)
    x, y = torch.from_numpy(IMAGES.features[:6]), torch.from_numpy(IMAGES.labels[:6])
    results = []
    for forward in (one_by_one, vmapped):
        leaves = {name: t.double().requires_grad_() for name, t in ensemble.parameters.items()}
        buffers = {n: t.double() if t.is_floating_point() else t.clone() for n, t in ensemble.buffers.items()}
        logits = forward(ensemble.template.double().train(), leaves, buffers, x.double())
        loss = torch.stack([cross_entropy(own, y) for own in logits]).sum()
        results.append((logits, torch.autograd.grad(loss, list(leaves.values())), list(buffers.values())))
    for one, other in zip(*results, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def one_by_one(template, parameters, buffers, x):
    rows = range(len(SEEDS))
    return torch.stack(
        [
            torch.func.functional_call(template, {n: t[k] for n, t in {**parameters, **buffers}.items()}, (x,))
            for k in rows
        ]
    )


def vmapped(template, parameters, buffers, x):
    return torch.func.vmap(lambda p, b: torch.func.functional_call(template, {**p, **b}, (x,)))(parameters, buffers)


@pytest.mark.parametrize("kind", IMAGE_MODELS)
def test_every_network_is_pruned_fine_tuned_stored_and_loaded_back(kind):
    model = make_model(kind, {"width": TINY})
    dense = Ensemble.initialize(model, (3, 32, 32), 3, [5])
    split = split_of(IMAGES, members=1, train=16, dev=8)
    recipe = Recipe(epochs=1, batch_size=8, augment="crop_flip")
    *_, last = iterate(dense, IMAGES, split, Pruning(Schedule(0.5, 2), recipe=recipe), Undefended(), seeds=[5])
    for name, mask in last.ensemble.masks.items():
        assert mask.sum() == mask.numel() - round(0.5 * mask.numel())
        assert not last.ensemble.parameters[name][~mask].any()
    plain = model.build((3, 32, 32), 3)
    plain.load_state_dict(last.ensemble.state(0))
    restored = dense.with_arrays(last.ensemble.arrays())
    with torch.no_grad():
        logits = plain.eval()(torch.from_numpy(IMAGES.features)).numpy()
    np.testing.assert_allclose(restored.logits(IMAGES.features)[0], logits, rtol=1e-3, atol=1e-4)


def test_width_scales_every_layer_and_the_classifier_follows():
    network = ResNet8(width=0.5).build((1, 8, 8), 4)
    assert [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)] == [8, 8, 8, 16, 16, 16, 32, 32, 32]
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
def test_width_must_be_positive(width):
    with pytest.raises(InputError, match="width must be positive and finite"):
        ResNet8(width)


def test_image_networks_refuse_tables_and_misspelt_kinds_are_named():
    with pytest.raises(InputError, match=r"ResNet8 expected images .*, got records of shape \(6,\)"):
        ResNet8().build((6,), 3)
    with pytest.raises(InputError, match="got 'vgg16'; did you mean 'vgg16_bn'"):
        make_model("vgg16", {})


# how they are computed


def test_channels_last_keeps_values_and_lays_every_member_out():
    weights = torch.arange(2 * 4 * 3 * 2 * 2.0).view(2, 4, 3, 2, 2)
    laid = CHANNELS_LAST.lay_out(weights)
    assert torch.equal(laid, weights)
    assert all(own.is_contiguous(memory_format=torch.channels_last) for own in laid)
    assert CHANNELS_LAST.lay_out(torch.ones(3, 2).T).is_contiguous()


def test_channels_last_gives_convolutions_of_one_channel_the_layout_of_plain_pytorch():
    plain = nn.Conv2d(1, 4, 3).weight.to(memory_format=torch.channels_last)
    assert CHANNELS_LAST.lay_out(torch.ones(2, 4, 1, 3, 3))[0].stride() == plain.stride()


def test_channels_last_is_not_used_where_onednn_would_write_beyond_its_memory():
    assert channels_last_pays(ResNet8(width=TINY).build((3, 8, 8), 3))
    assert not channels_last_pays(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1, stride=2)))
    assert channels_last_pays(nn.Sequential(nn.Conv2d(16, 8, 1, stride=2), nn.Conv2d(4, 8, 1)))
    assert not channels_last_pays(nn.Linear(3, 3))


def test_a_convolution_network_is_trained_as_a_plain_loop_would():
    split = split_of(SMALL, members=1, train=32, dev=8)
    start = Ensemble.initialize(ResNet8(width=0.25), (3, 8, 8), 3, [5])
    recipe = Recipe(epochs=1, patience=None, batch_size=32, learning_rate=0.02, optimizer="sgd", weight_decay=0.01)
    got = fit(start, SMALL, split, recipe, seeds=[5]).ensemble
    plain = start.module(0).train()
    train = torch.from_numpy(split.records(0, Role.TRAIN))  # one batch: its order does not matter
    loss = cross_entropy(plain(torch.from_numpy(SMALL.features)[train]), torch.from_numpy(SMALL.labels)[train])
    loss.backward()
    torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01).step()
    for name, tensor in [*plain.named_parameters(), *plain.named_buffers()]:
        torch.testing.assert_close(got.module(0).state_dict()[name], tensor.data, rtol=1e-4, atol=1e-5)


def test_members_are_the_same_on_any_number_of_cores():
    split = split_of(SMALL, members=3, train=24, dev=8)
    start = Ensemble.initialize(ResNet8(width=0.25), (3, 8, 8), 3, [1, 2, 3])
    heard = []
    one = fit(start, SMALL, split, SGD, seeds=[1, 2, 3])
    torch.set_num_threads(2)
    try:
        two = fit(start, SMALL, split, SGD, seeds=[1, 2, 3], on_epoch=lambda *told: heard.append(told))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert same_bytes(one.ensemble, two.ensemble)
    assert one.history == two.history
    assert len(heard) == 3 * SGD.epochs


def test_a_failure_on_one_core_ends_the_others():
    reached = []

    def train(k, tell):
        if k == 0:
            raise InputError("diverged")
        for epoch in range(10_000):
            tell(epoch, 1)
        reached.append(k)
        return k

    with pytest.raises(InputError, match="diverged"):
        side_by_side(train, 4, 2, lambda *told: None)
    assert len(reached) < 3
    assert side_by_side(lambda k, tell: k, 5, 2, lambda *told: None) == [0, 1, 2, 3, 4]


def test_models_that_draw_by_themselves_are_found():
    assert draws_globally(drawing(), torch.zeros(2, 3, 8, 8))
    assert not draws_globally(Ensemble.initialize(ResNet8(TINY), (3, 8, 8), 3, [0]), torch.zeros(2, 3, 8, 8))
    assert not draws_globally(ensemble_of(blobs(), dropout=0.5), torch.zeros(2, 6))  # its masks have keys of their own


def drawing():
    return Ensemble.from_modules(
        [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(144, 3))]
    )


def test_training_with_augmentation_is_the_same_in_both_backends():
    split = split_of(SMALL, members=2, train=32, dev=12)
    model = ResNet8(width=0.125)
    start = Ensemble.initialize(model, (3, 8, 8), 3, SEEDS)
    recipe = Recipe(epochs=1, patience=None, batch_size=16, learning_rate=0.02, optimizer="sgd", augment="crop_flip")
    fitted = [fit(start, SMALL, split, recipe, seeds=SEEDS, backend=b) for b in ("vmapped", "sequential")]
    assert largest_difference(fitted[0].ensemble, fitted[1].ensemble) < 1e-4
    plain = fit(start, SMALL, split, SGD, seeds=SEEDS)
    assert largest_difference(fitted[1].ensemble, plain.ensemble) > 1e-3


def test_a_study_of_images_asks_lira_about_mirror_images_where_training_mirrored(tmp_path, monkeypatch):
    data = blobs(200, shape=(3, 8, 8))
    np.savez(tmp_path / "images.npz", x=data.features, y=data.labels)
    asked = []

    def query(models, features, labels, needs, **given):
        asked.append(needs)
        return query_models(models, features, labels, needs, **given)

    monkeypatch.setattr(querier, "query_models", query)
    table = {
        "data": {"source": str(tmp_path / "images.npz")},
        "model": {"kind": "resnet8", "width": TINY},
        "attacks": ["confidence", "lira"],
        "split": {"shadows": 1, "references": 4},
        "training": {"epochs": 1, "augment": "crop_flip"},
        "finetune": {"epochs": 1, "augment": "crop_flip"},
        "pruning": {"rounds": 2},
        "defenses": ["undefended"],
        "controls": [],
    }
    results = api.run(parse_study(table), tmp_path / "out", tmp_path / "store")
    assert [run["defense"] for run in results["runs"]] == ["dense", "undefended"]
    assert {"queries"} in asked
    assert frozenset() in asked  # the others need no such queries
    plain = {**table, "finetune": {"epochs": 1}}
    asked.clear()
    api.run(parse_study(plain), tmp_path / "plain", tmp_path / "store")
    assert {"queries"} not in asked
