"""The fast recipe: its schedule and its average by closed form, and all of it against a plain PyTorch loop."""

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from toy import blobs, largest_difference, same_bytes, split_of
from wemem.config.parse import parse_study
from wemem.data.batches import Group, plan_steps
from wemem.data.split import Role
from wemem.defenses import DEFENSES, SlidingWindow, Undefended, make_defense
from wemem.errors import InputError
from wemem.models import make_model
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pruning import Pruning, Schedule, iterate
from wemem.store.store import Store
from wemem.testing.trials import Trial, small_data
from wemem.training import DENSE, FAST, FINETUNE, Ensemble, Recipe, fit
from wemem.training.schedule import RISE, WeightAverage, rate_at, remembered

IMAGES = blobs(64, shape=(1, 8, 8))
SEEDS = [3, 4, 5]
#: The fast recipe for 24 records: steps of 8, and no augmentation, which the plain loop does not have.
PLAIN = replace(FAST, epochs=3, batch_size=8, learning_rate=0.02, augment="none", average=0.2)
WRONG: Any = "cosine"


def of_images(models: int) -> Ensemble:
    return Ensemble.initialize(
        make_model("convnet", {"width": 0.25}), IMAGES.input_shape, IMAGES.classes, range(models)
    )


# the schedule


def test_a_constant_schedule_is_one_everywhere():
    assert {rate_at("constant", t) for t in (0.0, 0.3, 1.0)} == {1.0}


def test_one_cycle_is_the_triangle_that_numpy_interpolates():
    moments = np.linspace(0, 1, 101)
    expected = np.interp(moments, [0, RISE, 1], [0, 1, 0])
    np.testing.assert_allclose([rate_at("one_cycle", t) for t in moments], expected, atol=1e-12)


def test_one_cycle_takes_half_of_the_way_of_a_constant_rate():
    steps = 1000
    assert sum(rate_at("one_cycle", (i + 0.5) / steps) for i in range(steps)) / steps == pytest.approx(0.5, abs=1e-3)


# the average


def test_an_average_of_weights_that_stay_is_those_weights():
    weights, statistics = {"w": torch.tensor([[1.5], [2.0]])}, {"n": torch.tensor([3, 4])}
    average = WeightAverage(weights, statistics)
    average.update(weights, statistics, None, 0.7)
    assert torch.equal(average.parameters["w"], weights["w"])


def test_an_average_is_the_sum_of_its_closed_form():
    rng, share, horizon = np.random.default_rng(0), 1 / 40, 0.1
    visited = rng.normal(size=(41, 2, 3))
    average = WeightAverage({"w": torch.from_numpy(visited[0])}, {})
    for weights in visited[1:]:
        average.update({"w": torch.from_numpy(weights)}, {}, None, remembered(share, horizon))
    kept = math.exp(-share / horizon)
    parts = np.array([kept**40, *((1 - kept) * kept ** (40 - i) for i in range(1, 41))])
    assert parts.sum() == pytest.approx(1)
    np.testing.assert_allclose(average.parameters["w"], np.einsum("t,tkd->kd", parts, visited), rtol=1e-12)


def test_an_average_does_not_depend_on_the_size_of_the_steps():
    assert remembered(0.1, 0.3) == pytest.approx(remembered(0.05, 0.3) ** 2)


def test_an_average_changes_for_the_models_that_take_the_step_alone():
    start, after = {"w": torch.zeros(3, 2)}, {"w": torch.ones(3, 2)}
    average = WeightAverage(start, {"n": torch.zeros(3, dtype=torch.int64)})
    average.update(after, {"n": torch.tensor([7, 8, 9])}, torch.tensor([1]), 0.25)
    assert average.parameters["w"].tolist() == [[0, 0], [0.75, 0.75], [0, 0]]
    assert average.buffers["n"].tolist() == [0, 8, 0]  # whole numbers are copied


# the training


def _average(kept: float) -> Any:
    return lambda average, own, _: kept * average + (1 - kept) * own


def by_hand(start: Ensemble, split: Any, recipe: Recipe) -> list[dict[str, torch.Tensor]]:
    """Each model by PyTorch's SGD and its averaged model, the rate by numpy, the steps as planned."""
    x, y = torch.from_numpy(IMAGES.features), torch.from_numpy(IMAGES.labels)
    states = []
    for k in range(len(start)):
        module = start.module(k).train()
        plan = [
            plan_steps([[Group(split.records(k, Role.TRAIN))]], recipe.batch_size, [SEEDS[k]], epoch)
            for epoch in range(recipe.epochs)
        ]
        total = sum(map(len, plan))
        averaged = AveragedModel(module, avg_fn=_average(math.exp(-1 / total / recipe.average)), use_buffers=True)
        averaged.update_parameters(module)  # the first call copies
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9, weight_decay=recipe.weight_decay)
        for i, step in enumerate(step for epoch in plan for step in epoch):
            rate = recipe.learning_rate * np.interp((i + 0.5) / total, [0, RISE, 1], [0, 1, 0])
            optimizer.param_groups[0]["lr"] = float(rate)
            rows = torch.from_numpy(step.records[0])
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimizer.step()
            averaged.update_parameters(module)
        states.append(averaged.module.state_dict())
    return states


