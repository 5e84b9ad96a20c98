"""A folder as a study leaves it, small and with planted scores, for those who test what is made of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from results_example import ARMS, make_results, make_run

ATTACKS = ("confidence", "lira")
MEMBERS, NONMEMBERS = 120, 200


def make_folder(
    folder: Path,
    seeds: tuple[int, ...] = (0, 1),
    attacks: tuple[str, ...] = ATTACKS,
    arms: tuple[tuple[str, float, float, float], ...] = ARMS[:3],
) -> dict[str, Any]:
    """Write ``results.json`` and ``per_sample.parquet``; returns the results."""
    results = make_results(seeds, attacks, NONMEMBERS)
    results["runs"] = [make_run(*arm, seed, attacks, NONMEMBERS) for seed in seeds for arm in arms]
    for run in results["runs"]:
        for audit in run["attacks"].values():
            audit["members"] = MEMBERS
    write(folder, results)
    return results


def write(folder: Path, results: dict[str, Any]) -> None:
    """Results, and scores for their runs; sparsities in the table are those asked for, as a study writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = results["runs"]
    results["planned"] = {
        "runs": dict(Counter(run["label"] for run in runs if run["seed"] == runs[0]["seed"])),
        "seeds": list(dict.fromkeys(run["seed"] for run in runs)),
        "attacks": {name: name for run in runs for name in run["attacks"]},
    }
    (folder / "results.json").write_text(json.dumps(results))
    tables = [samples(run) for run in results["runs"] if run["attacks"]]
    pq.write_table(pa.concat_tables(tables, promote_options="default"), folder / "per_sample.parquet")


def samples(run: dict[str, Any]) -> pa.Table:
    """Members score higher, the more so the more they are memorized; scores are coarse, so that many are tied."""
    rng = np.random.default_rng([run["seed"], len(run["label"]), int(100 * run["sparsity"])])
    n = MEMBERS + NONMEMBERS
    member = np.arange(n) < MEMBERS
    memorization = np.where(member, np.round(rng.random(n), 1), np.nan)
    columns: dict[str, Any] = {
        "label": [run["label"]] * n,
        "seed": [run["seed"]] * n,
        "sparsity": [round(run["sparsity"], 1)] * n,
        "record": np.arange(n),
        "class": rng.integers(0, 3, n),
        "member": member,
        "memorization": memorization,
    }
    for name in run["attacks"]:
        columns[name] = np.round(rng.normal(size=n) + np.where(member, 3 * np.nan_to_num(memorization), 0), 1)
    return pa.table(columns)
