"""Pruning under a defense in a Hugging Face ``Trainer`` (``pip install wemem[transformers]``).

::

    engine = wemem.PruningEngine("swmr", sparsity=0.6, rounds=5)
    pruning = PruningCallback(engine, epochs_per_round=3)
    arguments = TrainingArguments("out", num_train_epochs=pruning.epochs)
    trainer = PruningTrainer(model, arguments, train_dataset=data, callbacks=[pruning], scores="scores.parquet")
    trainer.train()
    engine.save("pruned/")
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from wemem.blocks import DefendedLoader, PruningEngine
from wemem.blocks.wrapped import first_inputs
from wemem.errors import InputError


class PruningCallback(TrainerCallback):
    """Prunes the model at the start of each round and plans the records of each epoch.

    Args:
        engine: the engine.
        epochs_per_round: epochs of fine-tuning in each round.

    Raises:
        InputError: fewer than one epoch, or, when training starts, another number of epochs.
    """

    def __init__(self, engine: PruningEngine, epochs_per_round: int) -> None:
        if epochs_per_round < 1:
            raise InputError(f"epochs_per_round must be at least 1, got {epochs_per_round}")
        self.engine, self.epochs_per_round, self._epoch = engine, epochs_per_round, 0

    @property
    def epochs(self) -> int:
        """Epochs of all rounds, for ``TrainingArguments(num_train_epochs=...)``."""
        return self.engine.pruning.schedule.rounds * self.epochs_per_round

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Connect the engine with the model and its optimizer."""
        if args.num_train_epochs != self.epochs:
            raise InputError(f"expected num_train_epochs={self.epochs}, got {args.num_train_epochs}")
        loader: _Epochs = given["train_dataloader"]
        self._epoch = round(state.epoch or 0)
        self.engine.attach(given["model"], given["optimizer"], first_inputs(loader.defended.loader))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Begin the round, if it is its first epoch, and the epoch."""
        index, epoch = divmod(self._epoch, self.epochs_per_round)
        if epoch == 0:
            self.engine.begin_round(index)
        self.engine.begin_epoch(epoch)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """End the round after its last epoch."""
        self._epoch += 1
        if self._epoch % self.epochs_per_round == 0:
            self.engine.end_round()


class _Epochs:
    """The defended loader with the length of its longest epoch: ``Trainer`` cuts longer ones off."""

    def __init__(self, defended: DefendedLoader, epochs: int) -> None:
        self.defended, self.dataset = defended, defended.dataset
        self._length = defended.sampler.longest_epoch(epochs)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.defended)

    def __len__(self) -> int:
        return self._length


class PruningTrainer(Trainer):
    """A ``Trainer`` whose training batches a defense plans.

    Args:
        scores: memorization scores or their file, for a defense that needs them.
        labels: class of each record; by default those that the data set shows.
        others: arguments of ``Trainer``; one of its callbacks is a :class:`PruningCallback`.
    """

    def __init__(
        self, *args: Any, scores: str | Path | Float64[np.ndarray, " N"] | None = None,
        labels: np.ndarray | None = None, **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **others)
        self._scores, self._labels = scores, labels

    def get_train_dataloader(self) -> _Epochs:  # type: ignore[override]  # any sized iterable serves
        """Give the batches that the defense plans."""
        pruning = next((c for c in self.callback_handler.callbacks if isinstance(c, PruningCallback)), None)
        if pruning is None:
            raise InputError("expected callbacks=[PruningCallback(engine, ...)], got none")
        if pruning.engine.accumulation != self.args.gradient_accumulation_steps:
            raise InputError(
                f"expected PruningEngine(accumulation={self.args.gradient_accumulation_steps}), as "
                f"gradient_accumulation_steps says, got {pruning.engine.accumulation}"
            )
        defended = pruning.engine.defend(super().get_train_dataloader(), labels=self._labels, scores=self._scores)
        return _Epochs(defended, pruning.epochs_per_round)
