"""Why does it leak
================

A diagnosis trains controlled arms that differ in one thing each: how often records are shown again, and which records
are shown. It says which of the two drives the leak, how sure that is, and which defense follows.
"""

import wemem

few = {
    "data": {"source": "digits", "records": 500},
    "split": {"shadows": 2, "references": 4, "train": 0.4},
    "training": {"epochs": 6, "batch_size": 16},
    "finetune": {"epochs": 2, "batch_size": 16},
    "pruning": {"rounds": 3},
    "scores": {"models": 12},
    "model": {"kind": "fc", "hidden": [32]},
}
diagnosis = wemem.diagnose(few, models=8, progress=False)
print(diagnosis)

# %%
# The figures of a diagnosis have names.
diagnosis.figure(diagnosis.figures[0])
