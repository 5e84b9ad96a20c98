"""Pruning under a defense in a user's own training loop.

The whole loop::

    engine = wemem.PruningEngine("swmr", sparsity=0.6, rounds=5)
    model, optimizer, loader = engine.prepare(model, optimizer, loader, scores="scores.parquet")
    for round in engine.rounds():                    # prunes the model
        for epoch in engine.epochs(21, patience=5):  # plans the records of the epoch
            for x, y in loader:                      # selects the optimizer state of the batch
                engine.loss(model(x), y).backward()
                optimizer.step()                     # masks the pruned weights
                optimizer.zero_grad()
            engine.record(dev_accuracy(model))       # best checkpoint and early stopping
    engine.save("pruned/")
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from wemem.blocks.loader import DefendedLoader, labels_of
from wemem.blocks.loop_record import LoopRecord
from wemem.blocks.losses import DefenseLoss
from wemem.blocks.optimizer import StepsByKind
from wemem.blocks.pruner import IterativePruner
from wemem.blocks.sampler import DefenseBatchSampler, PlannedBatch
from wemem.blocks.save import given_scores, read_targets, save_pruned
from wemem.blocks.validate import batch_size_of, loader_problems, loss_problem, optimizer_problems, problems_of
from wemem.blocks.views import ViewedDataset
from wemem.blocks.wrapped import Example, first_inputs, number_of_records, plain_module, plain_optimizer
from wemem.defenses import Defense, Distillation, FreshStart, RecordRisk, make_defense
from wemem.errors import InputError
from wemem.memorization import Memorization
from wemem.pruning import Pruning, Schedule

M = TypeVar("M", bound=nn.Module)
AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


@dataclass(frozen=True)
class EngineRound:
    """One round of pruning and fine-tuning.

    Args:
        index: number of the round, from 0.
        sparsity: share of the prunable weights that is pruned.
    """

    index: int
    sparsity: float


class PruningEngine:
    """Prunes a model iteratively under a defense, inside a loop that the user writes.

    Args:
        defense: a defense, or its name, such as ``"swmr"``.
        sparsity: target sparsity; of ``pruning`` if that is given.
        rounds: rounds of pruning and fine-tuning.
        pruning: schedule, scope, criterion and layers, in place of ``sparsity`` and ``rounds``.
        seed: seed of the order of records.
        accumulation: batches whose gradients the loop accumulates for one optimizer step.
        rank, world_size: this process among those of ``DistributedDataParallel``.
        untrained: True states that the model has new weights, as a defense with a fresh start
            needs: of the trained model only the architecture may be used.

    Raises:
        InputError: an unknown defense, settings out of range, or a defense with a fresh start for a
            model that is not stated to be untrained.
    """

    def __init__(
        self,
        defense: Defense | str,
        *,
        sparsity: float = 0.6,
        rounds: int = 5,
        pruning: Pruning | None = None,
        seed: int = 0,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
        untrained: bool = False,
    ) -> None:
        self.defense = make_defense(defense) if isinstance(defense, str) else defense
        if self.defense.capability(FreshStart) is not None and not untrained:
            raise InputError(
                f"{self.defense.name} starts from new weights, because trained ones leak the labels they have learned; "
                "give the engine untrained=True and a model with new weights, or set start = 'dense'"
            )
        self.pruning = pruning or Pruning(Schedule(sparsity, rounds))
        self.seed, self.accumulation, self.rank, self.world_size = seed, accumulation, rank, world_size
        self._loss = None if loss_problem(self.defense) else DefenseLoss(self.defense)
        self._attached: _Attached | None = None
        self._data: _Data | None = None
        self._round, self._curve, self._best = 0, [], None  # type: int, list[float], dict[str, Tensor] | None
        self._summary: list[dict[str, Any]] = []
        self._loop = LoopRecord(self.defense, self.pruning, untrained)

    def validate(self, model: nn.Module, loader: DataLoader[Any] | None = None, optimizer: Any = None) -> list[str]:
        """List every problem of a model, loader and optimizer under this defense, each with its remedy.

        Args:
            model: the model to prune.
            loader: its training data.
            optimizer: its optimizer.

        Returns:
            One line for each problem; none if the engine can work.
        """
        inner = plain_module(model)
        problems = problems_of(self.defense, self.pruning, inner, loader)
        return problems if optimizer is None else [*problems, *optimizer_problems(optimizer, inner)]

    def prepare(
        self,
        model: M,
        optimizer: AnyOptimizer,
        loader: DataLoader[Any],
        *,
        labels: Sequence[int] | np.ndarray | None = None,
        scores: str | Path | Memorization | Float64[np.ndarray, " N"] | None = None,
        targets: str | Path | Float32[np.ndarray, "M C"] | None = None,
        example: Example | None = None,
    ) -> tuple[M, AnyOptimizer, DefendedLoader]:
        """Connect the engine with a model, its optimizer and its training data.

        Args:
            model: the trained model. Wrapped models (``DistributedDataParallel``) are looked into.
            optimizer: an optimizer of the model's parameters.
            loader: training data, a map-style data set. Its batch size is kept.
            labels: class of each record; by default those that the data set shows.
            scores: memorization scores or their file, for a defense that needs them.
            targets: soft targets or their file, for a defense that learns from teachers.
            example: inputs of one batch; by default the first batch without its last element.

        Returns:
            The same model and optimizer, and a loader of the planned batches.

        Raises:
            InputError: everything that :meth:`validate` lists, or inputs that do not fit together.
        """
        defended = self.defend(loader, labels=labels, scores=scores, targets=targets)
        self.attach(model, optimizer, first_inputs(loader) if example is None else example)
        return model, optimizer, defended

    def attach(self, model: nn.Module, optimizer: Any, example: Example) -> None:
        """Connect the engine with a model and its optimizer alone, for a framework that owns the
        loop.

        Args:
            model: the trained model.
            optimizer: an optimizer of its parameters, or a wrapper of one.
            example: inputs of one batch.

        Raises:
            InputError: as :meth:`prepare`.
        """
        inner = plain_module(model)
        if problems := self.validate(inner, None, optimizer):
            raise InputError("; ".join(problems))
        pruner = IterativePruner(inner, self.pruning, example)
        pruner.attach(plain_optimizer(optimizer))
        self._attached = _Attached(inner, StepsByKind(plain_optimizer(optimizer)), pruner)
        self._loop.model(inner, self._attached.kinds)

    def defend(
        self,
        loader: DataLoader[Any],
        *,
        labels: Sequence[int] | np.ndarray | None = None,
        scores: str | Path | Memorization | Float64[np.ndarray, " N"] | None = None,
        targets: str | Path | Float32[np.ndarray, "M C"] | None = None,
    ) -> DefendedLoader:
        """Give a loader of the batches that the defense plans, for a framework that owns the loop.

        Args:
            loader: training data, a map-style data set.
            labels: as in :meth:`prepare`.
            scores: as in :meth:`prepare`.
            targets: as in :meth:`prepare`.

        Raises:
            InputError: as :meth:`prepare`.
        """
        if problems := loader_problems(loader):
            raise InputError("; ".join(problems))
        records = number_of_records(loader.dataset)
        classes = labels_of(loader.dataset) if labels is None else np.asarray(labels, np.int64)
        if len(classes) != records:
            raise InputError(f"expected one label for each of {records} records, got {len(classes)}")
        known = given_scores(scores, records)
        sampler = DefenseBatchSampler(
            self.defense, classes, batch_size_of(loader) * self.accumulation * self.world_size, scores=known,
            seed=self.seed, accumulation=self.accumulation, rank=self.rank, world_size=self.world_size,
        )  # fmt: skip
        soft = read_targets(targets) if isinstance(targets, str | Path) else targets
        expected = self.defense.inputs_per_record * records
        if self.defense.capability(Distillation) is not None and (soft is None or len(soft) != expected):
            raise InputError(
                f"{self.defense.name} expected soft targets of {expected} records and views, got "
                f"{None if soft is None else len(soft)}; compute them with wemem.blocks.out_of_sample_targets"
            )
        distillation = self.defense.capability(Distillation)
        views = 0 if distillation is None or distillation.views is None else distillation.views.count
        if views and not (isinstance(loader.dataset, ViewedDataset) and loader.dataset.count == views):
            raise InputError(
                f"{self.defense.name} learns from {views} views of each record, got a data set without them; take that "
                f"of SoftTargets.viewed, wrap it in wemem.blocks.ViewedDataset(..., count={views}), or set views = 0"
            )
        risk = self.defense.capability(RecordRisk)
        defended = DefendedLoader(loader, sampler, self._select)
        self._loop.data(defended, classes, known, soft)
        self._data = _Data(
            defended,
            None if soft is None else torch.from_numpy(np.asarray(soft, np.float32)),
            None if risk is None else np.nan_to_num(risk.of(sampler.records)),
        )
        return defended

    def _select(self, batch: PlannedBatch) -> None:
        self._require_attached().kinds.select_batch(batch)

    def rounds(self) -> Iterator[EngineRound]:
        """Prune the model for each round; after a restored state, those that are left."""
        for index in range(self._round, self.pruning.schedule.rounds):
            yield self.begin_round(index)
            self.end_round()

    def begin_round(self, index: int) -> EngineRound:
        """Prune the model to the sparsity of a round and forget the optimizer's state."""
        attached = self._require_attached()
        self._round, self._curve, self._best = index, [], None
        self._require_data().loader.sampler.set_round(index)
        attached.kinds.reset()
        attached.pruner.prune(index)
        self._loop.begin_round(index)
        return EngineRound(index, attached.pruner.sparsity)

    def end_round(self) -> None:
        """Give the model its best recorded weights of the round."""
        attached = self._require_attached()
        if self._best is not None:
            attached.model.load_state_dict(self._best)
        self._summary.append(
            {"round": self._round, "sparsity": attached.pruner.sparsity, "dev_accuracy": list(self._curve)}
        )
        self._round += 1
        self._loop.end_round(attached.model)

    def epochs(self, most: int, patience: int | None = None) -> Iterator[int]:
        """Plan each epoch of a round.

        Args:
            most: largest number of epochs.
            patience: epochs without a better :meth:`record` after which the round ends; None for
                none.

        Yields:
            The 0-based epoch.
        """
        with self._loop.epochs(most, patience):
            for epoch in range(self.defense.epochs(most)):
                self.begin_epoch(epoch)
                yield epoch
                stale = len(self._curve) - 1 - int(np.argmax(self._curve)) if self._curve else 0
                if patience is not None and stale >= patience:
                    break

    def begin_epoch(self, epoch: int) -> None:
        """Plan the records of an epoch of the round."""
        self._require_data().loader.sampler.set_epoch(epoch)
        self._loop.count("epochs")
        if self._loss is not None:
            self._loss.set_epoch(epoch)

    def record(self, dev_accuracy: float) -> None:
        """Record the model's accuracy on data that it does not train on; the best weights are kept."""
        if dev_accuracy > max(self._curve, default=-1.0):
            self._best = copy.deepcopy(self._require_attached().model.state_dict())
        self._curve.append(float(dev_accuracy))
        self._loop.count("recorded")

    def loss(self, logits: Float[Tensor, "B C"], labels: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
        """Loss of the defense on the current batch; the mean cross-entropy where it has none of its
        own.

        Raises:
            InputError: outside of the loop over the prepared loader, or logits of another batch.
        """
        data = self._require_data()
        if (plan := data.loader.current) is None:
            raise InputError("expected to be within the loop over the prepared loader, got no batch")
        if len(logits) != len(plan.indices):
            raise InputError(
                f"expected logits of the {len(plan.indices)} records of the batch, got {len(logits)}; call loss "
                "within the loop over the prepared loader"
            )
        soft = risk = None
        if data.targets is not None:
            soft = data.targets[plan.indices].to(logits.device)
        if data.risk is not None:
            own = data.risk[plan.indices % len(data.risk)]
            risk = torch.from_numpy(own).to(logits.device, torch.float32)
        assert self._loss is not None  # without one nothing can be attached
        self._loop.count("losses")
        value: Tensor = self._loss(logits, labels, soft, risk)
        return value

    def apply_masks(self, model: nn.Module) -> None:
        """Set the pruned weights of a copy to 0, such as an exponential moving average."""
        self._require_attached().pruner.apply(plain_module(model))

    def finalize(self) -> nn.Module:
        """Remove all hooks and return the plain module; pruned weights are 0."""
        attached = self._require_attached()
        attached.kinds.remove()
        return attached.pruner.finalize()

    def save(self, directory: str | Path) -> Path:
        """Write weights, masks and certificate, as ``wemem prune`` does.

        Args:
            directory: output directory; created if missing.

        Returns:
            The weights file, for ``wemem audit --weights`` and :func:`wemem.load_pruned`.
        """
        pruner = self._require_attached().pruner
        return save_pruned(Path(directory), pruner, self.defense, self._summary, self._loop.finished)

    def state_dict(self) -> dict[str, Any]:
        """State to continue from, beside the state dicts of model and optimizer.

        Raises:
            InputError: within a round.
        """
        self._loop.require_no_epoch()
        attached = self._require_attached()
        return {
            "round": self._round,
            "sampler": self._require_data().loader.sampler.state_dict(),
            "kinds": attached.kinds.state_dict(),
            "pruner": attached.pruner.state_dict(),
            "summary": copy.deepcopy(self._summary),
            "loop": self._loop.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the round of a state of :meth:`state_dict`, after :meth:`prepare`."""
        attached = self._require_attached()
        self._round, self._summary = int(state["round"]), list(state["summary"])
        attached.pruner.load_state_dict(state["pruner"])
        attached.kinds.load_state_dict(state["kinds"])
        self._require_data().loader.sampler.load_state_dict(state["sampler"])
        self._loop.load_state_dict(state.get("loop", []))

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Masks by parameter name, True where a weight remains."""
        return self._require_attached().pruner.masks

    def _require_attached(self) -> "_Attached":
        if self._attached is None:
            raise InputError("expected an engine with a model, got none; call prepare(model, optimizer, loader) first")
        return self._attached

    def _require_data(self) -> "_Data":
        if self._data is None:
            raise InputError("expected an engine with data, got none; call prepare(model, optimizer, loader) first")
        return self._data


@dataclass(frozen=True, eq=False)
class _Attached:
    """The model's side of an engine."""

    model: nn.Module
    kinds: StepsByKind
    pruner: IterativePruner


@dataclass(frozen=True, eq=False)
class _Data:
    """The data's side of an engine."""

    loader: DefendedLoader
    targets: Float[Tensor, "M C"] | None
    risk: Float64[np.ndarray, " N"] | None
