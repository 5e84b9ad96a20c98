"""Footprints by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from wemem.errors import InputError
from wemem.exporting.footprint import footprint, latencies
from wemem.exporting.sparse import sparse_bytes
from wemem.models import TextGru, TextLstm, TextTransformer, VisionTransformer
from wemem.models.transformer import SelfAttention


def test_multiplications_by_hand():
    """8x8 input; 3x3 kernels without padding leave 6x6, stride 2 leaves 3x3, depthwise multiplies once a channel."""
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 2, stride=2), nn.Conv2d(6, 6, 3, groups=6),
        nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    found = footprint(module, (2, 8, 8))
    layers = [2 * 4 * 9 * 36, 4 * 6 * 4 * 9, 6 * 9, 6 * 5]
    assert found.macs == sum(layers) == found.nonzero_macs
    assert found.parameters == 72 + 8 + (96 + 6) + (54 + 6) + (30 + 5)


def test_a_linear_layer_multiplies_at_every_position():
    assert footprint(nn.Sequential(nn.Linear(4, 3), nn.Flatten()), (7, 4)).macs == 7 * 4 * 3


class First(nn.Module):
    """The first entry of a layer's output, for a batch of sequences."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_recurrent_layers_multiply_at_every_step_by_hand():
    # gates x (input + state) of each layer and direction, at each of 5 steps
    assert footprint(First(nn.RNN(4, 3, batch_first=True)), (5, 4)).macs == 5 * 3 * (4 + 3)
    assert footprint(First(nn.LSTM(4, 3, batch_first=True)), (5, 4)).macs == 5 * 4 * 3 * (4 + 3)
    assert footprint(First(nn.GRU(4, 3, num_layers=2, batch_first=True)), (5, 4)).macs == 5 * 3 * 3 * (4 + 3 + 3 + 3)
    both = nn.LSTM(4, 3, bidirectional=True, proj_size=2, batch_first=True)
    assert footprint(First(both), (5, 4)).macs == 5 * 2 * (4 * 3 * (4 + 2) + 2 * 3)
    assert footprint(nn.GRUCell(4, 3), (4,)).macs == 3 * 3 * (4 + 3)


def test_zeros_of_a_recurrent_layer_are_not_counted():
    layer = First(nn.LSTM(4, 3, batch_first=True))
    layer.layer.weight_hh_l0.data[:6] = 0
    found = footprint(layer, (5, 4))
    assert found.macs - found.nonzero_macs == 5 * 6 * 3 == 5 * (found.parameters - found.nonzero)


def test_attention_multiplies_projections_and_tokens_by_hand():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(query=x, key=x, value=x)[0]

    # 4 projections of 5 tokens, and two products of 5 x 5 tokens over all heads
    assert footprint(Own(), (5, 8)).macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert footprint(layer, (5, 8)).macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16


def test_attention_to_another_width_counts_keys_and_values_at_their_own_tokens():
    class Across(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)

        def forward(self, x):
            return self.attention(x, x[:, :3, :6], x[:, :3, :4])[0]

    assert footprint(Across(), (5, 8)).macs == 2 * 5 * 8 * 8 + 3 * 6 * 8 + 3 * 4 * 8 + 2 * 5 * 3 * 8


def test_transposed_convolutions_multiply_at_every_input_pixel_by_hand():
    layer = nn.ConvTranspose2d(2, 4, 3, stride=2, groups=2)
    assert footprint(layer, (2, 5, 5)).macs == 2 * 2 * 9 * 25


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_layers_count_by_the_weights_they_compute_with(norm):
    found = footprint(nn.Sequential(norm(nn.Linear(6, 4)), nn.Linear(4, 2)), (6,))
    assert found.macs == 6 * 4 + 4 * 2


def test_a_layer_that_is_called_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    assert footprint(Twice(), (4,)).macs == 32


def test_pruned_weights_are_neither_counted_nor_stored():
    dense, pruned = nn.Linear(64, 64), nn.Linear(64, 64)
    pruned.load_state_dict(dense.state_dict())
    pruned.weight.data[:, 8:] = 0
    before, after = footprint(dense, (64,)), footprint(pruned, (64,))
    assert before.nonzero - after.nonzero == 64 * 56 == before.nonzero_macs - after.nonzero_macs
    assert (after.macs, after.parameters, after.dense_bytes) == (before.macs, before.parameters, before.dense_bytes)
    assert after.sparse_bytes < 0.3 * before.sparse_bytes
    assert after.sparse_bytes == len(sparse_bytes(pruned.state_dict()))


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    footprint(module, (3,))
    assert module.training
    assert not module[0]._forward_hooks
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_input_that_does_not_fit_is_one_line():
    with pytest.raises(InputError, match="fails on input of shape"):
        footprint(nn.Linear(3, 2), (4,))


def test_latency_times_every_module_and_says_seconds():
    seen = []
    modules = {"small": nn.Linear(2, 2), "large": nn.Linear(2, 2)}
    for name, module in modules.items():
        module.register_forward_hook(lambda m, x, y, name=name: seen.append((name, len(x[0]))))
    found = latencies(modules, (2,), 5, repeats=4)
    assert found.keys() == modules.keys()
    assert all(np.isfinite(seconds) and seconds > 0 for seconds in found.values())
    assert seen == [("small", 5), ("large", 5)] * 5
    seen.clear()
    latencies(modules, (2,), 5, repeats=100, patience=0.0)
    assert seen == [("small", 5), ("large", 5)] * 4


def test_products_in_the_code_of_a_model_count_in_full():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(8, 24)

        def forward(self, x):
            query, key, value = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.project(x).chunk(3, 2))
            return nn.functional.scaled_dot_product_attention(query, key, value).mean((1, 2))

    assert footprint(Fused(), (5, 8)).macs == 5 * 8 * 24 + 2 * 5 * 5 * 8
    assert footprint(SelfAttention(8, 2), (5, 8)).macs == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8


def test_models_of_tokens_and_patches_by_hand():
    # a block: four projections, two products of tokens, two linear layers, each at every token
    def block(tokens, width, hidden):
        return tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width

    text = TextTransformer(vocabulary=20, width=8, depth=2, heads=2, hidden=16).build((6,), 3)
    assert footprint(text, (6,)).macs == 2 * block(6, 8, 16) + 8 * 3
    image = VisionTransformer(width=8, depth=1, heads=2, hidden=16).build((3, 8, 12), 3)
    assert footprint(image, (3, 8, 12)).macs == 6 * 48 * 8 + block(6, 8, 16) + 8 * 3
    assert footprint(TextLstm(20, 8, hidden=5).build((6,), 3), (6,)).macs == 6 * 4 * 5 * (8 + 5) + 5 * 3
    assert footprint(TextGru(20, 8, hidden=5).build((6,), 3), (6,)).macs == 6 * 3 * 5 * (8 + 5) + 5 * 3


def test_zeros_of_a_head_are_not_counted():
    layer = SelfAttention(8, 2)
    for projection in (layer.query, layer.key, layer.value):
        projection.weight.data[:4] = 0
    found = footprint(layer, (5, 8))
    assert found.macs - found.nonzero_macs == 3 * 5 * 4 * 8
