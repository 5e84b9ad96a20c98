"""Prune a convolutional network on handwritten digits under a sliding window, in a Lightning trainer.

    python examples/lightning_images.py

needs ``pip install wemem[lightning]``. The window moves in random order, so no scores are needed.
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wemem
from wemem.integrations.lightning import PruningCallback

EPOCHS_PER_ROUND = 2


class Digits(lightning.LightningModule):
    """A small network that learns by the loss of the defense."""

    def __init__(self, engine: wemem.PruningEngine) -> None:
        super().__init__()
        self.engine, self.example_input_array = engine, torch.zeros(2, 1, 8, 8)
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(144, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, 10)`` of images ``(B, 1, 8, 8)``."""
        return self.net(x)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """Loss of the defense on the batch that it planned."""
        x, y = batch
        return self.engine.loss(self(x), y)

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        """Log the accuracy by which each round's best weights are kept."""
        x, y = batch
        self.log("accuracy", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with the paper's weight decay."""
        return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=5e-4)


def main() -> None:
    """Prune and write the model."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    train, dev = TensorDataset(x[:1200], y[:1200]), TensorDataset(x[1200:], y[1200:])
    window = wemem.SlidingWindow(width=0.5, stride=0.1, order="random")
    engine = wemem.PruningEngine(window, sparsity=0.6, rounds=3)
    pruning = PruningCallback(engine, EPOCHS_PER_ROUND, monitor="accuracy")
    trainer = lightning.Trainer(
        max_epochs=pruning.epochs, callbacks=[pruning], use_distributed_sampler=False, accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(Digits(engine), engine.defend(DataLoader(train, batch_size=64)), DataLoader(dev, batch_size=256))
    print(f"Pruned model in {engine.save('runs/lightning-images')}")


if __name__ == "__main__":
    main()
