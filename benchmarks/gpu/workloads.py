"""The trainings that are timed: ours by every backend, a plain loop, and a well-tuned loop."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split, stratified_draw
from wemem.models import FullyConnected, Model, ResNet8, ResNet9, ResNet18
from wemem.training import FAST, Ensemble, Recipe, fit
from wemem.training.augment import Augmentation
from wemem.training.device import CudaSettings, use_cuda_settings
from wemem.training.recipe import Precision

#: The number of different initial weights of an ensemble.
DIFFERENT = 6


@dataclass(frozen=True)
class Case:
    """Models of one kind, each with its own train and dev records.

    Args:
        name: the name of the kind.
        model: builds a model.
        input_shape: the shape of a record.
        classes: the number of classes.
        train: the number of train records of a model.
        dev: the number of dev records of a model.
        epochs: the number of epochs.
        batch: the number of records of a step.
        recipe: the recipe of our trainings, but for epochs, batches, precision and augmentation.
    """

    name: str
    model: Model
    input_shape: tuple[int, ...]
    classes: int
    train: int
    dev: int
    epochs: int
    batch: int = 128
    recipe: Recipe = field(default_factory=lambda: Recipe(patience=None))

    def data(self, models: int) -> tuple[Dataset, Split]:
        """Random records, of which each model trains on its own."""
        rng, n = np.random.default_rng(0), 2 * (self.train + self.dev)
        features = rng.standard_normal((n, *self.input_shape), np.float32)
        data = Dataset(self.name, features, np.arange(n) % self.classes, self.classes)
        roles = np.full((models, n), Role.AUDIT, np.int8)
        for row in roles:
            train, dev = stratified_draw(data.labels, np.arange(n), [self.train, self.dev], rng)
            row[train], row[dev] = Role.TRAIN, Role.DEV
        return data, Split(roles, data.labels, "subsets")

    def start(self, models: int) -> Ensemble:
        """Fresh models, of which those that are ``DIFFERENT`` apart are equal, because building many takes long."""
        built = Ensemble.initialize(self.model, self.input_shape, self.classes, seeds=range(min(models, DIFFERENT)))
        return built.select([k % len(built) for k in range(models)])

    def flops(self) -> int:
        """FLOPs of training on one record, forward and backward; evaluation on dev records is not counted."""
        module, record = self.model.build(self.input_shape, self.classes), torch.zeros(2, *self.input_shape)
        with FlopCounterMode(display=False) as counter:
            module(record).sum().backward()
        return int(counter.get_total_flops()) // len(record)


def cases(*, tiny: bool) -> dict[str, Case]:
    """Location's shape, and two networks for CIFAR; at sizes for a test if tiny."""
    if tiny:
        return {
            "fc": Case("fc", FullyConnected((8,)), (6,), 3, 40, 20, 2, 16),
            "resnet8": Case("resnet8", ResNet8(width=0.25), (3, 8, 8), 3, 24, 12, 2, 8),
            "resnet18": Case("resnet18", ResNet18(width=0.05), (3, 8, 8), 3, 16, 8, 2, 8),
            "resnet9": Case("resnet9", ResNet9(width=0.05), (3, 8, 8), 3, 16, 8, 2, 8, FAST),
        }
    return {
        "fc": Case("fc", FullyConnected(), (446,), 30, 1536, 250, 8),
        "resnet8": Case("resnet8", ResNet8(), (3, 32, 32), 10, 2560, 512, 4),
        "resnet18": Case("resnet18", ResNet18(), (3, 32, 32), 10, 2560, 512, 4),
        "resnet9": Case("resnet9", ResNet9(), (3, 32, 32), 10, 5120, 512, 4, 512, FAST),
    }


@dataclass(frozen=True)
class Method:
    """One way to train models by this library."""

    backend: str
    cuda: CudaSettings = field(default_factory=CudaSettings)
    precision: Precision = "fp32"
    augment: Augmentation = "none"

    @property
    def name(self) -> str:
        words = [self.backend]
        if self.cuda.together > 1:
            words.append(f"{self.cuda.together} together")
        if self.cuda.streams > 1:
            words.append(f"{self.cuda.streams} streams")
        words += ["replayed"] * self.cuda.replay + ["channels first"] * (not self.cuda.channels_last)
        words += ["not deterministic"] * (not self.cuda.deterministic)
        return ", ".join([*words, *([self.augment] if self.augment != "none" else [])])

    def settings(self) -> dict[str, Any]:
        """What a study needs to train in this way."""
        return {"backend": self.backend, "precision": self.precision, "cuda": asdict(self.cuda)}


