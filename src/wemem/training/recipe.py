"""The settings of the training of a model, and the recipes that a study can name.

``paper`` is the paper's training. ``fast`` is for networks with BatchNorm on images, and trains in
few epochs: SGD with momentum, a learning rate of one cycle (:mod:`wemem.training.schedule`), images
flipped and shifted, and the average of the last weights. It follows the fast public recipes for
CIFAR-10 (Page, "How to Train Your ResNet", 2018; Jordan, arXiv:2404.00498), without their label
smoothing and whitening. A fine-tuning by it restarts the cycle in every round of pruning, as
learning-rate rewinding does (Renda, Frankle, Carbin, ICLR 2020).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from wemem.errors import InputError
from wemem.settings import ADDED
from wemem.training.augment import Augmentation
from wemem.training.schedule import SCHEDULES, Schedule

Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """Optimizer, length and early stopping. The defaults are the paper's for the original model.

    Args:
        epochs: the largest number of epochs.
        patience: the number of epochs without a better dev accuracy after which a model stops; None
            never stops early.
        learning_rate: the learning rate of the optimizer.
        weight_decay: the L2 decay, which is added to the gradient as in ``torch.optim.Adam``.
        batch_size: the number of records per step and model.
        optimizer: the optimizer, ``adam``, or ``sgd`` with momentum 0.9.
        augment: the augmentation of training images: ``none``, ``flip``, ``crop_flip`` or
            ``crop_flip_cutout``.
        keep: the checkpoint to keep, that of ``best`` dev accuracy or the ``last`` one.
        precision: the precision, ``fp32``, ``tf32`` or ``bf16``. With ``tf32``, a GPU rounds the
            factors of matrix products and convolutions to 10 bits; a CPU computes in fp32. With
            ``bf16``, matrix products and convolutions use bfloat16 copies (``torch.autocast``),
            while weights, loss and optimizer stay float32. ``fp16`` is not supported, because it
            needs a separate loss scale for each model.
        schedule: the schedule of the learning rate, ``constant`` or ``one_cycle``.
        average: the share of the training over which an average of the weights forgets; dev
            accuracy and checkpoint are those of the average. At 0 they are those of the weights.
    """

    epochs: int = 100
    patience: int | None = 5
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    batch_size: int = 128
    optimizer: Literal["adam", "sgd"] = "adam"
    augment: Augmentation = "none"
    keep: Literal["best", "last"] = "best"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    schedule: Schedule = field(default="constant", metadata=ADDED)
    average: float = field(default=0.0, metadata=ADDED)

    def __post_init__(self) -> None:
        least = {"epochs": 1, "patience": 1, "batch_size": 1, "learning_rate": 0, "weight_decay": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise InputError(f"{name} must be at least {bound}, got {value}")
        if self.optimizer not in ("adam", "sgd"):
            raise InputError(f"optimizer must be adam or sgd, got {self.optimizer!r}")
        if self.augment not in get_args(Augmentation):
            raise InputError(f"augment must be one of {', '.join(get_args(Augmentation))}, got {self.augment!r}")
        if self.keep not in ("best", "last"):
            raise InputError(f"keep must be best or last, got {self.keep!r}")
        if self.precision not in ("fp32", "tf32", "bf16"):
            raise InputError(
                f"precision must be fp32, tf32 or bf16, got {self.precision!r}; fp16 would need loss scaling"
            )
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule must be {' or '.join(SCHEDULES)}, got {self.schedule!r}")
        if not 0 <= self.average <= 1:
            raise InputError(f"average must be a share of the training in [0, 1], got {self.average}; 0 is no average")


#: The paper's training of the original model.
DENSE = Recipe()
#: The paper's fine-tuning of one pruning round.
FINETUNE = Recipe(epochs=21)
#: The recipe of few epochs for images; both for the original model and for a pruning round.
FAST = Recipe(
    epochs=16, patience=None, learning_rate=0.2, batch_size=512, optimizer="sgd", augment="crop_flip", keep="last",
    schedule="one_cycle", average=0.03,
)  # fmt: skip

#: The recipes of both stages of a study, by the name that it gives.
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "paper": {"training": DENSE, "finetune": FINETUNE},
    "fast": {"training": FAST, "finetune": FAST},
}
