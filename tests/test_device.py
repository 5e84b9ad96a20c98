"""Where models are computed: which device is chosen, and that nothing of a step is left behind on the CPU.

There need be no GPU. A step is taken on PyTorch's ``meta`` device, whose tensors have shapes and no values; that every
operator gets its tensors from one device is then watched, and what asks for a value is replaced.
"""

import gc
import weakref
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import small_images
from toy import CLASSES, FEATURES, blobs, ensemble_of, same_bytes, split_of, uneven_split
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.defenses import Defense, TrainingRecords, Undefended, make_defense
from wemem.defenses.advreg import InferenceNetwork
from wemem.errors import InputError
from wemem.models import FullyConnected
from wemem.notes import Note
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.pruning import Pruning, Schedule
from wemem.pruning.masks import weight_masks
from wemem.results.build import environment
from wemem.store.store import Store
from wemem.training import Ensemble, Recipe, choose_backend, choose_device, fit
from wemem.training.backends import Backend, Choice
from wemem.training.device import CPU, CudaSettings, cuda_settings, use_cuda_settings
from wemem.training.replay import Replay
from wemem.training.run import Run

DATA, IMAGES = blobs(), small_images.images()
SEEDS = [11, 12, 13]
META = torch.device("meta")
SCORES = [np.random.default_rng(k).random(len(DATA)) for k in range(3)]
LOSSES = [
    "undefended", "rsw", "rmr", "swmr", "oosd", "radd", "ppb", "advreg", "relaxloss", "hamp", "label_smoothing",
    "early_stopping", "dpsgd",
]  # fmt: skip


@pytest.fixture
def gpus(monkeypatch):
    """As if there were so many GPUs; nothing can be computed on them."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")

    return pretend


@pytest.mark.parametrize(("requested", "count", "chosen"), [
    ("auto", 0, "cpu"), ("auto", 2, "cuda:0"), ("cpu", 2, "cpu"), ("cuda", 2, "cuda:0"), ("cuda:1", 2, "cuda:1"),
    (torch.device("cpu"), 0, "cpu"),
])  # fmt: skip
def test_auto_is_the_first_gpu_where_there_is_one(gpus, requested, count, chosen):
    gpus(count)
    assert choose_device(requested) == torch.device(chosen)


@pytest.mark.parametrize(("requested", "count", "message"), [
    ("cuda", 0, "expected a GPU that PyTorch can use by CUDA, got none; leave it out to compute on the CPU, or"),
    ("cuda:2", 2, "'cuda:2' expected one of 2 CUDA devices, counted from 0; give another number"),
    ("gpu", 2, "device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    ("cuda:-1", 2, "device must be auto"),
    ("meta", 2, "device must be auto"),
])  # fmt: skip
def test_a_device_that_is_not_there_is_refused_wherever_it_is_named(gpus, requested, count, message):
    gpus(count)
    for call in (
        lambda: fit(ensemble_of(DATA), DATA, split_of(DATA), Recipe(), seeds=SEEDS, device=requested),
        lambda: ensemble_of(DATA).logits(DATA.features, device=requested),
        lambda: parse_study({"data": {"source": "digits"}, "device": requested}),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_on_a_gpu_convolutions_are_computed_one_after_another_and_the_reason_says_so():
    gpu, images = torch.device("cuda", 0), torch.from_numpy(IMAGES.features[:2])
    convolutions = Ensemble.initialize(small_images.MODEL, IMAGES.input_shape, CLASSES, seeds=SEEDS)
    assert choose_backend(convolutions, images, CLASSES, device=gpu) == Choice(
        "sequential", Note("convolutions_on_gpu")
    )
    assert choose_backend(convolutions, images, CLASSES, "vmapped", gpu).backend == "vmapped"
    records = torch.from_numpy(DATA.features[:2])
    assert choose_backend(ensemble_of(DATA), records, CLASSES, device=gpu) == Choice("vmapped", Note("no_convolutions"))


def test_batch_statistics_in_bf16_are_not_vmapped_on_a_gpu():
    gpu, records = torch.device("cuda", 0), torch.from_numpy(DATA.features[:2])

    def with_batch_norm():
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))

    ensemble = Ensemble.from_modules([with_batch_norm() for _ in SEEDS])
    for device, precision, backend in ((gpu, "bf16", "sequential"), (gpu, "tf32", "vmapped"), (CPU, "bf16", "vmapped")):
        assert choose_backend(ensemble, records, CLASSES, "auto", device, precision).backend == backend
    with pytest.raises(InputError, match=r"cannot be vmapped: PyTorch does not vmap BatchNorm of bfloat16 .*; use the"):
        choose_backend(ensemble, records, CLASSES, "vmapped", gpu, "bf16")


def pipeline_on(device, folder):
    config = parse_study({"data": {"source": "digits"}, "device": device})
    return Pipeline.open(config, DATA, Store(folder), Silent())


def test_results_name_the_device_and_its_kind_tells_stages_apart(gpus, tmp_path):
    gpus(1)
    on = {kind: pipeline_on(kind, tmp_path) for kind in ("cpu", "cuda")}
    assert [pipeline.workspace.device.type for pipeline in on.values()] == ["cpu", "cuda"]
    split, pruning = split_of(DATA), Pruning(Schedule(0.5, rounds=1))
    dense = {kind: pipeline.trainer.key(split, SEEDS) for kind, pipeline in on.items()}
    assert dense["cpu"] != dense["cuda"]
    rounds = [
        pipeline.pruner.keys(
            dense["cpu"], split, pruning, Undefended(), seeds=SEEDS, scores=[None], soft_targets=None
        )
        for pipeline in on.values()
    ]  # fmt: skip
    assert rounds[0] != rounds[1]
    told = environment(on["cuda"].workspace.device)
    assert (told["device"], told["device_name"]) == ("cuda", "GPU number 0")
    assert environment()["device"] == "cpu"


def test_a_certificate_does_not_depend_on_the_device(gpus, tmp_path):
    gpus(1)
    recipes = {
        pipeline_on(kind, tmp_path).workspace.recipe_fingerprint(Pruning(), Undefended()) for kind in ("cpu", "cuda")
    }
    assert len(recipes) == 1


def test_the_default_device_changes_nothing():
    recipe, split = Recipe(epochs=2, batch_size=16), split_of(DATA)
    plain = fit(ensemble_of(DATA), DATA, split, recipe, seeds=SEEDS).ensemble
    assert same_bytes(fit(ensemble_of(DATA), DATA, split, recipe, seeds=SEEDS, device="cpu").ensemble, plain)
    assert np.array_equal(plain.logits(DATA.features), plain.logits(DATA.features, device=CPU))


class OneDevice(TorchDispatchMode):
    """Refuses operators whose tensors are on several devices, whether PyTorch would move them or not."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor) and leaf.dim() > 0]
        moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if len({tensor.device for tensor in given}) > 1 and not moves:
            raise AssertionError(f"{func} got tensors on {[str(tensor.device) for tensor in given]}")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def without_values(monkeypatch):
    """What is not made for ``meta``: the fused optimizer. A step that waits for a value raises there."""
    monkeypatch.setattr(InferenceNetwork, "warm_up", 1)
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda leaves, fused=False, **settings: adam(leaves, **settings))


