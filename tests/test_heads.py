"""Heads and neurons of transformers: what is removed is what was silenced, in models of ours and of others."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from toy import CLASSES
from wemem.errors import InputError
from wemem.exporting.checkpoint import channels_of, channels_path, load_pruned, write_weights
from wemem.models import TextTransformer, VisionTransformer
from wemem.models.transformer import SelfAttention
from wemem.pruning import HeadsAndNeurons, LayerChoice, make_criterion
from wemem.training import Ensemble

if importlib.util.find_spec("torch_pruning") is None:
    pytest.skip("needs the extra structured", allow_module_level=True)

IDS = torch.from_numpy(np.random.default_rng(0).integers(1, 20, (3, 6)))
PIXELS = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OURS = TextTransformer(vocabulary=20, width=8, depth=2, heads=4, hidden=12)


def ours(count=2):
    return Ensemble.initialize(OURS, (6,), CLASSES, list(range(count)))


def pruned(ensemble, sparsity, example, **settings):
    return HeadsAndNeurons(**settings).prune(ensemble, sparsity, example, LayerChoice(), "layer")


class Fixed(SelfAttention):
    """Attention that always cuts its projections into as many heads as it was built with."""

    def __init__(self, width, heads):
        super().__init__(width, heads)
        self.heads = heads

    def _by_head(self, x):
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.of = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.of(x, x, x, need_weights=False)[0]


def with_attention(attention):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attention, self.out = nn.Linear(3, 8), attention, nn.Linear(8, CLASSES)

        def forward(self, x):
            return self.out(self.attention(self.embed(x)).mean(1))

    return Network()


@pytest.mark.parametrize("parts", ["both", "heads", "neurons"])
def test_the_units_of_the_smallest_norm_go_and_the_rest_computes_the_same(parts):
    dense = ours()
    result = pruned(dense, 0.5, IDS, parts=parts)
    for k in range(2):
        module = dense.module(k)
        for block in map(module.get_submodule, ("blocks.0", "blocks.1")):
            attention: Any = block.attention
            projections = (attention.query, attention.key, attention.value)
            norms = sum(p.weight.detach().abs().view(4, 2, 8).sum((1, 2)) for p in projections)
            with torch.no_grad():
                if parts != "neurons":
                    for head in norms.argsort()[:2]:
                        attention.output.weight[:, 2 * head : 2 * head + 2] = 0
                if parts != "heads":
                    block.narrow.weight[:, block.widen.weight.abs().sum(1).argsort()[:6]] = 0
        torch.testing.assert_close(result.module(k)(IDS), module(IDS), rtol=1e-4, atol=1e-5)
    smaller: Any = result.module(0).get_submodule("blocks.0")
    assert len(smaller.attention.query.weight) == (8 if parts == "neurons" else 4)
    assert len(smaller.widen.weight) == (12 if parts == "heads" else 6)
    assert smaller.norm1.weight.shape == (8,)  # the width of a token stays


def test_pruning_in_two_steps_counts_from_the_dense_model_and_one_head_always_stays():
    once, twice = pruned(ours(), 0.5, IDS), pruned(pruned(ours(), 0.25, IDS), 0.5, IDS)
    assert {n: t.shape for n, t in once.parameters.items()} == {n: t.shape for n, t in twice.parameters.items()}
    assert all(torch.equal(once.channels[name], twice.channels[name]) for name in once.channels)
    last: Any = pruned(ours(), 0.99, IDS).module(0).get_submodule("blocks.1")
    assert (len(last.attention.value.weight), len(last.widen.weight)) == (2, 1)


def test_a_model_without_some_heads_comes_back_from_its_file(tmp_path):
    result = pruned(ours(), 0.5, IDS)
    path = tmp_path / "weights.safetensors"
    write_weights(path, result.state(0))
    channels_path(path).write_text(channels_of(path, result))
    loaded = load_pruned(OURS.build((6,), CLASSES), path)
    assert torch.equal(loaded(IDS), result.module(0)(IDS))


def test_heads_of_an_image_model_are_removed_too():
    dense = Ensemble.initialize(VisionTransformer(width=8, depth=1, heads=2, hidden=12), (3, 8, 8), CLASSES, [0])
    smaller: Any = pruned(dense, 0.5, PIXELS).module(0).get_submodule("blocks.0")
    assert (len(smaller.attention.key.weight), len(smaller.narrow.weight.T)) == (4, 6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "distilbert", "vit"])
def test_heads_of_hugging_face_models_are_removed(family):
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    text = {"vocab_size": 20, "max_position_embeddings": 8}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 12}
    config, kind, example = {
        "bert": (transformers.BertConfig(**text, **sizes), transformers.BertForSequenceClassification, IDS),
        "distilbert": (
            transformers.DistilBertConfig(**text, dim=8, n_layers=1, n_heads=4, hidden_dim=12),
            transformers.DistilBertForSequenceClassification, IDS,
        ),
        "vit": (
            transformers.ViTConfig(**sizes, image_size=8, patch_size=4), transformers.ViTForImageClassification, PIXELS,
        ),
    }[family]  # fmt: skip
    from wemem.models.outputs import returning_logits

    config.num_labels = CLASSES
    dense = Ensemble.from_modules([returning_logits(kind(config).eval(), CLASSES)])
    result = pruned(dense, 0.5, example)
    by_kind = sorted(name.rpartition(".")[2] for name in result.channels)
    assert len(by_kind) >= 4  # three projections, and a feed-forward layer
    assert result.module(0)(example).shape == (3, CLASSES)
    assert sum(p.numel() for p in result.module(0).parameters()) < sum(p.numel() for p in dense.module(0).parameters())


@pytest.mark.parametrize(("module", "parts", "message"), [
    (lambda: with_attention(Fixed(8, 4)), "heads", "computes otherwise without some of its heads"),
    (lambda: with_attention(nn.Linear(8, 8)), "both", "a linear layer each for queries, keys and values, got none"),
    (lambda: with_attention(Packed()), "heads", "got none, and MultiheadAttention 'attention.of', whose parts cannot"),
])  # fmt: skip
def test_models_whose_heads_cannot_go_are_refused_in_one_line(module, parts, message):
    ensemble = Ensemble.from_modules([module()])
    with pytest.raises(InputError, match=message) as caught:
        pruned(ensemble, 0.5, torch.randn(2, 5, 3), parts=parts)
    assert "\n" not in str(caught.value)


def test_parts_are_among_those_known():
    with pytest.raises(InputError, match="parts"):
        make_criterion({"kind": "heads_and_neurons", "parts": "tails"})
