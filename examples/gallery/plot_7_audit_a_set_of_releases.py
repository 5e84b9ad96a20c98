"""Audit a set of releases
=======================

Whoever holds the weights of all releases is attacked by none of them alone. Each release is audited here by outputs of
the same reference models, and the results stand side by side.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

import wemem

few = {
    "data": {"source": "digits"},
    "split": {"shadows": 1, "references": 8, "train": 0.3},
    "training": {"epochs": 6, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 16},
    "pruning": {"rounds": 2, "sparsity": [0.3, 0.6, 0.9]},
    "model": {"kind": "fc", "hidden": [64]},
    "controls": [],
}

# %%
# One study with three sparsities prunes and attacks one release for each, of one trained model.
with TemporaryDirectory() as folder:
    result = wemem.compare(few, defenses=["undefended"], attacks="quick", out=Path(folder) / "releases", progress=False)
print(result)

# %%
# The attack ``dense_and_pruned`` reads the model before pruning and the pruned one together, as an adversary does who
# holds both; ``pruning_trajectory`` reads every round.
runs = [run for run in result.to_dict()["runs"] if run["defense"] != "dense"]
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot([100 * run["sparsity"] for run in runs], [run["attacks"]["rmia"]["auc"] for run in runs], marker="o")
axes.axhline(0.5, linestyle="--", color="grey")
axes.set(xlabel="sparsity of the release (%)", ylabel="AUC of RMIA")