@dataclass(frozen=True)
class Timing:
    """Seconds of a training, and of an epoch of one model after the first, which is warm."""

    seconds: float
    epoch_of_a_model: float
    peak_bytes: int


def time_ours(case: Case, models: int, method: Method, device: torch.device) -> Timing:
    """Time a fit."""
    data, split = case.data(models)
    start = case.start(models)
    recipe = replace(
        case.recipe, epochs=case.epochs, batch_size=case.batch, precision=method.precision, augment=method.augment
    )
    stamps: list[tuple[int, float]] = []
    together = models if method.backend == "vmapped" else method.cuda.together if device.type == "cuda" else 1
    at_a_time = -(-models // -(-models // together))  # parts are of equal size

    def fitted() -> None:
        with use_cuda_settings(method.cuda):
            fit(
                start, data, split, recipe, seeds=range(models), backend=method.backend, device=device,
                on_epoch=lambda epoch, running: stamps.append((epoch, time.perf_counter())),
            )  # fmt: skip

    seconds, peak = timed(fitted, device)
    warm = [after - before for (first, before), (second, after) in pairwise(stamps) if second == first + 1]
    return Timing(seconds, float(np.median(warm)) / at_a_time, peak)


def time_loop(
    case: Case, loop: Callable[[Case, nn.Module, torch.Tensor, torch.Tensor, torch.device], list[float]],
    device: torch.device,
) -> Timing:  # fmt: skip
    """Time a loop that trains one model, which takes as long for each of several."""
    data, split = case.data(1)
    rows = [torch.from_numpy(split.records(0, role)) for role in (Role.TRAIN, Role.DEV)]
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    x, y = torch.cat([features[r] for r in rows]), torch.cat([labels[r] for r in rows])
    epochs: list[float] = []
    module = case.model.build(case.input_shape, case.classes)
    seconds, peak = timed(lambda: epochs.extend(loop(case, module, x, y, device)), device)
    return Timing(seconds, float(np.median(epochs[1:])), peak)


def plain_loop(case: Case, module: nn.Module, x: torch.Tensor, y: torch.Tensor, device: torch.device) -> list[float]:
    """Train as tutorials do: a DataLoader, one copy for each batch, float32 by PyTorch's defaults."""
    train = DataLoader(TensorDataset(x[: case.train], y[: case.train]), case.batch, shuffle=True)
    dev = DataLoader(TensorDataset(x[case.train :], y[case.train :]), 1024)
    module.to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=5e-4)

    def epoch() -> None:
        module.train()
        for inputs, labels in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs.to(device)), labels.to(device)).backward()
            optimizer.step()
        module.eval()
        with torch.no_grad():
            for inputs, labels in dev:
                (module(inputs.to(device)).argmax(1) == labels.to(device)).sum().item()

    return epoch_times(case, epoch, device)


def compiled_loop(case: Case, module: nn.Module, x: torch.Tensor, y: torch.Tensor, device: torch.device) -> list[float]:
    """Train one model by the tuned loop with the steps compiled by ``torch.compile``."""
    return tuned_loop(case, module, x, y, device, torch.compile(module, dynamic=False))


def tuned_loop(
    case: Case, module: nn.Module, x: torch.Tensor, y: torch.Tensor, device: torch.device,
    compiled: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> list[float]:  # fmt: skip
    """Train one model as fast as plain PyTorch does: data on the device, bfloat16, channels last, a fused optimizer."""
    module.to(device)
    x, y = x.to(device), y.to(device)
    if x.ndim == 4:
        module.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=5e-4, fused=True)

    def logits_of(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            logits: torch.Tensor = (compiled or module)(inputs) if module.training else module(inputs)
            return logits

    def epoch() -> None:
        module.train()
        for rows in torch.randperm(case.train, device=device).split(case.batch):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(logits_of(x[rows]), y[rows]).backward()
            optimizer.step()
        module.eval()
        with torch.no_grad():
            (logits_of(x[case.train :]).argmax(1) == y[case.train :]).sum().item()

    return epoch_times(case, epoch, device)


def epoch_times(case: Case, epoch: Callable[[], None], device: torch.device) -> list[float]:
    return [timed(epoch, device)[0] for _ in range(case.epochs)]


def timed(call: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Wall seconds until the device is done, and the peak of its memory."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began, torch.cuda.max_memory_allocated() if cuda else 0
