"""The building blocks of a user's own loop: the same records, steps and weights as the ensemble trainer."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import wemem
from toy import blobs
from wemem.blocks import (
    DefenseBatchSampler,
    DefenseLoss,
    IterativePruner,
    PruningEngine,
    StepsByKind,
    ViewedDataset,
    memorization_of_models,
    memorization_scores,
    out_of_sample_targets,
)
from wemem.data.split import Role, Split
from wemem.defenses import Undefended, make_defense
from wemem.errors import InputError
from wemem.memorization import read_scores
from wemem.pruning import Pruning, Schedule, iterate, make_criterion
from wemem.training import Ensemble, Recipe

EPOCHS, BATCH, SEED = 3, 16, 5
DATA = blobs()
TRAIN, DEV = np.arange(0, 60), np.arange(60, 90)
SCORES = np.random.default_rng(1).random(len(TRAIN))


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(DATA.features[0].size, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(),
        nn.Linear(8, DATA.classes),
    )  # fmt: skip


def tensors(records):
    return torch.from_numpy(DATA.features[records]), torch.from_numpy(DATA.labels[records])


def by_ensemble(defense, optimizer="adam", targets=None, rounds=3):
    """The rounds of the ensemble trainer for one model."""
    roles = np.zeros((1, len(DATA)), np.int8)
    roles[0, TRAIN], roles[0, DEV] = Role.TRAIN, Role.DEV
    recipe = Recipe(epochs=EPOCHS, patience=None, batch_size=BATCH, optimizer=optimizer, keep="best")
    scores = np.full(len(DATA), np.nan)
    scores[TRAIN] = SCORES
    ensemble = Ensemble.from_modules([network()])
    soft = None
    if targets is not None:
        soft = np.zeros((1, len(DATA), DATA.classes), np.float32)
        soft[0, TRAIN] = targets
    done = iterate(
        ensemble, DATA, Split(roles, DATA.labels, "subsets"), Pruning(Schedule(0.6, rounds), recipe=recipe), defense,
        seeds=[SEED], scores=[scores], teacher_log_probs=soft, backend="sequential",
    )  # fmt: skip
    return list(done)


def by_blocks(defense, optimizer="adam", targets=None, rounds=3, **wrapping):
    """The same in a plain loop."""
    model = network()
    made = (
        torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
        if optimizer == "adam"
        else torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    )
    loader = DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=BATCH, **wrapping)
    engine = PruningEngine(defense, sparsity=0.6, rounds=rounds, seed=SEED)
    model, made, batches = engine.prepare(model, made, loader, scores=SCORES, targets=targets)
    x_dev, y_dev = tensors(DEV)
    for _ in engine.rounds():
        for _ in engine.epochs(EPOCHS):
            model.train()
            for x, y in batches:
                engine.loss(model(x), y).backward()
                made.step()
                made.zero_grad()
            model.eval()
            with torch.no_grad():
                engine.record(float((model(x_dev).argmax(-1) == y_dev).double().mean()))
    return engine, model


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["undefended", "rsw", "rmr", "swmr", "ppb", "relaxloss", "label_smoothing", "hamp"])
def test_a_plain_loop_ends_with_the_weights_of_the_ensemble_trainer(kind, optimizer):
    defense = make_defense(kind)
    ensemble = by_ensemble(defense, optimizer)[-1].ensemble
    engine, model = by_blocks(defense, optimizer)
    for name, weight in model.named_parameters():
        assert torch.allclose(weight, ensemble.parameters[name][0], atol=2e-6), name
    for name, mask in ensemble.masks.items():
        assert torch.equal(engine.masks[name], mask[0])
        assert not model.get_parameter(name)[~mask[0]].any()


def test_learning_from_out_of_sample_targets_ends_with_the_weights_of_the_ensemble_trainer():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(TRAIN), DATA.classes))
    targets = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    defense = make_defense("oosd", {"views": 0, "start": "dense", "clusters": 0})
    ensemble = by_ensemble(defense, "sgd", targets)[-1].ensemble
    _, model = by_blocks(defense, "sgd", targets)
    for name, weight in model.named_parameters():
        assert torch.allclose(weight, ensemble.parameters[name][0], atol=2e-6), name


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


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_pruned_weights_stay_zero_under_any_optimizer(make):
    model = network()
    optimizer = make(model.parameters(), lr=0.1, weight_decay=0.1)
    pruner = IterativePruner(model, Pruning(Schedule(0.5, rounds=1)), tensors(TRAIN)[0][:2])
    pruner.attach(optimizer)
    pruner.prune(0)
    for _ in range(3):
        optimizer.zero_grad()
        model(tensors(TRAIN)[0]).square().sum().backward()
        optimizer.step()
        assert all(not model.get_parameter(n)[~m].any() for n, m in pruner.masks.items())
    assert pruner.sparsity == pytest.approx(0.5, abs=0.01)


def test_each_kind_of_batch_has_its_own_state_and_decay():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    kinds = StepsByKind(optimizer)
    apart = {}
    for kind in ("calm", "risky"):
        other = nn.Parameter(torch.ones(1))
        apart[kind] = (other, torch.optim.SGD([other], lr=0.1, momentum=0.9))
    for kind, gradient in [("calm", 1.0), ("risky", -2.0), ("calm", 3.0), ("risky", 1.0)]:
        before = weight.detach().clone()
        weight.grad = torch.tensor([gradient])
        kinds.select(kind, None)
        optimizer.step()
        other, own = apart[kind]
        start = other.detach().clone()
        other.grad = torch.tensor([gradient])
        own.step()
        assert torch.allclose(weight - before, other - start)


def test_a_scheduler_and_gradient_clipping_work_on_the_users_optimizer():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    loader = DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=BATCH)
    engine = PruningEngine("swmr", sparsity=0.5, rounds=2)
    model, optimizer, batches = engine.prepare(model, optimizer, loader, scores=SCORES)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in engine.rounds():
        for _ in engine.epochs(2):
            for x, y in batches:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(x)
                engine.loss(logits.float(), y).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                average.update_parameters(model)
            scheduler.step()
    engine.apply_masks(average)
    masks = engine.masks
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 16)
    assert optimizer.param_groups[0]["weight_decay"] == 5e-4
    assert all(not average.module.get_parameter(name)[~mask].any() for name, mask in masks.items())


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


def test_structured_pruning_makes_the_users_module_and_optimizer_smaller():
    pytest.importorskip("torch_pruning")
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    loader = DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=BATCH)
    pruning = Pruning(Schedule(0.5, rounds=2), criterion=make_criterion("l1_filter"))
    engine = PruningEngine("rsw", pruning=pruning)
    model, optimizer, batches = engine.prepare(model, optimizer, loader, scores=SCORES)
    for _ in engine.rounds():
        for _ in engine.epochs(1):
            for x, y in batches:
                engine.loss(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
    assert (model[1].out_features, model[3].in_features, model[3].out_features) == (6, 6, 4)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}


def test_torch_masks_are_read_and_written():
    model = network()
    nn.utils.prune.l1_unstructured(model[1], "weight", amount=0.25)
    pruner = IterativePruner(model, Pruning(Schedule(0.5, rounds=1)), tensors(TRAIN)[0][:2])
    kept = pruner.masks["1.weight"].clone()
    pruner.prune(0)
    assert not (pruner.masks["1.weight"] & ~kept).any()  # masks only grow
    pruner.write_torch_masks()
    assert torch.equal(model[1].weight_mask.bool(), pruner.masks["1.weight"])


def test_a_saved_model_is_read_by_the_rest(tmp_path):
    engine, model = by_blocks(make_defense("swmr"), rounds=2)
    weights = engine.save(tmp_path / "pruned")
    again = wemem.load_pruned(network(), weights)
    x = tensors(TRAIN)[0]
    assert torch.equal(again(x), model.eval()(x))
    compact = wemem.read_sparse(tmp_path / "pruned" / "weights.sparse.safetensors")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in compact.items())


def nearest(features, labels):
    """A training function: the nearest of the records it was given decides."""

    def train(records, seed):
        def predict(numbers):
            x = features[np.asarray(numbers) % len(features)]
            distance = np.abs(x[:, None] - features[records]).sum(-1)
            closest = [distance[:, labels[records] == c].min(1) for c in range(labels.max() + 1)]
            return -np.stack(closest, 1).astype(np.float32)

        return predict

    return train


def test_scores_of_a_users_training_function_find_the_record_that_only_its_own_label_explains(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 20)
    features = (10 * labels[:, None] + rng.normal(size=(40, 3))).astype(np.float32)
    features[0] = 13  # beside the other class, and nobody's neighbour
    scores = memorization_scores(
        nearest(features, labels), labels, models=12, form="indicator", directory=tmp_path / "models"
    )
    assert scores.score[0] == 1
    assert np.abs(scores.score[1:]).max() < 0.5
    scores.write(tmp_path / "scores.csv")
    assert np.allclose(read_scores(tmp_path / "scores.csv", 40), scores.score, equal_nan=True)

    def never(records, seed):
        raise AssertionError("it was stored")

    again = memorization_scores(never, labels, models=12, form="indicator", directory=tmp_path / "models")
    assert np.array_equal(again.score, scores.score)
    with pytest.raises(InputError, match="another one's"):
        memorization_scores(never, labels, models=13, directory=tmp_path / "models")


def test_scores_of_given_models_are_the_mean_with_less_the_mean_without():
    logits = np.log(np.array([[[0.9, 0.1]], [[0.8, 0.2]], [[0.3, 0.7]]], np.float32))
    own = memorization_of_models(logits, np.array([[True], [True], [False]]), [0])
    assert own.score[0] == pytest.approx(0.85 - 0.3)


def test_targets_come_from_models_that_did_not_train_on_the_record():
    labels = np.repeat(np.arange(2), 10)
    trained = []

    def train(records, seed):
        trained.append(set(records.tolist()))
        own = len(trained) - 1

        def predict(numbers):
            assert not trained[own] & {int(n) % 20 for n in numbers}
            return np.tile(np.log([[0.25, 0.75]]), (len(numbers), 1)).astype(np.float32)

        return predict

    features = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    soft = out_of_sample_targets(train, labels, features, teachers=4, held_out_from=2, clusters=0, views=1)
    assert soft.log_probabilities.shape == (40, 2)
    assert np.allclose(np.exp(soft.log_probabilities), [0.25, 0.75])


def test_views_of_the_users_are_learned_beside_the_records():
    shown = []

    class Spy(ViewedDataset):
        def __getitem__(self, number):
            shown.append(number)
            return super().__getitem__(number)

    x, y = tensors(TRAIN)
    data = Spy(TensorDataset(x, y), lambda item, rng: (item[0] + 1, item[1]), count=2)
    model = network()
    optimizer = adam(model)
    targets = torch.log_softmax(torch.randn(3 * len(TRAIN), DATA.classes), -1).numpy()
    engine = PruningEngine(make_defense("oosd", {"views": 2, "start": "dense"}), sparsity=0.5, rounds=1)
    model, optimizer, batches = engine.prepare(model, optimizer, DataLoader(data, batch_size=BATCH), targets=targets)
    shown.clear()
    for _ in engine.rounds():
        for _ in engine.epochs(1):
            for inputs, labels in batches:
                engine.loss(model(inputs), labels).backward()
                optimizer.step()
    assert sorted(shown) == list(range(3 * len(TRAIN)))


def test_errors_of_a_users_function_come_through():
    def train(records, seed):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        memorization_scores(train, [0, 1] * 10)


class Endless(IterableDataset[int]):
    def __iter__(self):
        yield from ()


def adam(model):
    return torch.optim.Adam(model.parameters(), weight_decay=5e-4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loader": DataLoader(Endless())}, "map-style"),
        ({"scores": SCORES[:-1]}, "one score for each"),
        ({"scores": None}, "needs memorization scores"),
        ({"defense": make_defense("oosd", {"views": 0, "start": "dense"})}, "soft targets"),
        (
            {"defense": make_defense("oosd", {"start": "dense"}), "targets": np.zeros((240, 3), np.float32)},
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
