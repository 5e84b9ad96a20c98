"""The optimizer of stacked members, against one PyTorch optimizer for each member."""

import numpy as np
import pytest
import torch

from wemem.training.optimizer import StackedOptimizer

MEMBERS = 7
SHAPES = [(5, 3), (5,), (2, 1, 3, 3), ()]
MAKERS = {
    "adam": lambda leaves: torch.optim.Adam(leaves, lr=0.1, weight_decay=0.01, fused=True),
    "sgd": lambda leaves: torch.optim.SGD(leaves, lr=0.1, momentum=0.9, weight_decay=0.01),
}


def random(rng, shape):
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("unused", [None, 1])
def test_members_step_as_if_each_had_its_own_optimizer(kind, unused):
    rng = np.random.default_rng(0)
    stacked = [random(rng, (MEMBERS, *shape)) for shape in SHAPES]
    alone = [[torch.nn.Parameter(t[k].clone()) for t in stacked] for k in range(MEMBERS)]
    oracles = [MAKERS[kind](own) for own in alone]
    together = StackedOptimizer(stacked, MAKERS[kind])
    everyone = list(range(MEMBERS))
    some = [sorted(rng.choice(MEMBERS, rng.integers(1, MEMBERS), replace=False).tolist()) for _ in range(12)]
    for taking in [everyone, everyone, [0, 1, 2, 5], *some, everyone]:
        gradients = [None if i == unused else random(rng, (len(taking), *shape)) for i, shape in enumerate(SHAPES)]
        together.step(taking, gradients)
        for row, k in enumerate(taking):
            for leaf, gradient in zip(alone[k], gradients, strict=True):
                leaf.grad = None if gradient is None else gradient[row].clone()
            oracles[k].step()
        for k, own in enumerate(alone):
            for leaf, t in zip(own, stacked, strict=True):
                torch.testing.assert_close(t[k], leaf.detach(), rtol=1e-5, atol=1e-6)


def test_members_that_always_step_together_share_their_leaves():
    made = []

    def make(leaves):
        made.append(torch.optim.SGD(leaves, lr=1.0))
        return made[-1]

    optimizer = StackedOptimizer([torch.zeros(MEMBERS, 2)], make)
    for taking, leaves in ((range(MEMBERS), 1), ([2, 3], 3), ([2, 3], 3), ([2], 4), (range(MEMBERS), 4)):
        optimizer.step(list(taking), [torch.ones(len(taking), 2)])
        assert len(made[0].param_groups[0]["params"]) == leaves
