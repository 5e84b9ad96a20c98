"""A gate in CI
============

A gate holds results against limits. It recomputes every rate from the records, compares hashes, and does not pass a
measurement that may have missed a leak.
"""

import matplotlib.pyplot as plt

import wemem

few = {
    "data": {"source": "digits"},
    "split": {"shadows": 1},
    "training": {"epochs": 3, "batch_size": 32},
    "finetune": {"epochs": 2, "batch_size": 32},
    "pruning": {"rounds": 2},
    "model": {"kind": "fc", "hidden": [32]},
    "controls": [],
}
result = wemem.compare(few, defenses=["undefended"], attacks="threshold", progress=False)
gate = wemem.gate(result, max_balanced_accuracy=0.6, min_accuracy=0.5)
print(gate)
print("may ship" if gate else "do not ship")

# %%
# LiRA and RMIA were not run, so the gate names ``missing-attacks`` and does not pass, whatever the rates are. The end
# of the interval decides, not its middle.
worst = result.to_dict()["runs"][-1]["worst"]["balanced_accuracy"]
figure, axes = plt.subplots(figsize=(5, 1.6), layout="constrained")
axes.hlines(0, *worst["ci"], linewidth=3)
axes.plot(worst["value"], 0, marker="o")
axes.axvline(0.6, linestyle="--", color="black")
axes.annotate("limit", (0.6, 0), textcoords="offset points", xytext=(4, 12))
axes.set(xlabel="balanced accuracy of the strongest attack", yticks=[], xlim=(0.45, 0.65))
