"""Iterative pruning: prune a little, fine-tune under the defense, repeat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64, Shaped
from scipy.special import softmax
from torch import Tensor

from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.defenses import Clipping, Defense, Observation, RoundObservation
from wemem.errors import InputError
from wemem.pruning.criterion import Criterion
from wemem.pruning.gradients import Gradients, gradient_sizes, weighed
from wemem.pruning.layers import LayerChoice
from wemem.pruning.magnitude import Magnitude
from wemem.pruning.masks import Scope, pruned_share
from wemem.pruning.schedule import Schedule
from wemem.randomness import derive_seed
from wemem.training.backends import Choice
from wemem.training.ensemble import Ensemble
from wemem.training.fit import fit
from wemem.training.recipe import FINETUNE, Recipe
from wemem.training.run import History
from wemem.training.side_by_side import OnEpoch

Rewind = Literal["none", "initial"]


@dataclass(frozen=True)
class Pruning:
    """The settings of iterative pruning.

    Args:
        schedule: the sparsity of each round.
        scope: the weights that are compared with one another: those of one ``layer``, or all
            (``global``).
        recipe: the fine-tuning of one round.
        rewind: ``none`` continues from the current weights; ``initial`` resets the remaining
            weights to their values before any training, at the start of each round that prunes
            (lottery ticket, Frankle & Carbin 2019).
        criterion: the rule that decides which weights or channels are pruned.
        layers: the layers that are not pruned.
    """

    schedule: Schedule = field(default_factory=Schedule)
    scope: Scope = "layer"
    recipe: Recipe = FINETUNE
    rewind: Rewind = "none"
    criterion: Criterion = field(default_factory=Magnitude)
    layers: LayerChoice = field(default_factory=LayerChoice)

    def __post_init__(self) -> None:
        if self.scope not in ("layer", "global"):
            raise InputError(f"scope must be layer or global, got {self.scope!r}")
        if self.rewind not in ("none", "initial"):
            raise InputError(f"rewind must be none or initial, got {self.rewind!r}")
        if self.scope not in self.criterion.scopes:
            allowed = " or ".join(self.criterion.scopes)
            raise InputError(f"method {self.criterion!r} expected scope {allowed}, got {self.scope}")

    def prune(
        self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."],
        gradients: Gradients | None = None,
    ) -> Ensemble:  # fmt: skip
        """Prune an ensemble to a sparsity, with this criterion, scope and choice of layers.

        Args:
            ensemble: the models.
            sparsity: the share that is pruned afterwards.
            example: records of the form that the models accept.
            gradients: the gradients on training records (:func:`gradient_sizes`), for a criterion
                that reads them.

        Raises:
            InputError: the criterion reads gradients and there are none, or cannot prune the models.
        """
        if not self.criterion.reads_gradients:
            return self.sized(ensemble, sparsity, example)
        if gradients is None:
            raise InputError(
                f"expected gradients on training records for {self.criterion!r}, got none; use wemem prune or run, "
                "or use a method that judges weights alone, such as magnitude or l1_filter"
            )
        pruned = self.sized(weighed(ensemble, gradients), sparsity, example)
        return self.criterion.restrict(ensemble, pruned, example, self.layers)

    def sized(self, ensemble: Ensemble, sparsity: float, example: Shaped[Tensor, "B ..."]) -> Ensemble:
        """Prune an ensemble to the sizes that it has at a sparsity, by its weights alone."""
        return self.criterion.prune(ensemble, sparsity, example, self.layers, self.scope)

    def require_compatible(self, defense: Defense) -> None:
        """Refuse a criterion that would break what the defense guarantees.

        Raises:
            InputError: the criterion reads gradients of training records, which the privacy
                accounting of the defense does not cover.
        """
        if self.criterion.reads_gradients and defense.capability(Clipping) is not None:
            raise InputError(
                f"expected a criterion that reads no training record beside {defense.name}, got {self.criterion!r}: "
                "its choice of weights is not covered by epsilon; use the method magnitude or l1_filter"
            )

    def require_prunable(self, ensemble: Ensemble, example: Shaped[Tensor, "B ..."]) -> None:
        """Refuse, before any training, models that cannot be pruned to the sparsity of the
        schedule.

        Raises:
            InputError: the criterion cannot prune the models, or they have already lost more
                weights.
        """
        target, lost = self.schedule.sparsity, pruned_share(ensemble)
        fresh = self.sized(replace(ensemble, masks={}), target, example)
        if lost > pruned_share(fresh):
            raise InputError(
                f"expected a sparsity of at least {lost:.4f}, got {target}; the model is already pruned that far, and "
                "pruned weights do not return"
            )


@dataclass(frozen=True, eq=False)
class Round:
    """The result of one round of pruning and fine-tuning.

    Args:
        index: the number of the round, from 0.
        sparsity: the share of weights, or of channels, that is pruned.
        ensemble: the fine-tuned models, each at the checkpoint that the recipe keeps.
        history: the history of each model's fine-tuning.
        choice: the backend that was used, with the reason.
        observed: the observations of each model before each round so far, under a defense that
            observes.
    """

    index: int
    sparsity: float
    ensemble: Ensemble
    history: tuple[History, ...]
    choice: Choice
    observed: tuple[tuple[Observation, ...], ...] = ()


def iterate(
    ensemble: Ensemble,
    data: Dataset,
    split: Split,
    pruning: Pruning,
    defense: Defense,
    *,
    seeds: Sequence[int],
    scores: Sequence[Float64[np.ndarray, " N"] | None] | None = None,
    teacher_log_probs: Float32[np.ndarray, "K N C"] | None = None,
    initial: Ensemble | None = None,
    observed: Sequence[tuple[Observation, ...]] = (),
    backend: str = "auto",
    device: torch.device | str = "cpu",
    first_round: int = 0,
    on_epoch: OnEpoch = lambda epoch, running: None,
) -> Iterator[Round]:
    """Prune and fine-tune all models, and yield a :class:`Round` after each round.

    Args:
        ensemble: the dense models, or the models after round ``first_round - 1``.
        data: the data set, as in :func:`~wemem.training.fit.fit`.
        split: the roles of the records for each model, as in :func:`~wemem.training.fit.fit`.
        pruning: the settings of pruning and fine-tuning.
        defense: the defense that changes the fine-tuning.
        seeds: the seed of each model.
        scores: the memorization scores ``(N,)`` of each model's training records, for a defense
            that needs them.
        teacher_log_probs: the teacher log-probabilities, as in :func:`~wemem.training.fit.fit`.
        initial: the untrained ensemble, for ``rewind = "initial"``.
        observed: the :attr:`Round.observed` of round ``first_round - 1``, for a defense that
            observes.
        backend: the backend, as in :func:`~wemem.training.fit.fit`.
        device: the device, as in :func:`~wemem.training.fit.fit`.
        first_round: the first round to compute; its result does not depend on the call that
            computed earlier rounds.
        on_epoch: a function that is called after each epoch.

    Raises:
        InputError: a model has no hidden layer or is already pruned further than the schedule, or
            :func:`~wemem.training.fit.fit` refuses an argument.
    """
    example = torch.from_numpy(data.features[:2])
    pruning.require_compatible(defense)
    if ensemble.masks and not first_round:
        pruning.require_prunable(ensemble, example)
    observations = tuple(observed)
    for index in range(first_round, pruning.schedule.rounds):
        if defense.capability(RoundObservation) is not None:
            now = [observe(ensemble, k, data, split, device) for k in range(len(ensemble))]
            before = observations or ((),) * len(now)
            observations = tuple((*earlier, latest) for earlier, latest in zip(before, now, strict=True))
        pruned = _prune_to(ensemble, pruning, index, initial, example, _Records(data, split, seeds, device))
        fitted = fit(
            pruned, data, split, pruning.recipe, seeds=[derive_seed(seed, "round", index) for seed in seeds],
            defense=defense, scores=scores, teacher_log_probs=teacher_log_probs, observed=observations or None,
            backend=backend, device=device,
            on_epoch=on_epoch,
        )  # fmt: skip
        ensemble = fitted.ensemble
        yield Round(index, pruned_share(ensemble), ensemble, fitted.history, fitted.choice, observations)


def observe(
    ensemble: Ensemble, model: int, data: Dataset, split: Split, device: torch.device | str = "cpu"
) -> Observation:
    """Measure the confidence of one model on its train records and on its dev records."""
    selected = ensemble.select([model])
    confidence, right = {}, {}
    for role in (Role.TRAIN, Role.DEV):
        rows = split.records(model, role)
        logits, labels = selected.logits(data.features[rows], device=device)[0], data.labels[rows]
        probability = softmax(logits.astype(np.float64), axis=-1)
        confidence[role] = float(probability[np.arange(len(rows)), labels].mean())
        right[role] = float((logits.argmax(-1) == labels).mean())
    return Observation(
        confidence[Role.TRAIN], confidence[Role.DEV], right[Role.DEV], len(split.records(model, Role.DEV))
    )


@dataclass(frozen=True, eq=False)
class _Records:
    """The records that a criterion may read, and the device that computes its gradients."""

    data: Dataset
    split: Split
    seeds: Sequence[int]
    device: torch.device | str


def _prune_to(
    ensemble: Ensemble, pruning: Pruning, index: int, initial: Ensemble | None, example: Shaped[Tensor, "B ..."],
    records: _Records,
) -> Ensemble:  # fmt: skip
    before, sparsity = (0.0, *pruning.schedule.sparsities)[index : index + 2]
    if sparsity == before:
        return ensemble
    gradients = None
    if pruning.criterion.reads_gradients:
        drawn = [derive_seed(seed, "gradients", index) for seed in records.seeds]
        gradients = gradient_sizes(
            ensemble, records.data, records.split, seeds=drawn, batch_size=pruning.recipe.batch_size,
            device=records.device,
        )  # fmt: skip
    pruned = pruning.prune(ensemble, sparsity, example, gradients)
    if pruning.rewind == "none":
        return pruned
    if initial is None:
        raise InputError("rewinding expected the untrained ensemble, got none; give it as initial")
    return pruning.criterion.restrict(initial, pruned, example, pruning.layers)
