"""The ensemble backends beside one-after-another training in plain PyTorch: same models, same data, one process.

    python benchmarks/ensemble_backends.py --epochs 20 --repeats 3
    python benchmarks/ensemble_backends.py --only "fc, 6 models" --epochs 3
    python benchmarks/ensemble_backends.py --only "resnet8, 6 models" --epochs 2
    python benchmarks/ensemble_backends.py --only "resnet18, 6 models" --epochs 1 --train 256 --repeats 1

``plain`` is a loop over modules as a person would write it: tensor indexing instead of a DataLoader, nn.Dropout,
torch.optim.Adam (its default, or ``fused=True``), dev accuracy after every epoch. Each method gets all the threads: the
plain ones for their operators, ``fit, sequential`` for whole members of convolution models. The methods take turns:
seconds are medians over the turns, ``x plain`` the median of each turn's ratio, with the least and the most. Core
seconds are the processor time of all threads. GFLOP/s counts the matrix products and convolutions that a plain
step computes, forward and backward, and those of the dev records. The peak that they are held against is a
2048 x 2048 x 2048 product on the same threads, the median over the turns.
Memory is the process's peak while the method ran, less what it held before. ``fit, compiled`` is run where there is a
C++ compiler; its first run compiles and is not counted.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split, stratified_draw
from wemem.models import FullyConnected, ResNet8, ResNet18, ResNet20
from wemem.training import Ensemble, Recipe, fit


@dataclass(frozen=True)
class Case:
    """``models`` models of one kind, each with its own ``train`` and ``dev`` records."""

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    classes: int
    models: int
    train: int
    dev: int


def fully_connected() -> nn.Module:
    """The paper's network for Location."""
    return FullyConnected().build((446,), 30)


def small_convolutional() -> nn.Module:
    """Two convolutions with BatchNorm, for 16 x 16 images."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def resnet(kind: type[ResNet8 | ResNet20 | ResNet18]) -> Callable[[], nn.Module]:
    """One of the CIFAR networks, at its published width."""
    return lambda: kind().build((3, 32, 32), 10)


def cases(train: int, many: int) -> list[Case]:
    """What is measured: Location's shape with few and with many models, and two image models."""
    dev = train // 6
    return [
        Case("fc, 6 models", fully_connected, (446,), 30, 6, train, dev),
        Case(f"fc, {many} models", fully_connected, (446,), 30, many, train, dev),
        Case("conv, 6 models", small_convolutional, (3, 16, 16), 10, 6, train, dev),
        Case("resnet8, 6 models", resnet(ResNet8), (3, 32, 32), 10, 6, train, dev),
        Case(f"resnet8, {many} models", resnet(ResNet8), (3, 32, 32), 10, many, train, dev),
        Case("resnet20, 6 models", resnet(ResNet20), (3, 32, 32), 10, 6, train, dev),
        Case("resnet18, 6 models", resnet(ResNet18), (3, 32, 32), 10, 6, train, dev),
    ]


def make_data(case: Case) -> tuple[Dataset, Split]:
    """Random records, of which each model trains on its own."""
    rng, n = np.random.default_rng(0), 2 * (case.train + case.dev)
    features = rng.integers(0, 2, (n, *case.input_shape)).astype(np.float32)
    data = Dataset(case.name, features, np.arange(n) % case.classes, case.classes)
    roles = np.full((case.models, n), Role.AUDIT, np.int8)
    for row in roles:
        train, dev = stratified_draw(data.labels, np.arange(n), [case.train, case.dev], rng)
        row[train], row[dev] = Role.TRAIN, Role.DEV
    return data, Split(roles, data.labels, "subsets")