def run_on_meta(data, model: Any, defense: Defense, backend: Backend, recipe: Recipe, split):
    """A run as ``fit`` begins it, with everything on ``meta``, and the widest step of its first epoch."""
    fitted = vars(import_module("wemem.training.fit"))
    ensemble = Ensemble.initialize(model, data.input_shape, data.classes, seeds=[0, 1, 2])
    ensemble = replace(ensemble, masks=weight_masks(ensemble, 0.5, torch.abs, torch.from_numpy(data.features[:2])))
    teacher_log_probs = np.zeros((3, defense.inputs_per_record * len(data), data.classes), np.float32)
    records = [TrainingRecords(split.records(k, Role.TRAIN), data.labels, SCORES[k], SEEDS[k]) for k in range(3)]
    plan = fitted["_planner"](records, recipe, defense, len(data), False)
    task = fitted["_Task"](
        ensemble, data, torch.from_numpy(data.features).to(META), torch.from_numpy(data.labels).to(META), split, recipe,
        defense, SEEDS, records, teacher_log_probs, Choice(backend, Note("test")), plan,
    )  # fmt: skip
    return task.begin([0, 1, 2]), max(plan(0), key=lambda step: step.records.shape[1])


def take(run, step, live):
    for placed in run.place([step], live):
        run.step(placed, 0)


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize(("kind", "backend"), [
    *((kind, "vmapped") for kind in LOSSES), *((kind, "sequential") for kind in ("undefended", "advreg", "dpsgd")),
])  # fmt: skip
def test_a_step_under_every_defense_stays_on_its_device(kind, backend):
    settings = {"width": 0.5, "stride": 1} if kind in ("rsw", "swmr") else {"clusters": 2} if kind == "oosd" else {}
    recipe, model = Recipe(batch_size=16), FullyConnected((8, 4))
    with OneDevice():
        run, step = run_on_meta(DATA, model, make_defense(kind, settings), backend, recipe, uneven_split(DATA))
        for live in ([0, 1, 2], [0, 2]):
            take(run, step, live)
    assert run.steps_taken[0] == 2
    state = [*run.parameters.values(), *run.buffers.values(), *run.dev]
    assert {tensor.device for tensor in state} == {META}


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_a_step_on_augmented_images_stays_on_its_device(backend):
    recipe = Recipe(batch_size=16, augment="crop_flip_cutout", optimizer="sgd")
    with OneDevice():
        run, step = run_on_meta(IMAGES, small_images.MODEL, Undefended(), backend, recipe, split_of(IMAGES))
        take(run, step, [0, 1, 2])
    assert run.steps_taken == [1, 1, 1]


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_gradients_record_by_record_stay_on_their_device(backend):
    """Of a model that is not only linear layers, whose clipped gradients have no closed form."""

    def build():
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, CLASSES))

    class Model:
        def build(self, input_shape, classes):
            return build()

    with OneDevice():
        run, step = run_on_meta(DATA, Model(), make_defense("dpsgd"), backend, Recipe(batch_size=16), split_of(DATA))
        take(run, step, [0, 1, 2])
    assert run.steps_taken == [1, 1, 1]


