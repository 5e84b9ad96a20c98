"""A full grid of window width × stride × order × risky share × decay on Location, under a cheap audit.

    python benchmarks/auto_grid.py --store DIR [--seed 0] [--out benchmarks/auto_grid_location.csv]

What `kind = "auto"` is measured against. Every setting prunes the victim and five shadows once; a row has the victim's
accuracy and confidence AUC, and the means over all six models, each on its own records. Undefended pruning is the
first row. WEMEM_DATA names the data; what is in the store is not computed again.
"""

import argparse
import csv
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from scipy.special import softmax

from wemem.config.parse import load_study
from wemem.data.split import Role
from wemem.defenses import Undefended, make_defense
from wemem.metrics.rates import auc
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store

STUDY = Path(__file__).parents[1] / "studies" / "location.toml"
OUT = Path(__file__).with_name("auto_grid_location.csv")
GRID = {
    "width": (0.1, 0.25, 0.5),
    "stride": (0.0125, 0.0375),
    "order": ("low_first", "high_first"),
    "top": (0.1, 0.27, 0.5),
    "decay": (0.03, 0.1),
}


def settings():
    return [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]


def parties_of(seed, store, budget=None):
    config = load_study(STUDY, [f"seeds=[{seed}]"])
    if budget is not None:
        config = replace(config, defenses={}, grids={}, budgets={"auto": budget})
    data = config.data.load()
    return Parties.of(Pipeline.open(config, data, Store(store), Silent()), seed)


def measured(parties, defense):
    """Accuracy on its own non-members and confidence AUC of every model; the seconds of pruning."""
    config, data, split = parties.config, parties.data, parties.split
    pruning = config.pruning.to(config.pruning.sparsities[0], config.finetune)
    stage = parties.pruned_with_shadows("grid", defense, pruning)[-1].result()
    accuracies, aucs = [], []
    for k in range(split.num_models):
        rows = split.audited(k)
        member = split.roles[k, rows] == Role.TRAIN
        logits = stage.ensemble.select([k]).logits(data.features[rows])[0]
        confidence = softmax(logits.astype(np.float64), axis=1)[np.arange(len(rows)), data.labels[rows]]
        accuracies.append((logits.argmax(1) == data.labels[rows])[~member].mean())
        aucs.append(auc(confidence[member], confidence[~member]))
    return {
        "accuracy": round(float(accuracies[0]), 4),
        "auc": round(aucs[0], 4),
        "mean_accuracy": round(float(np.mean(accuracies)), 4),
        "mean_auc": round(float(np.mean(aucs)), 4),
        "seconds": round(stage.seconds, 1),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    parties = parties_of(arguments.seed, arguments.store)
    blank = dict.fromkeys(GRID, "")
    with arguments.out.open("w", newline="") as file:
        rows = None
        for own in [None, *settings()]:
            defense = Undefended() if own is None else make_defense("swmr", own)
            row = {"defense": defense.name, **(own or blank), **measured(parties, defense)}
            rows = rows or csv.DictWriter(file, row, lineterminator="\n")
            if file.tell() == 0:
                rows.writeheader()
            rows.writerow(row)
            file.flush()
            print(row, flush=True)


if __name__ == "__main__":
    main()