@pytest.mark.parametrize("backend", ["sequential", "vmapped"])
def test_the_fast_recipe_is_a_plain_loop_with_a_triangular_rate_and_an_averaged_model(backend):
    start, split = of_images(3), split_of(IMAGES, members=3, train=24, dev=8)
    fitted = fit(start, IMAGES, split, PLAIN, seeds=SEEDS, backend=backend).ensemble
    for k, expected in enumerate(by_hand(start, split, PLAIN)):
        own = fitted.state(k)
        for name, tensor in expected.items():
            if tensor.is_floating_point():
                torch.testing.assert_close(own[name], tensor, rtol=2e-4, atol=2e-5)


def test_a_model_alone_is_the_same_as_among_others():
    split = split_of(IMAGES, members=3, train=24, dev=8)
    together = fit(of_images(3), IMAGES, split, PLAIN, seeds=SEEDS, backend="vmapped")
    apart = fit(of_images(3), IMAGES, split, PLAIN, seeds=SEEDS, backend="sequential")
    assert largest_difference(together.ensemble, apart.ensemble) < 1e-4
    again = fit(of_images(3), IMAGES, split, PLAIN, seeds=SEEDS, backend="sequential")
    assert same_bytes(apart.ensemble, again.ensemble)


def test_a_window_of_few_records_takes_as_long_a_cycle():
    """The rates of an epoch depend on the epoch, not on the number of its steps."""
    split = split_of(IMAGES, members=1, train=24, dev=8)
    window = SlidingWindow(width=0.5, stride=0.25)
    scores = [np.random.default_rng(0).random(len(IMAGES))]
    fitted = fit(of_images(1), IMAGES, split, PLAIN, seeds=[3], defense=window, scores=scores)
    assert fitted.history[0].steps < 9
    assert len(fitted.history[0].dev_accuracy) == 3


def test_pruned_weights_of_an_average_are_exactly_zero():
    split = split_of(IMAGES, members=2, train=24, dev=8)
    pruning = Pruning(Schedule(0.6, 2), recipe=replace(PLAIN, augment="crop_flip"))
    *_, last = iterate(of_images(2), IMAGES, split, pruning, Undefended(), seeds=SEEDS[:2])
    for name, mask in last.ensemble.masks.items():
        assert not mask.all()
        assert not last.ensemble.parameters[name][~mask].any()
        assert last.ensemble.parameters[name][mask].all()


@dataclass(frozen=True)
class FastTrial(Trial):
    """The small study of the conformance checks, by the fast recipe."""

    def on(self, backend: str) -> Trial:
        return FastTrial(self.folder, self.seed, backend)

    @cached_property
    def pipeline(self) -> Pipeline:
        fast = {"recipe": "fast", "epochs": 3, "batch_size": 16, "learning_rate": 0.02, "augment": "none"}
        table = {
            "data": {"source": "digits"}, "model": {"kind": "fc", "hidden": [12, 8], "dropout": 0.0}, "device": "cpu",
            "training": fast, "finetune": fast, "pruning": {"rounds": 2}, "backend": self.backend,
        }  # fmt: skip
        return Pipeline.open(parse_study(table), small_data(self.seed, self.other), Store(self.folder), Silent())


@pytest.mark.parametrize("kind", DEFENSES)
def test_every_defense_prunes_by_the_fast_recipe_on_both_backends_alike(kind, tmp_path):
    trial, defense = FastTrial(tmp_path, 1), make_defense(kind, {})
    pruned = trial.prune(defense)
    assert largest_difference(pruned, trial.on("sequential").prune(defense)) < 1e-3
    paper = Trial(tmp_path, 1).prune(defense)
    assert not same_bytes(pruned, paper)


def test_without_a_schedule_and_an_average_nothing_changes():
    split = split_of(IMAGES, members=2, train=24, dev=8)
    plain = Recipe(epochs=2, batch_size=8)
    explicit = Recipe(epochs=2, batch_size=8, schedule="constant", average=0.0)
    first, second = (fit(of_images(2), IMAGES, split, r, seeds=SEEDS[:2]).ensemble for r in (plain, explicit))
    assert same_bytes(first, second)


# as a setting of a study


def study(**tables: Any) -> Any:
    return parse_study({"data": {"source": "digits"}, **tables})


def test_a_study_without_a_recipe_has_the_papers():
    assert (study().training, study().finetune) == (DENSE, FINETUNE)
    assert study(training={"recipe": "paper"}).training == DENSE


def test_a_named_recipe_gives_all_keys_but_those_that_the_table_sets():
    config = study(training={"recipe": "fast", "epochs": 9}, finetune={"recipe": "fast"})
    assert config.training == replace(FAST, epochs=9)
    assert config.finetune == FAST


def test_the_stored_table_of_a_study_gives_the_same_recipe():
    config = study(training={"recipe": "fast"})
    assert config.table["training"] == asdict(FAST)
    assert parse_study(config.table).training == FAST


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"recipe": "slow"}, r"expected recipe in \[training\] to be paper or fast, got 'slow'"),
        ({"recipe": ["fast"]}, r"expected recipe in \[training\] to be paper or fast, got \['fast'\]"),
        ({"average": 1.5}, r"average must be a share of the training in \[0, 1\], got 1.5"),
    ],
)
def test_unknown_recipes_and_averages_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        study(training=table)


def test_unknown_schedules_are_refused():
    with pytest.raises(InputError, match="schedule must be constant or one_cycle, got 'cosine'"):
        Recipe(schedule=WRONG)
