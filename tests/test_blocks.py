"""The building blocks of a user's own loop: the same records, steps and weights as the ensemble trainer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wemem
from own_loop import BATCH, DATA, SCORES, TRAIN, adam, by_blocks, by_ensemble, network, tensors
from wemem.blocks import (
    IterativePruner,
    PruningEngine,
    StepsByKind,
    ViewedDataset,
    memorization_of_models,
    memorization_scores,
    out_of_sample_targets,
)
from wemem.defenses import make_defense
from wemem.errors import InputError
from wemem.memorization import read_scores
from wemem.pruning import Pruning, Schedule, make_criterion


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