def test_something_forgotten_on_the_cpu_is_noticed():
    @torch.no_grad()
    def step(forgotten):
        with OneDevice():
            return torch.zeros(3, device=META).masked_fill(forgotten, 0.0)

    step(torch.zeros(3, dtype=torch.bool, device=META))
    with pytest.raises(AssertionError, match="got tensors on"):
        step(torch.zeros(3, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["undefended", "swmr", "rmr"])
@pytest.mark.parametrize("backend", ["vmapped", "sequential"])
def test_replayed_steps_give_the_bytes_of_computed_ones(kind, backend, monkeypatch):
    """On the CPU a recording is the computation itself, on the tensors that were recorded with."""
    recorded: list[Any] = []

    def record(compute):
        recorded.append(compute)
        return compute

    def replaying(self, step, epoch):
        if self.replay is None:
            self.replay = Replay(lambda: record)
        computing(self, step, epoch)

    recipe, split = Recipe(epochs=5, batch_size=8, patience=2), uneven_split(DATA)
    settings = {"width": 0.5, "stride": 1} if kind == "swmr" else {}
    given = {"seeds": SEEDS, "defense": make_defense(kind, settings), "scores": SCORES, "backend": backend}
    expected = fit(ensemble_of(DATA), DATA, split, recipe, **given)
    computing = Run.step
    monkeypatch.setattr(Run, "step", replaying)
    monkeypatch.setattr(Run, "run", Run._run)
    replayed = fit(ensemble_of(DATA), DATA, split, recipe, **given)
    assert recorded
    assert same_bytes(replayed.ensemble, expected.ensemble)
    assert replayed.history == expected.history


class Recordings:
    """Counts sets of recordings, and refuses one that begins in a set whose last recording is gone, as CUDA does."""

    def __init__(self, fails=""):
        self.sets, self.fails = 0, fails

    def begin(self):
        self.sets += 1
        alive: list[weakref.ref[Any]] = []

        def record(compute):
            if self.fails:
                raise RuntimeError(self.fails)
            if alive and not any(recording() for recording in alive):
                raise AssertionError("the memory of this set was freed with its last recording")

            def replay():
                compute()

            alive.append(weakref.ref(replay))
            return replay

        return record


def replayed_fit(monkeypatch, recordings):
    """A training of three models that stop at different epochs, so that recordings are dropped in its middle."""
    computing = Run.step

    def replaying(self, step, epoch):
        if self.replay is None:
            self.replay = Replay(recordings.begin)
        elif not self.replay._recordings and not self.replay._seen and self.replay._possible:
            gc.collect()
        computing(self, step, epoch)

    monkeypatch.setattr(Run, "step", replaying)
    monkeypatch.setattr(Run, "run", Run._run)
    recipe = Recipe(epochs=30, batch_size=8, patience=2, learning_rate=0.01)
    return fit(ensemble_of(DATA), DATA, uneven_split(DATA), recipe, seeds=SEEDS)


def test_recordings_after_a_model_stopped_begin_in_memory_of_their_own(monkeypatch):
    recordings = Recordings()
    fitted = replayed_fit(monkeypatch, recordings)
    assert len({history.steps for history in fitted.history}) > 1
    assert recordings.sets > 1


def test_a_step_that_cannot_be_recorded_is_computed_with_one_warning(monkeypatch):
    recipe = Recipe(epochs=30, batch_size=8, patience=2, learning_rate=0.01)
    expected = fit(ensemble_of(DATA), DATA, uneven_split(DATA), recipe, seeds=SEEDS)
    with pytest.warns(RuntimeWarning, match="computed without a CUDA graph, which failed: operation not") as warned:
        fitted = replayed_fit(monkeypatch, Recordings(fails="operation not permitted when stream is capturing"))
    assert len(warned) == 1
    assert same_bytes(fitted.ensemble, expected.ensemble)


def test_memory_that_runs_out_in_a_recording_is_not_hidden(monkeypatch):
    with pytest.raises(InputError, match="expected memory for training one model, got none left"):
        replayed_fit(monkeypatch, Recordings(fails="CUDA error: out of memory"))


def test_a_divergence_is_noticed_at_the_end_of_its_epoch():
    recipe = Recipe(epochs=3, batch_size=16, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(InputError, match="training diverged in epoch 0: the loss is not finite"):
        fit(ensemble_of(DATA), DATA, split_of(DATA), recipe, seeds=SEEDS)


def test_settings_of_a_gpu_change_no_byte_on_a_cpu():
    recipe, split = Recipe(epochs=2, batch_size=16), split_of(DATA)
    plain = fit(ensemble_of(DATA), DATA, split, recipe, seeds=SEEDS, backend="sequential").ensemble
    with use_cuda_settings(CudaSettings(replay=True, together=3, streams=2)):
        assert same_bytes(
            fit(ensemble_of(DATA), DATA, split, recipe, seeds=SEEDS, backend="sequential").ensemble, plain
        )
    assert cuda_settings() == CudaSettings()
