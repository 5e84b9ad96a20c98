"""The record of one loop of pruning: how a model was made, and whether the loop ran to its end.

Two models were made by the same loop if the recipes in their records are equal. A recipe holds what
the engine sees: defense, pruning, architecture, optimizer, batches, epochs, numbers of records, and
how the scores were estimated. It does not hold the training before pruning, the schedule of the
learning rate, or augmentation.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn
from torch.utils.data import Dataset

from wemem.blocks.loader import DefendedLoader
from wemem.blocks.observation import (
    FinishedLoop,
    estimate_settings,
    is_observed,
    note_begun,
    note_finished,
    state_fingerprint,
)
from wemem.blocks.optimizer import StepsByKind
from wemem.blocks.wrapped import number_of_records
from wemem.defenses import Defense
from wemem.errors import InputError
from wemem.files.hashing import sha256_of
from wemem.pruning import Pruning
from wemem.training import Recipe

#: Records that distinguish one data set from another.
PROBES = 8
#: The share of the planned optimizer steps that a loop takes at least; a gradient scaler skips a few.
LEAST_STEPS = 0.9


class LoopRecord:
    """Collects the facts of a loop as the engine learns them.

    Args:
        defense: the defense.
        pruning: schedule, scope, criterion and choice of layers. Its recipe plays no part.
        untrained: True if the model is stated to have new weights.
    """

    def __init__(self, defense: Defense, pruning: Pruning, untrained: bool) -> None:
        self._recipe: dict[str, Any] = {
            "defense": repr(defense),
            "pruning": repr(replace(pruning, recipe=Recipe())),
            "new weights": untrained,
        }
        self._rounds_expected = pruning.schedule.rounds
        self._rounds: list[dict[str, Any]] = []
        self._loader: DefendedLoader | None = None
        self._kinds: StepsByKind | None = None
        self._records, self._data = 0, ""
        self._now: dict[str, Any] = {}
        #: The loop after its last round; None before.
        self.finished: FinishedLoop | None = None

    def model(self, model: nn.Module, kinds: StepsByKind) -> None:
        """Take in the model and its optimizer, before any step."""
        self._kinds, optimizer = kinds, kinds.optimizer
        weights = [p for p in model.parameters() if p.ndim > 1]
        zeros, total = (sum(int(f(p)) for p in weights) for f in (_zeros, torch.numel))
        shapes = {name: [*tensor.shape] for name, tensor in model.state_dict().items()}
        trainable = sorted(name for name, p in model.named_parameters() if p.requires_grad)
        self._recipe["architecture"] = sha256_of([repr(model), shapes, trainable])
        self._recipe["pruned before"] = round(zeros / max(total, 1), 2)
        groups = [{"parameters": len(group["params"]), **_settings(group)} for group in optimizer.param_groups]
        self._recipe["optimizer"] = [type(optimizer).__name__, groups]

    def data(
        self, loader: DefendedLoader, labels: Int64[np.ndarray, " N"], scores: np.ndarray | None,
        targets: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Take in the training data, the scores and the soft targets."""
        self._loader, self._records = loader, len(labels)
        classes, counts = np.unique(labels, return_counts=True)
        self._recipe["records"] = dict(zip(map(str, classes.tolist()), counts.tolist(), strict=True))
        self._recipe["batches"] = [loader.sampler.batch_size, loader.sampler.accumulation]
        self._recipe["scores"] = estimate_settings(scores, labels)
        self._recipe["targets"] = estimate_settings(targets, labels)
        self._data = sha256_of([labels.tolist(), _probe(loader.dataset) if is_observed() else []])

    def begin_round(self, index: int) -> None:
        """Begin a round, its first marks the begin of the loop."""
        if not self._rounds and not self._now:
            note_begun()
        self._now = {
            "index": index, "epochs": 0, "plans": [], "open": False, "losses": 0, "recorded": 0,
            "before": self._counted(),
        }  # fmt: skip

    @contextmanager
    def epochs(self, most: int, patience: int | None) -> Iterator[None]:
        """Note the plan of a round's epochs; the round is complete if they end without being left."""
        self._now["plans"].append([most, patience])
        self._now["open"] = True
        yield
        self._now["open"] = False

    def require_no_epoch(self) -> None:
        """Refuse a state within a round, whose epochs and best weights it would not hold.

        Raises:
            InputError: an epoch of the round has begun.
        """
        if epochs := self._now.get("epochs"):
            raise InputError(
                f"expected a state from before a round's epochs, got {epochs} begun; take it at the begin of the "
                "round, which is then repeated"
            )

    def count(self, what: str) -> None:
        """Count an epoch, a loss or a recorded accuracy of the round."""
        if self._now:
            self._now[what] += 1

    def end_round(self, model: nn.Module) -> None:
        """End a round; the last one ends the loop, whose weights are then known."""
        now = self._now
        passes, planned, handed, steps, taken = (
            after - before for after, before in zip(self._counted(), now["before"], strict=True)
        )
        problem = None
        if now["open"]:
            problem = "its epochs were left before engine.epochs ended them"
        elif passes != now["epochs"] or handed != planned:
            problem = "an epoch did not go once through the prepared loader"
        elif not LEAST_STEPS * steps <= taken <= steps:
            problem = f"the optimizer took {taken} of {steps} planned steps in a round"
        elif now["losses"] not in (0, handed):
            problem = "engine.loss was used for a part of the batches"
        self._now = {}
        self._rounds.append(
            {
                "round": now["index"], "epochs": now["plans"] or now["epochs"], "problem": problem,
                "loss": "the engine's" if now["losses"] else "the user's",
                "weights": "best" if now["recorded"] else "last",
            }
        )  # fmt: skip
        if now["index"] == self._rounds_expected - 1:
            note_finished(self._finished(model))

    def _counted(self) -> tuple[int, ...]:
        """Passes, planned and received batches, planned steps and those of the optimizer, so far."""
        assert self._loader is not None
        assert self._kinds is not None
        loader = self._loader
        return loader.passes, loader.planned, loader.handed, loader.steps, self._kinds.steps

    def _finished(self, model: nn.Module) -> FinishedLoop:
        problems = [done["problem"] for done in self._rounds if done["problem"]]
        if [done["round"] for done in self._rounds] != list(range(self._rounds_expected)):
            problems = ["its rounds did not run once each, in order"]
        rounds = [{k: v for k, v in done.items() if k != "problem"} for done in self._rounds]
        recipe = {**self._recipe, "rounds": rounds}
        self.finished = FinishedLoop(
            state_fingerprint(model), recipe, next(iter(problems), None), self._records, self._data
        )
        return self.finished

    def state_dict(self) -> list[Mapping[str, Any]]:
        """The rounds that have ended."""
        return [dict(done) for done in self._rounds]

    def load_state_dict(self, rounds: list[Mapping[str, Any]]) -> None:
        """Continue after the rounds of a state."""
        self._rounds = [dict(done) for done in rounds]


def _zeros(tensor: torch.Tensor) -> int:
    return int((tensor == 0).sum())


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group, with the learning rate before any schedule."""
    plain = {name: _plain(value) for name, value in group.items() if name not in ("params", "initial_lr")}
    return {**plain, "lr": _plain(group.get("initial_lr", group.get("lr")))}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _probe(dataset: Dataset[Any]) -> list[str]:
    """Fingerprints of a few records, read without moving PyTorch's generator."""
    n = number_of_records(dataset)
    with torch.random.fork_rng(devices=[]):
        return [sha256_of(_spelled(dataset[int(i)])) for i in np.linspace(0, n - 1, min(n, PROBES))]


def _spelled(item: Any) -> Any:
    if isinstance(item, torch.Tensor):
        return item.detach().cpu().tolist()
    if isinstance(item, Mapping):
        return {str(name): _spelled(value) for name, value in item.items()}
    return [_spelled(one) for one in item] if isinstance(item, tuple | list) else repr(np.asarray(item).tolist())
