"""Structured against unstructured pruning: accuracy, leakage, size and time, all from one run.

    python benchmarks/structured.py
    python benchmarks/structured.py --sparsity 0.8 --seeds 5

A small convolutional network with a residual connection on handwritten digits (8 x 8), pruned without a defense by each
method to the same sparsity, which means weights for ``magnitude`` and filters for the others. Test accuracy and the
confidence attack's AUC are means over seeds ± standard deviation; chance is 50. Size and time are of seed 0's victim.
Latency is the median of ``--repeats`` passes, all models taking turns, as a ratio to the dense model's.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from wemem import api, load_pruned, parse_study
from wemem.exporting.footprint import BATCHES, latencies

METHODS = ("magnitude", "l1_filter", "l2_filter")


class SmallResidual(nn.Module):
    """A stem, one residual block, a strided convolution and a hidden layer."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.block, self.block_norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.wide, self.wide_norm = nn.Conv2d(width, 2 * width, 3, stride=2, bias=False), nn.BatchNorm2d(2 * width)
        self.hidden, self.out = nn.Linear(2 * width * 9, 4 * width), nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(x.unflatten(1, (1, 8, 8)))))
        x = torch.relu(x + self.block_norm(self.block(x)))
        x = torch.relu(self.wide_norm(self.wide(x)))
        logits: torch.Tensor = self.out(torch.relu(self.hidden(x.flatten(1))))
        return logits


def small_residual(input_shape: tuple[int, ...], classes: int, width: int = 16) -> nn.Module:
    return SmallResidual(width, classes)


def run(method: str, given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The runs of a study with one pruning method; the dense models are trained once and found again."""
    study = parse_study(
        {
            "seeds": list(range(given.seeds)),
            "attacks": ["confidence"],
            "data": {"source": "digits"},
            "model": {"kind": "structured:small_residual"},
            "split": {"shadows": 2},
            "training": {"epochs": given.epochs},
            "finetune": {"epochs": given.epochs // 2},
            "pruning": {"rounds": 3, "sparsity": given.sparsity, "method": method},
            "defenses": ["undefended"],
        }
    )
    runs: list[dict[str, Any]] = api.run(study, folder / method, folder / "store")["runs"]
    return runs


def spread(runs: list[dict[str, Any]], measure: Any) -> str:
    values = [100 * measure(r) for r in runs]
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def report(given: argparse.Namespace, folder: Path) -> None:
    found = {method: run(method, given, folder) for method in METHODS}
    rows = {"dense": [r for r in found["magnitude"] if r["defense"] == "dense"]}
    rows |= {method: [r for r in runs if r["defense"] != "dense"] for method, runs in found.items()}
    files = {"dense": folder / "magnitude/models/dense-seed0.safetensors"}
    files |= {m: folder / m / f"models/undefended-sparsity{given.sparsity}-seed0.safetensors" for m in METHODS}
    modules = {name: load_pruned(small_residual((64,), 10), path) for name, path in files.items()}
    times = {batch: latencies(modules, (64,), batch, given.repeats) for batch in BATCHES}
    print(f"{given.seeds} seed(s), sparsity {given.sparsity}, {torch.get_num_threads()} thread(s)")
    print(f"{'':11s}{'sparsity':>9s}{'test acc.':>13s}{'conf. AUC':>13s}{'parameters':>11s}{'nonzero':>9s}{'kMAC':>7s}"
          f"{'kB':>7s}{'kB sparse':>10s}{'time @1':>9s}{'@128':>7s}")  # fmt: skip
    for name, runs in rows.items():
        cost = runs[0]["footprint"]
        ratios = [times[batch][name] / times[batch]["dense"] for batch in BATCHES]
        print(
            f"{name:11s}{runs[0]['sparsity']:9.2f}{spread(runs, lambda r: r['accuracy']['test']):>13s}"
            f"{spread(runs, lambda r: r['attacks']['confidence']['auc']):>13s}{cost['parameters']:11,}"
            f"{cost['nonzero']:9,}{cost['macs'] / 1e3:7.0f}{cost['dense_bytes'] / 1e3:7.1f}"
            f"{cost['sparse_bytes'] / 1e3:10.1f}{ratios[0]:9.2f}{ratios[1]:7.2f}"
        )
    dense = ", ".join(f"{1e3 * times[batch]['dense']:.2f} ms at batch {batch}" for batch in BATCHES)
    print(f"dense: {dense}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of the dense model; half of it in each round")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        report(given, Path(folder))


if __name__ == "__main__":
    main()
