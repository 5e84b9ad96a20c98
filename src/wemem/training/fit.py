"""Training of an ensemble, as a pure function of its arguments.

This module decides which models are trained together, so that they fit into memory. The training
loop is in :mod:`wemem.training.run`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from wemem.data.batches import Group, Step, plan_steps
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.views import DrawnViews
from wemem.defenses import (
    Clipping,
    Defense,
    Distillation,
    Observation,
    RecordRisk,
    TrainingRecords,
    Undefended,
)
from wemem.errors import InputError
from wemem.files.mapped import is_mapped
from wemem.models.outputs import require_logits
from wemem.notes import Note
from wemem.randomness import derive_seed
from wemem.training.backends import Choice, choose_backend
from wemem.training.cohort import Cohort
from wemem.training.device import CPU, choose_device, cuda_settings, gpu_arithmetic
from wemem.training.ensemble import Ensemble
from wemem.training.memory import (
    GRANTED,
    Share,
    bound,
    halving,
    memory_for_training,
    peak,
    quickest,
    share,
    size_of,
)
from wemem.training.preprocessing import with_preprocessing
from wemem.training.recipe import Recipe
from wemem.training.run import ASKED, History, Plan, Run, Trained
from wemem.training.side_by_side import OnEpoch, draws_globally, side_by_side
from wemem.training.views import ViewedRecords, only_answered

#: The smallest amount of work that must fit into memory, as a phrase for messages.
ONE = "training one model"


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained ensemble, each model at the checkpoint that the recipe keeps, with the histories
    and the backend.
    """

    ensemble: Ensemble
    history: tuple[History, ...]
    choice: Choice


def fit(
    ensemble: Ensemble,
    data: Dataset,
    split: Split,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    defense: Defense | None = None,
    scores: Sequence[Float64[np.ndarray, " N"] | None] | None = None,
    teacher_log_probs: Float32[np.ndarray, "K M C"] | None = None,
    observed: Sequence[tuple[Observation, ...]] | None = None,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch = lambda epoch, running: None,
) -> Fitted:
    """Train every model on its train records, with early stopping on its dev records.

    Models that do not fit into memory together are trained in parts (:mod:`wemem.training.memory`).
    Models of a table that have no preprocessing yet get it first, each from its train records.

    Args:
        ensemble: the K models, which are not changed.
        data: the data set of N records.
        split: the roles of the records for each model, (K, N).
        recipe: the length, optimizer and early stopping of the training.
        seeds: the seed of each model, for its order of records, its dropout and the draws of the
            defense. The other models affect its result only by rounding, by the order of steps, and
            by the padding of the batches from which BatchNorm takes statistics, where models have
            different numbers of records.
        defense: the defense that changes the training; None for plain training.
        scores: the memorization scores (N,) of each model, for a defense that needs them.
        teacher_log_probs: per model and record, for a defense that learns from teachers; M is N,
            and as many more for each view of the records (:mod:`wemem.data.views`).
        observed: per model, its observations before each round up to this one, for a defense that
            observes.
        backend: the requested backend, one of :data:`~wemem.training.backends.REQUESTS`.
        device: the device to train on, as in :func:`~wemem.training.device.choose_device`. Data and
            models are moved there once, and the models are moved back.
        on_epoch: a function that is called after each epoch with its number and the number of
            models that still train; models for which memory ran out begin again.

    Raises:
        InputError: the sizes of the arguments differ, the model or the defense does not fit the
            data, the device does not exist, memory does not suffice for one model, or training
            diverged.
    """
    where, defense = choose_device(device), defense or Undefended()
    ensemble = with_preprocessing(ensemble, data, split)
    _require_fitting(ensemble, data, split, recipe, len(seeds), defense, teacher_log_probs)
    generators = torch.random.fork_rng(devices=[where] if where.type == "cuda" else [])
    with generators, gpu_arithmetic(where, recipe.precision):
        example = torch.from_numpy(data.features[:2])
        choice = choose_backend(ensemble, example, data.classes, backend, where, recipe.precision)
        _require_enough_for_a_step(ensemble, data, split, recipe)
        records = [
            TrainingRecords(
                split.records(k, Role.TRAIN), data.labels, None if scores is None else scores[k], seed,
                () if observed is None else observed[k],
            )
            for k, seed in enumerate(seeds)
        ]  # fmt: skip
        features, labels = _moved(data, where)
        plan = _planner(records, recipe, defense, len(data), choice.backend != "vmapped")
        task = _Task(
            ensemble, data, features, labels, split, recipe, defense, seeds, records, teacher_log_probs, choice, plan
        )
        return task.fit(on_epoch)


