"""The attack classifiers beside the published recipe: held-out accuracy and seconds, in one run.

    python benchmarks/attack_classifiers.py
    python benchmarks/attack_classifiers.py --attacks nn nn_top3 nn_class --models dense undefended --seeds 0 1 2

The recipe: inputs as they are, SGD at 0.01 with momentum 0.9 and weight decay 5e-4, batches of 128, 100 epochs, a
tenth of the learning rate from one half and again from three quarters on; PyTorch's own transformer encoder for SAMIA.
Everything is scored on the victim's records. ``balanced`` and ``plain`` are accuracies: of the decision for equally
many members and non-members, and of the decision for the shadows' share of members. ``majority`` is the plain accuracy
of calling every record a member. Seconds of ours are the least of some repeats, those of the recipe of one run.

Victim and 5 shadows are models of Location, from the folder WEMEM_DATA or ../shared/data, else of digits; pruned to
sparsity 0.6 (``undefended``), or not (``dense``). SAMIA's recipe takes a quarter of an hour and more; ``--epochs 10``
shortens it, schedule and all.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, one_hot, relu

from wemem.attacks import ATTACKS, THRESHOLD
from wemem.attacks.learned import shadow_rows
from wemem.config.parse import parse_study
from wemem.metrics.rates import auc
from wemem.pipeline.progress import Silent
from wemem.signals import Signals
from wemem.store.store import Store
from wemem.study.run import run_study

CLASSIFIERS = ("nn", "nn_top3", "nn_class", "samia")


@dataclass(frozen=True)
class Measured:
    """What one attack reached and took."""

    balanced: float
    plain: float
    auc: float
    seconds: float


def signals_of_studies(models: list[str], seeds: list[int]) -> Iterator[tuple[str, Signals]]:
    """What an adversary sees of a victim and its shadows."""
    folders = (os.environ.get("WEMEM_DATA"), Path(__file__).resolve().parents[2] / "shared" / "data")
    found = [Path(folder) for folder in folders if folder and Path(folder).exists()]
    data = {"source": "location", "path": str(found[0])} if found else {"source": "digits"}
    table = {
        "data": data, "seeds": seeds, "attacks": ["samia"], "model": {"kind": "fc", "hidden": [256, 128]},
        "split": {"shadows": 5}, "pruning": {"sparsity": 0.6}, "defenses": ["undefended"],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for outcome in run_study(parse_study(table), Store(Path(folder)), Silent()):
            if outcome.label in models:
                yield f"{data['source']}, {outcome.label}, seed {outcome.seed}", outcome.signals["disjoint"]


def published_inputs(name: str, signals: Signals, member: int, rows: np.ndarray) -> Tensor:
    """Probabilities, and what the attack takes beside them."""
    p = torch.from_numpy(signals.probabilities(member, rows)).float()
    if name == "nn":
        return p
    if name == "nn_top3":
        return p.topk(min(3, signals.classes), dim=1).values
    label = one_hot(torch.from_numpy(signals.labels[rows]), signals.classes).float()
    if name == "nn_class":
        return torch.cat([p, label], dim=1)
    return torch.cat([p, torch.from_numpy(signals.extras["sensitivity"][member, rows]), label], dim=1)


def published_perceptron(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2),
    )  # fmt: skip


class PublishedEncoder(nn.Module):
    """SAMIA's network: one token a class, in the classes' order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        classes = width // 3
        self.norm, self.embed = nn.BatchNorm1d(width), nn.Linear(3, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.2, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.hidden, self.out = nn.Linear(64 * classes, 64), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).unflatten(1, (3, -1)).transpose(1, 2)
        logits: Tensor = self.out(relu(self.hidden(self.encoder(gelu(self.embed(tokens))).flatten(1))))
        return logits


