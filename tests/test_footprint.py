"""Footprints by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from wemem.errors import InputError
from wemem.export.footprint import footprint, latencies
from wemem.export.sparse import sparse_bytes


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
