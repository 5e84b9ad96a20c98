"""The building blocks among workers, ranks, accelerate, odd loaders; resumed and misused."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from own_loop import BATCH, DATA, DEV, EPOCHS, SCORES, SEED, TRAIN, adam, by_blocks, network, tensors
from wemem.blocks import (
    DefenseBatchSampler,
    DefenseLoss,
    PruningEngine,
    memorization_scores,
)
from wemem.defenses import Undefended, make_defense
from wemem.errors import InputError


def test_worker_processes_change_nothing():
    _, alone = by_blocks(make_defense("swmr"), rounds=2)
    _, workers = by_blocks(make_defense("swmr"), rounds=2, num_workers=1, persistent_workers=True)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), workers.parameters(), strict=True))


def test_the_sampler_of_no_defense_shows_every_record_once_an_epoch():
    sampler = DefenseBatchSampler(Undefended(), DATA.labels, 16)
    assert sorted(i for batch in sampler for i in batch) == list(range(len(DATA)))
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert len(sampler) == len(first)


def test_ranks_share_every_batch_in_equal_parts():
    ranks = [DefenseBatchSampler(Undefended(), DATA.labels, 16, rank=r, world_size=2) for r in range(2)]
    parts = [rank.planned() for rank in ranks]
    together = DefenseBatchSampler(Undefended(), DATA.labels, 16).planned()
    assert [len(a.indices) for a in parts[0]] == [len(b.indices) for b in parts[1]]
    for a, b, whole in zip(*parts, together, strict=True):
        assert set(a.indices) | set(b.indices) == set(whole.indices)


def test_accumulated_batches_are_of_one_kind_and_make_one_step():
    labels = DATA.labels[TRAIN]
    sampler = DefenseBatchSampler(make_defense("rmr"), labels, 16, scores=SCORES, accumulation=4)
    planned = sampler.planned()
    whole = DefenseBatchSampler(make_defense("rmr"), labels, 16, scores=SCORES).planned()
    assert [b.steps for b in planned] == [False, False, False, True] * len(whole)
    for i, step in enumerate(whole):
        own = planned[4 * i : 4 * i + 4]
        assert {b.kind for b in own} == {step.kind}
        assert np.concatenate([b.indices for b in own]).tolist() == step.indices.tolist()


def test_a_sampler_continues_where_its_state_was_taken():
    sampler = DefenseBatchSampler(Undefended(), DATA.labels, 16)
    sampler.set_epoch(2)
    everything = list(sampler)
    again = DefenseBatchSampler(Undefended(), DATA.labels, 16)
    again.load_state_dict({**sampler.state_dict(), "epoch": 2, "position": 3})
    assert list(again) == everything[3:]


def test_a_loop_interrupted_between_rounds_continues_to_the_same_weights():
    _, undisturbed = by_blocks(make_defense("swmr"), rounds=3)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)

    def prepared(model, optimizer):
        loader = DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=BATCH)
        engine = PruningEngine(make_defense("swmr"), sparsity=0.6, rounds=3, seed=SEED)
        return engine, engine.prepare(model, optimizer, loader, scores=SCORES)[2]

    def run(engine, model, optimizer, loader, stop):
        x_dev, y_dev = tensors(DEV)
        for current in engine.rounds():
            if current.index == stop:
                return copy.deepcopy((engine.state_dict(), model.state_dict()))
            for _ in engine.epochs(EPOCHS):
                for x, y in loader:
                    engine.loss(model(x), y).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                with torch.no_grad():
                    engine.record(float((model(x_dev).argmax(-1) == y_dev).double().mean()))
        return None

    engine, loader = prepared(model, optimizer)
    saved, weights = run(engine, model, optimizer, loader, stop=2)
    fresh = network()
    fresh.load_state_dict(weights)
    optimizer = torch.optim.Adam(fresh.parameters(), lr=1e-3, weight_decay=5e-4)
    engine, loader = prepared(fresh, optimizer)
    engine.load_state_dict(saved)
    run(engine, fresh, optimizer, loader, stop=None)
    assert all(torch.equal(a, b) for a, b in zip(undisturbed.parameters(), fresh.parameters(), strict=True))


def test_accelerate_wraps_model_optimizer_and_loader():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
    loader = DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=BATCH)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    engine = PruningEngine("swmr", sparsity=0.6, rounds=2, seed=SEED)
    model, optimizer, batches = engine.prepare(model, optimizer, loader, scores=SCORES)
    for _ in engine.rounds():
        for _ in engine.epochs(EPOCHS):
            for x, y in batches:
                accelerator.backward(engine.loss(model(x), y))
                optimizer.step()
                optimizer.zero_grad()
    assert engine.masks
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in engine.masks.items())


class Named(Dataset[dict[str, object]]):
    """Records as mappings, with two inputs and labels of their own."""

    labels = DATA.labels[TRAIN]

    def __len__(self):
        return len(TRAIN)

    def __getitem__(self, i):
        x = torch.from_numpy(DATA.features[TRAIN[i]]).flatten()
        return {"left": x, "right": 2 * x, "labels": int(self.labels[i])}


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        width = DATA.features[0].size
        self.head, self.left, self.right = nn.Linear(8, DATA.classes), nn.Linear(width, 8), nn.Linear(width, 8)

    def forward(self, left, right):
        return self.head(torch.relu(self.left(left) + self.right(right)))


def test_mappings_with_several_inputs_are_pruned_without_the_classifier():
    model = TwoInputs()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    engine = PruningEngine("rsw", sparsity=0.5, rounds=2)
    model, optimizer, loader = engine.prepare(model, optimizer, DataLoader(Named(), batch_size=8), scores=SCORES)
    for _ in engine.rounds():
        for _ in engine.epochs(1):
            for batch in loader:
                engine.loss(model(batch["left"], batch["right"]), batch["labels"]).backward()
                optimizer.step()
                optimizer.zero_grad()
    assert set(engine.masks) == {"left.weight", "right.weight"}


def test_errors_of_a_users_function_come_through():
    def train(records, seed):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        memorization_scores(train, [0, 1] * 10)


class Endless(IterableDataset[int]):
    def __iter__(self):
        yield from ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loader": DataLoader(Endless())}, "map-style"),
        ({"scores": SCORES[:-1]}, "one score for each"),
        ({"scores": None}, "needs memorization scores"),
        ({"defense": make_defense("oosd", {"views": 0, "start": "dense"})}, "soft targets"),
        (
            {"defense": make_defense("oosd", {"start": "dense"}), "targets": np.zeros((780, 3), np.float32)},
            "ViewedDataset",
        ),
        ({"defense": "dpsgd"}, "Opacus"),
        ({"defense": "advreg"}, "AdversarialLoss"),
        ({"optimizer": adam(network())}, "does not hold the parameter"),
        ({"labels": [0, 1]}, "one label for each"),
    ],
)
def test_bad_use_is_one_line_with_a_remedy(changed, message):
    model = network()
    given = {
        "defense": "swmr", "scores": SCORES, "labels": None, "optimizer": adam(model),
        "loader": DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=BATCH), **changed,
    }  # fmt: skip
    engine = PruningEngine(given["defense"])
    with pytest.raises(InputError, match=message) as raised:
        engine.prepare(
            model, given["optimizer"], given["loader"], scores=given["scores"], labels=given["labels"],
            targets=given.get("targets"),
        )  # fmt: skip
    assert "\n" not in str(raised.value)


def test_a_defense_with_a_fresh_start_takes_no_model_that_may_be_trained():
    with pytest.raises(InputError, match="untrained=True"):
        PruningEngine("oosd")
    assert PruningEngine("oosd", untrained=True).defense.name == "oosd"


def test_a_loss_outside_of_the_loop_is_refused():
    engine, model = by_blocks(make_defense("rsw"), rounds=1)
    with pytest.raises(InputError, match="within the loop"):
        engine.loss(model(tensors(TRAIN)[0]), tensors(TRAIN)[1])


def test_a_loss_that_needs_targets_is_refused_without():
    with pytest.raises(InputError, match="out_of_sample_targets"):
        DefenseLoss(make_defense("oosd"))(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="every class that the model predicts"):
        DefenseLoss(make_defense("oosd"))(torch.zeros(2, 3), torch.tensor([0, 1]), torch.zeros(2, 2))


DDP = """
import os, sys, torch, numpy as np
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from wemem.blocks import PruningEngine
rank = int(sys.argv[1])
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
dist.init_process_group("gloo", rank=rank, world_size=2)
rng = np.random.default_rng(0)
x, y = torch.from_numpy(rng.normal(size=(40, 6)).astype(np.float32)), torch.arange(40) % 2
torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)))
optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
engine = PruningEngine("swmr", sparsity=0.5, rounds=2, rank=rank, world_size=2)
loader = DataLoader(TensorDataset(x, y), batch_size=5)
model, optimizer, loader = engine.prepare(model, optimizer, loader, scores=rng.random(40))
for _ in engine.rounds():
    for _ in engine.epochs(2):
        for a, b in loader:
            engine.loss(model(a), b).backward()
            optimizer.step()
            optimizer.zero_grad()
flat = torch.cat([p.detach().flatten() for p in model.parameters()])
both = [torch.zeros_like(flat) for _ in range(2)]
dist.all_gather(both, flat)
assert torch.equal(*both) and (flat == 0).any()
print("same")
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_pruned_weights(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", DDP, str(rank), port], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [out for out, _ in outputs] == ["same\n"] * 2, outputs
