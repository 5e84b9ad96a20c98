"""Transformers, recurrent networks and category embeddings: sizes by hand, padding, codes, and equal backends."""

import math

import numpy as np
import pytest
import torch

from toy import largest_difference, split_of
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.models import EntityEmbedding, TextGru, TextLstm, TextTransformer, VisionTransformer, make_model
from wemem.models.entity_embedding import embedding_width
from wemem.models.transformer import SelfAttention
from wemem.models.vit import patches, sine_positions
from wemem.pipeline.loading import suited_to
from wemem.training import Ensemble, Recipe, fit
from wemem.training.backends import choose_backend

RNG = np.random.default_rng(0)
N, LENGTH, VOCABULARY, CLASSES = 90, 6, 20, 3
LABELS = np.arange(N) % CLASSES
IDS = (RNG.integers(1, 6, (N, LENGTH)) + 5 * LABELS[:, None]).astype(np.int64)
IDS[::4, 3:] = 0
TOKENS = Dataset("tokens", IDS, LABELS, CLASSES)
IMAGES = Dataset.from_arrays("images", RNG.normal(0, 1, (N, 3, 8, 12)) + LABELS[:, None, None, None], LABELS)
MIXED = Dataset.from_arrays("mixed", np.stack([LABELS + RNG.integers(0, 2, N), RNG.normal(0, 1, N)], 1), LABELS)
SMALL = {"vocabulary": VOCABULARY, "width": 8}
TEXT = [TextTransformer(**SMALL, depth=2, heads=2, hidden=16), TextLstm(**SMALL, hidden=8), TextGru(**SMALL, hidden=8)]
VIT = VisionTransformer(width=8, depth=1, heads=2, hidden=16)
ENTITY = EntityEmbedding(categories=(4, 0), hidden=(8,))
FAMILIES = [(model, TOKENS) for model in TEXT] + [(VIT, IMAGES), (ENTITY, MIXED)]
RECIPE = Recipe(epochs=20, batch_size=8, patience=None, learning_rate=0.01)
SGD = Recipe(epochs=2, patience=None, batch_size=16, learning_rate=0.1, optimizer="sgd")


def parameters(model, shape, classes):
    return sum(p.numel() for p in model.build(shape, classes).parameters())


def test_numbers_of_parameters_by_hand():
    attention, norms, linear = 4 * (8 * 8 + 8), 2 * 2 * 8, 8 * 16 + 16 + 16 * 8 + 8
    ends = 2 * 8 + 8 * 3 + 3
    assert parameters(TEXT[0], (6,), 3) == 20 * 8 + 6 * 8 + 2 * (attention + norms + linear) + ends
    assert parameters(VIT, (3, 8, 12), 3) == 48 * 8 + 8 + (attention + norms + linear) + ends
    # each gate reads token and state, and has two biases
    assert parameters(TEXT[1], (6,), 3) == 20 * 8 + 4 * (8 * 8 + 8 * 8 + 8 + 8) + 8 * 3 + 3
    assert parameters(TEXT[2], (6,), 3) == 20 * 8 + 3 * (8 * 8 + 8 * 8 + 8 + 8) + 8 * 3 + 3
    assert parameters(ENTITY, (2,), 3) == 4 * embedding_width(4) + (2 + 1) * 8 + 8 + 8 * 3 + 3


@pytest.mark.parametrize("model", TEXT)
def test_padding_at_the_end_changes_no_answer(model):
    network = model.build((LENGTH,), CLASSES).eval()
    short = torch.from_numpy(IDS[:8].copy())
    short[:, 4:] = 0
    if isinstance(model, TextTransformer):
        state = {n: t[:4] if n == "positions" else t for n, t in network.state_dict().items()}
    else:
        state = dict(network.state_dict())
    shorter = model.build((4,), CLASSES).eval()
    shorter.load_state_dict(state)
    torch.testing.assert_close(network(short), shorter(short[:, :4]))


@pytest.mark.parametrize("model", TEXT)
def test_every_token_before_the_padding_counts(model):
    network, ids = model.build((LENGTH,), CLASSES).eval(), torch.tensor([[3, 4, 5, 6, 0, 0]])
    for place in range(4):
        other = ids.clone()
        other[0, place] = 9
        assert not torch.equal(network(ids), network(other))


@pytest.mark.parametrize("model", TEXT)
def test_a_record_of_padding_alone_has_finite_logits(model):
    assert model.build((LENGTH,), CLASSES)(torch.zeros(2, LENGTH, dtype=torch.int64)).isfinite().all()


