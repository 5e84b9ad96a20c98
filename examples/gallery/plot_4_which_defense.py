"""Which defense
=============

Every defense prunes the same model, and every result is attacked by an adversary who knows the defense.
"""

import wemem

few = {
    "data": {"source": "digits", "records": 700},
    "split": {"shadows": 2, "references": 8, "train": 0.4},
    "training": {"epochs": 8, "batch_size": 16},
    "finetune": {"epochs": 3, "batch_size": 16},
    "pruning": {"rounds": 3},
    "model": {"kind": "fc", "hidden": [64]},
}
result = wemem.compare(
    few, defenses=["undefended", "label_smoothing", "early_stopping"], attacks="quick", progress=False
)
print(result)

# %%
# Each point is one arm: upwards leaks more, to the right is more accurate. With one seed and few records the intervals
# overlap, and the summary says so.
result.figure("plane-balanced_accuracy")