def plain_loop(modules: list[nn.Module], data: Dataset, split: Split, recipe: Recipe, fused: bool | None) -> None:
    """Train one model after another."""
    x, y = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    for k, module in enumerate(modules):
        train, dev = (torch.from_numpy(split.records(k, role)) for role in (Role.TRAIN, Role.DEV))
        rate, decay = recipe.learning_rate, recipe.weight_decay
        optimizer = torch.optim.Adam(module.parameters(), lr=rate, weight_decay=decay, fused=fused)
        for _ in range(recipe.epochs):
            module.train()
            for rows in train[torch.randperm(len(train))].split(recipe.batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
                optimizer.step()
            module.eval()
            with torch.no_grad():
                (module(x[dev]).argmax(1) == y[dev]).float().mean().item()


def methods(case: Case, recipe: Recipe) -> dict[str, Callable[[], object]]:
    """Each way to train the case's models, from the same fresh weights."""
    data, split = make_data(case)
    start = Ensemble.from_modules([case.build() for _ in range(case.models)])

    def plain(fused: bool | None) -> Callable[[], object]:
        def run() -> None:
            modules = [case.build() for _ in range(case.models)]
            for k, module in enumerate(modules):
                module.load_state_dict(start.state(k))
            plain_loop(modules, data, split, recipe, fused)

        return run

    def ours(backend: str) -> Callable[[], object]:
        return lambda: fit(start, data, split, recipe, seeds=range(case.models), backend=backend)

    ways = {
        "plain": plain(None), "plain, fused Adam": plain(True),
        "fit, sequential": ours("sequential"), "fit, vmapped": ours("vmapped"),
    }  # fmt: skip
    if len(case.input_shape) == 3 and shutil.which("g++") is not None:
        ways["fit, compiled"] = ours("compiled")
    return ways


def flops_of_a_record(case: Case) -> tuple[int, int]:
    """In training, forward and backward, and of the forward pass alone."""
    module, record = case.build(), torch.zeros(2, *case.input_shape)
    with FlopCounterMode(display=False) as forward:
        logits = module(record)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    asked = int(forward.get_total_flops())
    return (asked + int(backward.get_total_flops())) // len(record), asked // len(record)


def measured_peak(size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of a square matrix product."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(repeats))


def seconds_of(call: Callable[[], object]) -> float:
    return timed(call)[0]


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, cores = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cores


def memory_of(call: Callable[[], object]) -> str:
    """The process's peak while the call ran beyond what it held before, in MiB; Linux counts it, others may not."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and clear.exists()):
        call()
        return "-"
    clear.write_text("5")  # the peak starts again from what is held now
    before = resident(status, "VmRSS")
    call()
    return f"{resident(status, 'VmHWM') - before:.0f}"


def resident(status: Path, field: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def report(case: Case, recipe: Recipe, repeats: int) -> None:
    """Print one line a method."""
    runs = methods(case, recipe)
    runs["plain"]()  # what PyTorch loads when first used is not counted
    memory = {name: memory_of(run) for name, run in runs.items()}
    turns, peaks = [], []
    for _ in range(repeats):
        peaks.append(measured_peak())
        turns.append({name: timed(run) for name, run in runs.items()})
    peak = float(np.median(peaks))
    records = case.models * recipe.epochs * case.train
    trained, asked = flops_of_a_record(case)
    flops = case.models * recipe.epochs * (trained * case.train + asked * case.dev)
    print(
        f"\n{case.name}: {case.train} training records each, {recipe.epochs} epochs, batches of {recipe.batch_size}, "
        f"{repeats} turns, peak {peak / 1e9:.1f} GFLOP/s"
    )
    print(
        f"{'':18s}{'s':>9s}{'core s':>9s}{'models x records/s':>20s}{'x plain':>20s}{'GFLOP/s':>9s}{'of peak':>9s}"
        f"{'MiB':>7s}"
    )
    for name in runs:
        seconds, cores = np.median([turn[name] for turn in turns], axis=0)
        ratios = [turn["plain"][0] / turn[name][0] for turn in turns]
        times = f"{np.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(
            f"{name:18s}{seconds:9.2f}{cores:9.2f}{records / seconds:20,.0f}{times:>20s}"
            f"{flops / seconds / 1e9:9.1f}{flops / seconds / peak:9.0%}{memory[name]:>7s}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--train", type=int, default=1503, help="training records of a model (Location: 1503)")
    parser.add_argument("--many", type=int, default=64, help="models of the large ensemble")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", help="the name of one case")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {given.threads} thread(s)")
    recipe = Recipe(epochs=given.epochs, patience=None, batch_size=given.batch)
    for case in cases(given.train, given.many):
        if given.only in (None, case.name):
            report(case, recipe, given.repeats)


if __name__ == "__main__":
    main()
