"""Members that do not fit into memory together: how that is known, and that parts give what the whole would have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import small_images
from toy import CLASSES, FEATURES, blobs, ensemble_of, largest_difference, same_bytes, split_of
from wemem.defenses import Defense, Undefended
from wemem.errors import InputError
from wemem.files import memory_limit as machine
from wemem.training import Ensemble, Recipe, fit
from wemem.training.device import CPU
from wemem.training.fit import ONE
from wemem.training.memory import CPU_RESERVE, Share, bound, halving, memory_for_training, peak, share
from wemem.training.run import ASKED

pytestmark = pytest.mark.slow

DATA = blobs()
SEEDS = [11, 12, 13]
SGD = Recipe(epochs=3, patience=None, batch_size=16, learning_rate=0.05, optimizer="sgd")
GIB = 2**30


@dataclass(frozen=True)
class Hungry(Defense):
    """Plain training, but for members that are more than ``most`` at once, or for the first ``times`` of its steps."""

    most: int = 99
    times: int = 0

    @property
    def name(self):
        return "hungry"

    def loss(self, batch):
        CALLS.append(len(batch.logits))
        if len(batch.logits) > self.most or len(CALLS) <= self.times:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return batch.mean(batch.cross_entropy())


CALLS: list[int] = []


class Small(nn.Module):
    """Takes so many records at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        SIZES.append(len(x))
        if len(x) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.head(x)


SIZES: list[int] = []


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def trained(defense: Defense | None = None, *, ensemble: Ensemble | None = None, data=DATA, **settings: Any):
    CALLS.clear()
    return fit(ensemble or ensemble_of(data), data, split_of(data), SGD, seeds=SEEDS, defense=defense, **settings)


def little_memory(monkeypatch: pytest.MonkeyPatch, fitting: int) -> None:
    """As if so many members fitted."""

    def limited(most: int, one: int, two: int, kept: int, limit: int) -> Share:
        return share(most, one, two, kept, one + kept + (fitting - 1) * (two - one + kept))

    monkeypatch.setitem(vars(import_module("wemem.training.fit")), "memory_for_training", lambda device, held: 1)
    monkeypatch.setitem(vars(import_module("wemem.training.fit")), "share", limited)


def task_of(ensemble: Ensemble, data, recipe: Recipe = SGD):
    """What ``fit`` asks how much memory members take."""
    tasks = []

    class CaughtError(Exception):
        pass

    def catch(task, on_epoch):
        tasks.append(task)
        raise CaughtError

    kind = vars(import_module("wemem.training.fit"))["_Task"]
    whole = kind.fit
    kind.fit = catch
    split, seeds = split_of(data, members=len(ensemble)), range(len(ensemble))
    try:
        fit(ensemble, data, split, recipe, seeds=seeds, backend="vmapped")
    except CaughtError:
        return tasks[0]
    finally:
        kind.fit = whole
    return None


# --- what is measured ---


def test_the_peak_of_a_linear_model_is_its_outputs_their_gradient_and_the_weights():
    records, inputs, outputs = 100, 50, 30
    x, weight = torch.zeros(records, inputs), torch.zeros(inputs, outputs, requires_grad=True)

    def step():
        y = x @ weight
        return torch.autograd.grad(y, [weight], torch.ones_like(y))

    assert peak(step, CPU) == 4 * (2 * records * outputs + inputs * outputs)
    assert peak(lambda: x.view(-1).square_(), CPU) == 0


def test_what_was_let_go_of_does_not_count():
    assert peak(lambda: [torch.zeros(1000).sum() for _ in range(5)], CPU) < 2 * 4000


@pytest.mark.parametrize("images", [False, True])
def test_the_peak_is_a_straight_line_in_the_members_and_below_the_bound(images):
    data = small_images.images() if images else DATA
    model = small_images.MODEL if images else None
    seeds = list(range(6))
    ensemble = (
        Ensemble.initialize(model, data.input_shape, data.classes, seeds)
        if model
        else ensemble_of(data, members=6, hidden=(64, 32))
    )
    task = task_of(ensemble, data, Recipe(batch_size=32))
    one, two, six = (task._peak(count) for count in (1, 2, 6))
    # a convolution of one member goes another way through PyTorch than that of several
    assert six == pytest.approx(one + 5 * (two - one), rel=0.1 if images else 0.02)
    assert one < bound(ensemble.module(0), task.example, 32, ASKED)


def test_the_largest_equal_parts_are_taken():
    sizes = [share(7, one=3 * GIB, two=4 * GIB, kept=0, limit=n * GIB).models for n in range(1, 11)]
    assert sizes == [1, 1, 1, 2, 3, 4, 4, 4, 7, 7]


# --- the limit ---