def by_published_recipe(name: str, signals: Signals, epochs: int) -> np.ndarray:
    """Probability of membership of the victim's records, where members are as frequent as among the shadows'."""
    shadows = list(shadow_rows(signals, 0))
    x = torch.cat([published_inputs(name, signals, k, rows) for k, rows, _ in shadows])
    member = torch.from_numpy(np.concatenate([is_member for _, _, is_member in shadows])).long()
    network = PublishedEncoder(x.shape[1]) if name == "samia" else published_perceptron(x.shape[1])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            cross_entropy(network(x[rows]), member[rows]).backward()
            optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        judged = published_inputs(name, signals, 0, signals.audited(0)).split(1024)
        return torch.cat([network(part).softmax(1)[:, 1] for part in judged]).double().numpy()


def measure(signals: Signals, call: Callable[[], np.ndarray], *, prior: float, repeats: int) -> Measured:
    """Score the victim and judge the scores.

    Args:
        signals: victim and shadows.
        call: gives a probability of membership for every audited record.
        prior: the share of members for which it is the probability.
        repeats: how often to time it.
    """
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        score = call()
        taken.append(time.perf_counter() - start)
    member, share = signals.is_member(0), members_share(signals)
    odds = np.log(score) - np.log1p(-score) - np.log(prior / (1 - prior))  # for equally many
    called, called_plain = odds >= 0, odds + np.log(share / (1 - share)) >= 0
    balanced = float((called[member].mean() + (~called[~member]).mean()) / 2)
    plain = float((called_plain == member).mean())
    return Measured(balanced, plain, auc(odds[member], odds[~member]), min(taken))


def members_share(signals: Signals) -> float:
    """Of members among the shadows' audited records."""
    return float(np.concatenate([is_member for _, _, is_member in shadow_rows(signals, 0)]).mean())


def eight_attacks(signals: Signals) -> dict[str, float]:
    """Seconds of each threshold and classifier attack."""
    seconds = {}
    for name in (*THRESHOLD, *CLASSIFIERS):
        start = time.perf_counter()
        ATTACKS[name]().predict(signals)
        seconds[name] = time.perf_counter() - start
    return seconds


def compare(title: str, signals: Signals, attacks: list[str], epochs: int, repeats: int) -> None:
    """Print one line an attack."""
    member = signals.is_member(0)
    learned, majority = sum(len(rows) for _, rows, _ in shadow_rows(signals, 0)), max(member.mean(), 1 - member.mean())
    print(f"\n{title}: {learned} shadow rows, {len(member)} victim rows, majority {majority:.1%}")
    ATTACKS["nn"]().predict(signals)  # what PyTorch loads when first used is not counted
    seconds = [eight_attacks(signals) for _ in range(repeats)]
    fastest = min(seconds, key=lambda s: sum(s.values()))
    each = ", ".join(f"{name} {taken:.1f}" for name, taken in fastest.items())
    print(f"threshold and classifier attacks together: {sum(fastest.values()):.1f} s ({each})")
    print(f"{'':10s}{'balanced':>20s}{'plain':>20s}{'AUC':>20s}{'seconds':>22s}")
    print(f"{'':10s}" + 3 * f"{'recipe':>10s}{'ours':>10s}" + f"{'recipe':>12s}{'ours':>10s}")
    share = members_share(signals)
    for name in attacks:
        ours = measure(signals, lambda n=name: ATTACKS[n]().score(signals, 0, seed=0), prior=0.5, repeats=repeats)
        recipe = measure(signals, lambda n=name: by_published_recipe(n, signals, epochs), prior=share, repeats=1)
        pairs = ((recipe.balanced, ours.balanced), (recipe.plain, ours.plain), (recipe.auc, ours.auc))
        figures = "".join(f"{100 * a:10.2f}{100 * b:10.2f}" for a, b in pairs)
        print(f"{name:10s}{figures}{recipe.seconds:12.1f}{ours.seconds:10.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", nargs="+", choices=CLASSIFIERS, default=list(CLASSIFIERS))
    parser.add_argument("--models", nargs="+", choices=("dense", "undefended"), default=["undefended"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=100, help="of the published recipe")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {given.threads} thread(s), {given.epochs} epochs of the published recipe")
    for title, signals in signals_of_studies(given.models, given.seeds):
        compare(title, signals, given.attacks, given.epochs, given.repeats)


if __name__ == "__main__":
    main()