def _require_fitting(
    ensemble: Ensemble, data: Dataset, split: Split, recipe: Recipe, seeds: int, defense: Defense,
    teacher_log_probs: Float32[np.ndarray, "K M C"] | None,
) -> None:  # fmt: skip
    models = len(ensemble)
    if not (split.num_models == seeds == models):
        raise InputError(f"expected a split and seeds for {models} models, got {split.num_models} and {seeds}")
    if len(split.labels) != len(data):
        raise InputError(f"expected a split of the data set's {len(data)} records, got one of {len(split.labels)}")
    learns = defense.capability(Distillation) is not None
    if learns and teacher_log_probs is None:
        raise InputError(
            f"{defense.name} learns from teachers, got none; give their log-probabilities as teacher_log_probs"
        )
    wanted = (models, defense.inputs_per_record * len(data), data.classes)
    if learns and teacher_log_probs is not None and teacher_log_probs.shape != wanted:
        raise InputError(
            f"expected teacher log-probabilities of all records and views, {wanted}, got {teacher_log_probs.shape}"
        )
    if recipe.augment != "none" and len(data.input_shape) != 3:
        raise InputError(
            f"augment = {recipe.augment!r} expected images (channels, height, width), got records of shape "
            f"{data.input_shape}; leave it out"
        )
    if recipe.precision != "fp32" and defense.capability(Clipping) is not None:
        raise InputError(
            f"precision = {recipe.precision!r} expected a defense that clips no gradients, got {defense.name}: its "
            "privacy guarantee must not rest on rounding; use fp32"
        )
    if (reason := defense.incompatibility_reason(ensemble.template)) is not None:
        raise InputError(reason)


def _require_enough_for_a_step(ensemble: Ensemble, data: Dataset, split: Split, recipe: Recipe) -> None:
    """Refuse steps on a single record if the model does not allow them, for example because of
    BatchNorm.
    """
    fewest = min(len(split.records(k, Role.TRAIN)) for k in range(len(ensemble)))
    if min(recipe.batch_size, fewest) > 1:
        return
    try:
        require_logits(ensemble.module(0).train(), torch.from_numpy(data.features[:1]), data.classes)
    except InputError as error:
        raise InputError(
            f"expected at least 2 records for each step of a model with batch statistics, got batch_size = "
            f"{recipe.batch_size} and a model of {fewest} training record(s); set a larger batch_size, or bring more"
        ) from error


def _moved(data: Dataset, device: torch.device) -> list[Tensor]:
    """Move features and labels to a device."""
    arrays = (data.features, data.labels)
    return halving(lambda _: [torch.from_numpy(array).to(device) for array in arrays], 1, "the data")[0]


