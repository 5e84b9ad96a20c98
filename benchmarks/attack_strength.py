"""Strength of attacks by reference models, by their settings, on the same outputs.

    python benchmarks/attack_strength.py collect STUDY --defense LABEL --store DIR --out FILE.npz
    python benchmarks/attack_strength.py attack FILE.npz [--models 17 33] [--targets 6]

``collect`` trains the reference models of one arm of a study and writes the outputs that attacks
see. ``attack`` lets each attack attack some of the models in turn, with all others as references:
with the settings of its paper's first form (``old``), with those that are chosen on the other models
but without copies (``plain``), and as it is by default (``new``). It prints mean AUC and TPR at 1 %
FPR with their standard errors over targets. WEMEM_DATA names the data.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from wemem.api import read_study
from wemem.attacks import make_attack
from wemem.attacks.combined import PARTS
from wemem.metrics.rates import auc, true_positive_rate
from wemem.pipeline.loading import study_data
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.signals import UNKNOWN, Signals
from wemem.store.store import Store
from wemem.study.run import defended_and_attacked

WITHOUT_COPIES = {"augmented": False}
SETTINGS = {
    "lira, old": ("lira", {"variance": "global", "centre": "median", **WITHOUT_COPIES}),
    "lira, plain": ("lira", WITHOUT_COPIES),
    "lira, new": ("lira", {}),
    "rmia, old": ("rmia", {"temperature": 1.0, "copies": "none"}),
    "rmia, plain": ("rmia", {"copies": "none"}),
    "rmia, new": ("rmia", {}),
    "bavaria, plain": ("bavaria", WITHOUT_COPIES),
    "bavaria, new": ("bavaria", {}),
    "combined, new": ("combined", {"parts": PARTS}),
}


def collect(study, label, store, out):
    """Write the outputs of one arm's victim and reference models, and what they say of copies."""
    config = read_study(study, [f'defenses=["{label}"]', "controls=[]", 'attacks=["lira"]', "leave_one_out=false"])
    parties = Parties.of(Pipeline.open(config, study_data(config), Store(store), Silent()), config.seeds[0])
    (pruning,) = config.prunings
    signals = defended_and_attacked(parties, label, pruning).result().signals["shared"]
    np.savez(out, logits=signals.logits, labels=signals.labels, roles=signals.roles, **signals.extras)


def attack(file, models, targets):
    """Print a row for each attack and its settings."""
    arrays = np.load(file)
    extras = {"copies": arrays["copies"][:models]} if "copies" in arrays else {}
    labels, known = arrays["labels"], (arrays["logits"][:models], arrays["roles"][:models])
    signals = Signals(known[0], labels, known[1], np.arange(len(labels)), "shared", (UNKNOWN,) * models, extras)
    for name, (kind, settings) in SETTINGS.items():
        start, rates = time.process_time(), []
        for target in range(targets):
            score = make_attack(kind, settings).score(signals, target, seed=0)
            member = signals.is_member(target)
            rates.append((auc(score[member], score[~member]), true_positive_rate(score[member], score[~member], 0.01)))
        mean, error = 100 * np.mean(rates, axis=0), 100 * np.std(rates, axis=0, ddof=1) / np.sqrt(targets)
        seconds = (time.process_time() - start) / targets
        print(
            f"| {name} | {models - 1} | {mean[0]:.1f} ± {error[0]:.1f} | {mean[1]:.1f} ± {error[1]:.1f} "
            f"| {seconds:.2f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("collect")
    first.add_argument("study", type=Path)
    first.add_argument("--defense", default="undefended")
    first.add_argument("--store", type=Path, required=True)
    first.add_argument("--out", type=Path, required=True)
    second = commands.add_parser("attack")
    second.add_argument("file", type=Path)
    second.add_argument("--models", type=int, nargs="+", default=[17])
    second.add_argument("--targets", type=int, default=6)
    arguments = parser.parse_args()
    if arguments.command == "collect":
        collect(arguments.study, arguments.defense, arguments.store, arguments.out)
        return
    print("| attack | reference models | AUC | TPR at 1 % FPR | processor seconds a target |\n|---|---|---|---|---|")
    for models in arguments.models:
        attack(arguments.file, models, arguments.targets)


if __name__ == "__main__":
    main()