@pytest.mark.parametrize(("version", "own", "limits", "expected"), [
    ("0::/a/b", "memory.max", {"a/b": "max", "a": "3000000"}, 3_000_000),
    ("0::/a/b", "memory.max", {"a/b": "2000000", "a": "3000000"}, 2_000_000),
    ("0::/elsewhere", "memory.max", {"": "5000000"}, 5_000_000),
    ("4:cpu:/a\n7:memory:/a", "memory.limit_in_bytes", {"memory/a": "4000000", "memory": str(2**63 - 4096)}, 4_000_000),
    ("7:memory:/outside", "memory.limit_in_bytes", {"memory": "6000000"}, 6_000_000),
    ("4:cpu:/a", "memory.limit_in_bytes", {"memory/a": "4000000"}, None),
    ("0::/", "memory.max", {}, None),
])  # fmt: skip
def test_the_limit_is_that_of_the_group_and_of_those_around_it(tmp_path, monkeypatch, version, own, limits, expected):
    for folder, limit in limits.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / own).write_text(limit + "\n")
    (tmp_path / "own").write_text(version + "\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", Path("/nowhere"))
    physical = machine.machine_memory()
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    assert machine.machine_memory() == (physical if expected is None else expected)
    assert memory_for_training(CPU, held=1000) == int((1 - CPU_RESERVE) * machine.machine_memory()) - 1000


# --- parts ---


def test_an_ordinary_ensemble_is_trained_whole_and_without_a_trial(monkeypatch):
    monkeypatch.setattr(
        vars(import_module("wemem.training.fit"))["Run"], "trial", lambda run, step: pytest.fail("a trial was made")
    )
    assert str(trained().choice.reason) == "rule: no convolutions"


@pytest.mark.parametrize("fitting", [1, 2])
def test_parts_give_what_the_whole_gives_but_for_rounding(monkeypatch, fitting):
    whole = trained(Hungry())
    little_memory(monkeypatch, fitting)
    parts = trained(Hungry())
    assert set(CALLS[3:]) == ({1} if fitting == 1 else {1, 2})  # after the trials
    assert largest_difference(parts.ensemble, whole.ensemble) < 1e-6
    assert parts.history == whole.history
    assert f"; {fitting} of 3 models at a time: 3 would take" in str(parts.choice.reason)


def test_members_with_large_matrices_are_computed_in_parts_on_a_cpu(monkeypatch):
    whole = trained()
    widest = max(t[0].nbytes for t in whole.ensemble.parameters.values())
    monkeypatch.setattr("wemem.training.memory.LARGEST", 2 * widest)
    parts = trained()
    assert str(parts.choice.reason).endswith(
        f"; 2 of 3 models at a time: tensors above {2 * widest / 2**20:.3g} MiB are slow"
    )
    assert largest_difference(parts.ensemble, whole.ensemble) < 1e-6
    assert parts.history == whole.history


@pytest.mark.usefixtures("two_threads")
def test_members_one_after_another_are_the_same_to_the_bit_whatever_fits(monkeypatch):
    data = small_images.images()
    ensemble = Ensemble.initialize(small_images.MODEL, data.input_shape, data.classes, seeds=[0, 1, 2])
    whole = trained(Hungry(), ensemble=ensemble, data=data)
    assert str(whole.choice.reason).endswith("on a CPU")
    failed_once = trained(Hungry(times=1), ensemble=ensemble, data=data)
    assert str(failed_once.choice.reason).endswith("; 1 of 2 models at a time: memory ran out with more")
    little_memory(monkeypatch, 1)
    limited = trained(Hungry(), ensemble=ensemble, data=data)
    assert "; 1 of 2 models at a time: 2 would take" in str(limited.choice.reason)
    assert same_bytes(failed_once.ensemble, whole.ensemble)
    assert same_bytes(limited.ensemble, whole.ensemble)


def test_where_memory_runs_out_all_the_same_the_part_begins_anew_with_half():
    whole, halved = trained(Hungry()), trained(Hungry(most=2))
    assert CALLS[:2] == [3, 2]
    assert largest_difference(halved.ensemble, whole.ensemble) < 1e-6
    assert str(halved.choice.reason).endswith("; 2 of 3 models at a time: memory ran out with more")


@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_one_member_that_does_not_fit_is_refused(backend):
    with pytest.raises(InputError, match=f"expected memory for {ONE}, got none left; use a smaller batch_size, a smal"):
        trained(Hungry(most=0), backend=backend)


def full_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("fail", [lambda: torch.empty(10**15), lambda: np.empty(10**17), full_gpu])
def test_every_way_to_run_out_of_memory_is_known(fail: Callable[[], object]):
    def attempt(size: int) -> int:
        if size > 3:
            fail()
        return size

    assert halving(attempt, 9, "nothing") == (3, 3)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def attempt(size: int) -> int:
        raise RuntimeError(f"another error, at {size}")

    with pytest.raises(RuntimeError, match="another error, at 8"):
        halving(attempt, 8, "nothing")


def test_answers_are_given_in_smaller_batches_where_memory_runs_out():
    torch.manual_seed(0)
    ensemble = Ensemble.from_modules([Small(), Small()])
    SIZES.clear()
    answers = ensemble.logits(DATA.features, batch_size=64)
    assert SIZES[:3] == [64, 32, 16]
    assert np.array_equal(answers, ensemble.logits(DATA.features, batch_size=16))
    weight, bias = (ensemble.parameters[name][1].numpy() for name in ("head.weight", "head.bias"))
    np.testing.assert_allclose(answers[1], DATA.features @ weight.T + bias, atol=1e-5)


def test_a_trial_that_runs_out_of_memory_trains_one_by_one(monkeypatch):
    little_memory(monkeypatch, 3)
    alone = trained(Hungry(most=1))
    assert str(alone.choice.reason).endswith("; 1 of 3 models at a time: memory ran out with 2")
    assert largest_difference(alone.ensemble, trained(Undefended()).ensemble) < 1e-6
    assert replace(alone, choice=trained().choice).history == alone.history