@dataclass(frozen=True, eq=False)
class _Task:
    """One call of :func:`fit`: its arguments, and the backend and plan that follow from them."""

    ensemble: Ensemble
    data: Dataset
    features: Tensor
    labels: Tensor
    split: Split
    recipe: Recipe
    defense: Defense
    seeds: Sequence[int]
    records: Sequence[TrainingRecords]
    teacher_log_probs: Float32[np.ndarray, "K M C"] | None
    choice: Choice
    plan: Plan

    @property
    def models(self) -> int:
        return len(self.ensemble)

    @cached_property
    def views(self) -> DrawnViews | None:
        """Augmentation views of all models' train records."""
        distillation = self.defense.capability(Distillation)
        if distillation is None or distillation.views is None:
            return None
        return distillation.views.draw(
            [records.train for records in self.records], len(self.data), self.data.input_shape
        )

    @property
    def example(self) -> Shaped[Tensor, "2 ..."]:
        """Two records, on the CPU."""
        return torch.from_numpy(self.data.features[:2])

    def fit(self, on_epoch: OnEpoch) -> Fitted:
        """Train all models, as many at a time as fit into memory."""
        done: list[Trained] = []

        def in_parts(size: int) -> list[Trained]:
            """All models from the first that is not done, in equal parts of at most ``size``."""
            while (first := sum(len(histories) for _, histories in done)) < self.models:
                left = self.models - first
                part = range(first, first + -(-left // -(-left // size)))
                done.append(self.train(list(part), on_epoch))
            return done

        def in_turn(cores: int) -> list[Trained]:
            return side_by_side(lambda k, on_epoch: self.train([k], on_epoch), self.models, cores, on_epoch)

        together = self.choice.backend == "vmapped"
        wanted = self.models if together else self._at_a_time()
        quick = quickest(wanted, self.ensemble.parameters) if together and self._on_cpu else Share(wanted)
        fitting = quick if quick.models == 1 else self._share(quick)
        # one at a time is a part of one; only where memory leaves no room for two it is to keep to
        # one thread
        in_threads = not together and self._on_cpu and wanted > 1
        trained, size = halving(in_turn if in_threads else in_parts, fitting.models, ONE)
        choice = self.choice
        if size < wanted:
            too_many = Note("memory_ran_out", {"models": "more"})
            limit = fitting.reason if size == fitting.models and fitting.reason is not None else too_many
            part = Note("at_a_time", {"models": size, "of": wanted, "limit": limit})
            choice = replace(choice, reason=replace(choice.reason, values={**choice.reason.values, "at_a_time": part}))
        joined = Ensemble.concatenate([models for models, _ in trained])
        ensemble = replace(self.ensemble, parameters=joined.parameters, buffers=joined.buffers)
        return Fitted(ensemble, tuple(history for _, histories in trained for history in histories), choice)

    def train(self, part: list[int], on_epoch: OnEpoch) -> Trained:
        """Train some of the models from beginning to end."""
        # what a model may draw besides its dropout (Dropout2d, noise) comes from PyTorch's global
        # generator
        torch.manual_seed(derive_seed(self.seeds[part[0]], "dropout"))
        return self.begin(part).run(_counting(on_epoch, self.models - part[-1] - 1))

    def begin(self, part: list[int]) -> Run:
        """Prepare the training of some of the models, on the device of the features."""
        device, records = self.features.device, [self.records[k] for k in part]
        views = None if self.views is None else replace(self.views, donors=self.views.donors[part])
        soft_targets = None if self.teacher_log_probs is None else self.teacher_log_probs[part]
        if views is not None and soft_targets is not None:
            views, soft_targets = only_answered(views, soft_targets)
        cohort = Cohort(
            part, self.ensemble.select(part).to(device), records, [self.split.records(k, Role.DEV) for k in part],
            self.labels, ViewedRecords(self.features, views), _risk(self.defense, records, device),
            None if soft_targets is None else torch.from_numpy(soft_targets).to(device),
        )  # fmt: skip
        return Run(cohort, self.recipe, self.defense, self.choice.backend, self.plan, self.data.classes)

    @property
    def _on_cpu(self) -> bool:
        return self.features.device == CPU

    def _at_a_time(self) -> int:
        """The number of models that are trained at a time by the sequential backend: one on each core of a CPU, or
        some on a GPU.
        """
        if draws_globally(self.ensemble, self.example):
            return 1
        return min(torch.get_num_threads() if self._on_cpu else cuda_settings().together, self.models)

    def _share(self, most: Share) -> Share:
        """The number of models that fit at a time, at most as many as requested."""
        state, device = size_of({**self.ensemble.parameters, **self.ensemble.buffers}), self.features.device
        # the models as they were given, as they end, and joined
        held = (
            3 * state
            + (0 if is_mapped(self.data.features) else self.data.features.nbytes)
            + (0 if self.teacher_log_probs is None else 2 * self.teacher_log_probs.nbytes)
        )
        limit = memory_for_training(device, held)
        high = bound(self.ensemble.module(0), self.example, self.recipe.batch_size, ASKED)
        if GRANTED + most.models * high <= limit:
            return most
        if self.choice.backend != "vmapped":
            one, _ = halving(self._peak, 1, ONE)
            two = 2 * one
        else:
            two, tried = halving(self._peak, 2, ONE)
            if tried == 1:
                return Share(1, Note("memory_ran_out", {"models": 2}))
            one = self._peak(1)
        groups, states = len({step.key for step in self.plan(0)}), 2 if self.recipe.optimizer == "adam" else 1
        kept = state + (groups - 1) * states * size_of(self.ensemble.parameters)
        fitting = share(most.models, one, two, kept // self.models, limit)
        return most if fitting.models == most.models else fitting

    def _peak(self, count: int) -> int:
        """The peak memory in bytes of the first models, for a full step and for the evaluation on
        dev records.
        """
        widest = max(self.plan(0), key=lambda step: step.records.shape[1])
        rows = widest.records[widest.weights.sum(1).argmax()]
        everywhere = np.tile(rows, (self.models, 1))
        step = replace(widest, records=everywhere, weights=np.ones_like(everywhere, np.float32))
        return peak(lambda: self.begin(list(range(count))).trial(step), self.features.device)


def _counting(on_epoch: OnEpoch, waiting: int) -> OnEpoch:
    return lambda epoch, running: on_epoch(epoch, waiting + running)


def _planner(
    records: Sequence[TrainingRecords], recipe: Recipe, defense: Defense, count: int, reuse: bool
) -> Plan:  # fmt: skip
    seeds = [one.seed for one in records]

    def shown(group: Group, epoch: int) -> Group:
        """The group with the views that an epoch shows, numbered as in a data set of so many records."""
        return replace(group, records=np.concatenate([group.records + v * count for v in defense.inputs_shown(epoch)]))

    # models one after another ask for the same epochs again; all together need none twice
    @lru_cache(maxsize=None if reuse else 1)
    def plan(epoch: int) -> list[Step]:
        groups = [[shown(group, epoch) for group in defense.plan(epoch, (Group(one.train),), one)] for one in records]
        return plan_steps(groups, recipe.batch_size, seeds, epoch)

    return plan


def _risk(
    defense: Defense, records: Sequence[TrainingRecords], device: torch.device
) -> Float[Tensor, "S N"] | None:  # fmt: skip
    """Risk of each model's records, for a defense whose loss depends on it; None for the others."""
    risk = defense.capability(RecordRisk)
    if risk is None:
        return None
    return torch.tensor(np.stack([risk.of(own) for own in records]), dtype=torch.float32, device=device)


def accuracy(logits: Float[np.ndarray, "N C"], labels: Int64[np.ndarray, " N"]) -> float:
    """Compute the share of records whose highest logit is that of their label."""
    return float((logits.argmax(1) == labels).mean())