def test_attention_is_that_of_pytorch():
    own, torchs = SelfAttention(8, 2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([own.query.weight, own.key.weight, own.value.weight]))
        torchs.in_proj_bias.copy_(torch.cat([own.query.bias, own.key.bias, own.value.bias]))
        torchs.out_proj.load_state_dict(own.output.state_dict())
    x, real = torch.randn(3, 5, 8), torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]])
    expected = torchs(x, x, x, key_padding_mask=~real)[0]
    torch.testing.assert_close(own(x, real)[real], expected[real])
    torch.testing.assert_close(own(x), torchs(x, x, x)[0])


def test_patches_embed_as_a_strided_convolution_does():
    images, convolution = torch.randn(2, 3, 8, 12), torch.nn.Conv2d(3, 5, 4, 4)
    linear = torch.nn.functional.linear(patches(images, 4), convolution.weight.flatten(1), convolution.bias)
    torch.testing.assert_close(linear, convolution(images).flatten(2).mT)


def test_positions_of_different_patches_differ():
    positions = sine_positions(3, 5, 8)
    assert torch.unique(positions, dim=0).shape == (15, 8)
    assert positions[7].tolist()[0] == pytest.approx(math.sin(2))  # row 1, column 2


@pytest.mark.parametrize(("model", "data"), FAMILIES, ids=lambda value: type(value).__name__)
def test_models_trained_together_equal_models_trained_one_by_one(model, data):
    ensemble = Ensemble.initialize(model, data.input_shape, data.classes, [0, 1])
    split = split_of(data, members=2)
    auto, alone = (fit(ensemble, data, split, SGD, seeds=[3, 4], backend=b) for b in ("auto", "sequential"))
    assert largest_difference(auto.ensemble, alone.ensemble) < 2e-5
    assert auto.choice.backend == ("sequential" if isinstance(model, TextLstm | TextGru) else "vmapped")


@pytest.mark.parametrize("model", TEXT[1:])
def test_recurrent_models_train_one_by_one_for_a_stated_reason(model):
    ensemble = Ensemble.initialize(model, (LENGTH,), CLASSES, [0, 1])
    choice = choose_backend(ensemble, torch.from_numpy(IDS[:2]), CLASSES)
    assert choice.backend == "sequential"
    assert str(choice.reason).startswith("the model cannot be vmapped")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "data"), FAMILIES, ids=lambda value: type(value).__name__)
def test_every_family_learns_classes_that_its_input_shows(model, data):
    ensemble = Ensemble.initialize(model, data.input_shape, data.classes, [0])
    fitted = fit(ensemble, data, split_of(data, members=1), RECIPE, seeds=[1])
    assert max(fitted.history[0].dev_accuracy) > 0.6


def test_data_come_to_a_model_as_it_takes_them():
    assert suited_to(TEXT[0], TOKENS).fingerprint == TOKENS.fingerprint
    assert suited_to(TEXT[0], TOKENS.as_floats()).fingerprint == TOKENS.fingerprint
    assert suited_to(ENTITY, MIXED) is MIXED


@pytest.mark.parametrize(("model", "data", "message"), [
    (TEXT[0], Dataset("t", IDS + 15, LABELS, 3), r"below model.vocabulary = 20, got 30; set model.vocabulary = 31"),
    (TEXT[1], MIXED, "expected token ids, whole numbers from 0"),
    (ENTITY, Dataset.from_arrays("t", MIXED.features + 1, LABELS), r"expected codes 0..3 in column 0 of 4 categories"),
])  # fmt: skip
def test_features_that_cannot_be_looked_up_are_refused_before_training(model, data, message):
    with pytest.raises(InputError, match=message):
        suited_to(model, data)


@pytest.mark.parametrize(("kind", "settings", "shape", "message"), [
    ("text_transformer", {"width": 10, "heads": 4}, (6,), "width must be a multiple of heads"),
    ("text_transformer", {}, (3, 4), "expected sequences of token ids"),
    ("lstm", {"hidden": 0}, (6,), "hidden must be at least 1"),
    ("gru", {"vocabulary": 1}, (6,), "vocabulary must be at least 2"),
    ("vit", {"width": 6, "heads": 2}, (3, 8, 8), "width must be a multiple of 4"),
    ("vit", {}, (3, 8, 9), "expected images .* of sizes that 4 divides"),
    ("entity_embedding", {"categories": [0, 0]}, (2,), "for numbers alone use the model fc"),
    ("entity_embedding", {"categories": [3]}, (2,), "expected records of 1 columns, as many as model.categories"),
    ("entity_embedding", {}, (2,), "expected records of 0 columns, as many as model.categories"),
])  # fmt: skip
def test_sizes_that_do_not_fit_are_refused_in_one_line(kind, settings, shape, message):
    with pytest.raises(InputError, match=message) as caught:
        make_model(kind, settings).build(shape, 3)
    assert "\n" not in str(caught.value)
