"""How well the cheap look of a search ranks settings: its rank correlation with the full adaptive audit.

    python benchmarks/auto_proxy.py --store DIR [--seed 0] [--every 3] [--full 8]

Takes every third setting of the grid in auto_grid_location.csv, whose audit is the victim and five shadows pruned in
all rounds, each attacked by its confidence. The cheap look is the search's own: four models of the defender's, three
rounds, the tune half. Of ``--full`` of the settings the defender's full audit (LiRA and RMIA in turn) is run too.
Spearman's rho, with a 95 % bootstrap interval over settings. WEMEM_DATA names the data.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from auto_grid import GRID, OUT, parties_of
from scipy.stats import spearmanr

from wemem.config.budget import Budget
from wemem.defenses import Undefended, make_defense
from wemem.randomness import generator
from wemem.tuning.panel import REFERENCE_ATTACKS, measure, panel_of
from wemem.tuning.search import QUICK_MODELS, quick


def correlation(one, other):
    """Spearman's rho and its interval."""
    a, b = np.array(one), np.array(other)
    rng = generator(0, "bootstrap", "proxy")
    draws = rng.integers(0, len(a), (2000, len(a)))
    rhos = [spearmanr(a[d], b[d]).statistic for d in draws if np.ptp(a[d]) > 0 and np.ptp(b[d]) > 0]
    low, high = np.quantile(rhos, (0.025, 0.975))
    return f"{spearmanr(a, b).statistic:.2f} [{low:.2f}, {high:.2f}], {len(a)} settings"


def settings_of(row):
    return {name: row[name] if name == "order" else float(row[name]) for name in GRID}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--full", type=int, default=8)
    arguments = parser.parse_args()
    budget = Budget()
    parties = parties_of(arguments.seed, arguments.store, budget)
    pruning = parties.config.pruning.to(parties.config.pruning.sparsities[0], parties.config.finetune)
    panel = panel_of(parties, parties.dense().result(), parties.tuning_records, "search", budget.models)

    def look(defense, how, models, attacks):
        return measure(
            parties.pipeline, panel, defense, how, title="look", models=models, attacks=attacks, fpr=budget.at_fpr,
            seed=parties.seed,
        )  # fmt: skip

    rows = list(csv.DictReader(OUT.open()))
    undefended = float(rows[0]["mean_accuracy"])
    chosen = rows[1 :: arguments.every]
    plain = look(Undefended(), quick(pruning), QUICK_MODELS, ())
    cheap = []
    for row in chosen:
        found = look(make_defense("swmr", settings_of(row)), quick(pruning), QUICK_MODELS, ())
        cheap.append((found.auc["confidence"].mean(), (plain.accuracy - found.accuracy).mean()))
        audited = float(row["mean_auc"]), undefended - float(row["mean_accuracy"])
        print(settings_of(row), "cheap", np.round(cheap[-1], 4), "audited", np.round(audited, 4), flush=True)
    print(
        "confidence AUC, cheap against audited:",
        correlation([c[0] for c in cheap], [float(r["mean_auc"]) for r in chosen]),
    )
    drops = [undefended - float(r["mean_accuracy"]) for r in chosen]
    print("accuracy drop, cheap against audited:", correlation([c[1] for c in cheap], drops), flush=True)
    few = np.linspace(0, len(chosen) - 1, min(arguments.full, len(chosen))).round().astype(int)
    full = [look(make_defense("swmr", settings_of(chosen[i])), pruning, len(panel), REFERENCE_ATTACKS) for i in few]
    for name in ("confidence", "lira", "rmia"):
        for what in ("auc", "tpr"):
            values = [getattr(found, what)[name].mean() for found in full]
            print(
                f"cheap AUC against {name} {what} in full:", correlation([cheap[i][0] for i in few], values), flush=True
            )


if __name__ == "__main__":
    main()
