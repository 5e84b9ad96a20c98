"""Pruning under a defense in a Lightning ``Trainer`` (``pip install wemem[lightning]``).

::

    engine = wemem.PruningEngine("swmr", sparsity=0.6, rounds=5)
    pruning = PruningCallback(engine, epochs_per_round=21)
    trainer = lightning.Trainer(max_epochs=pruning.epochs, callbacks=[pruning], use_distributed_sampler=False)
    trainer.fit(module, engine.defend(loader, scores="scores.parquet"))
    engine.save("pruned/")
"""

from typing import Any

import lightning
from torch import Tensor

from wemem.blocks import PruningEngine
from wemem.blocks.wrapped import Example
from wemem.errors import InputError


class PruningCallback(lightning.Callback):
    """Prunes the module at the start of each round and plans the records of each epoch.

    Args:
        engine: the engine, whose :meth:`~wemem.PruningEngine.defend` made the training loader.
        epochs_per_round: epochs of fine-tuning in each round.
        monitor: name of a logged metric, higher is better, by which each round's best weights are
            kept; None keeps the last weights.
        example: inputs of one batch; by default those of the module's ``example_input_array``.

    Raises:
        InputError: fewer than one epoch, or, when training starts, a module without example inputs,
            several optimizers, or another number of epochs.
    """

    def __init__(
        self, engine: PruningEngine, epochs_per_round: int, monitor: str | None = None, example: Example | None = None
    ) -> None:
        if epochs_per_round < 1:
            raise InputError(f"epochs_per_round must be at least 1, got {epochs_per_round}")
        self.engine, self.epochs_per_round, self.monitor, self.example = engine, epochs_per_round, monitor, example

    @property
    def epochs(self) -> int:
        """Epochs of all rounds, for ``Trainer(max_epochs=...)``."""
        return self.engine.pruning.schedule.rounds * self.epochs_per_round

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Connect the engine with the module and its optimizer."""
        example = pl_module.example_input_array if self.example is None else self.example
        if example is None:
            raise InputError("expected example inputs, got none; give example=..., or set example_input_array")
        if len(trainer.optimizers) != 1:
            raise InputError(f"expected one optimizer, got {len(trainer.optimizers)}; prune in your own loop")
        if trainer.max_epochs != self.epochs:
            raise InputError(f"expected Trainer(max_epochs={self.epochs}), got {trainer.max_epochs}")
        self.engine.attach(pl_module, trainer.optimizers[0], example)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin the round, if it is its first epoch, and the epoch."""
        index, epoch = divmod(trainer.current_epoch, self.epochs_per_round)
        if epoch == 0:
            self.engine.begin_round(index)
        self.engine.begin_epoch(epoch)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Record the metric, and end the round after its last epoch."""
        if self.monitor is not None:
            self.engine.record(float(self._metric(trainer.callback_metrics)))
        if (trainer.current_epoch + 1) % self.epochs_per_round == 0:
            self.engine.end_round()

    def _metric(self, metrics: dict[str, Any]) -> Tensor:
        if self.monitor not in metrics:
            raise InputError(f"expected a logged metric {self.monitor!r}, got {', '.join(metrics) or 'none'}; log it")
        value: Tensor = metrics[self.monitor]
        return value
