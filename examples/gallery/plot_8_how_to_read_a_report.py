"""How to read a report
====================

A report says what an attack finds, how sure that is, and what chance alone would give.
"""

import wemem

few = {
    "data": {"source": "digits", "records": 600},
    "split": {"shadows": 1, "references": 8, "train": 0.3},
    "training": {"epochs": 10, "batch_size": 16},
    "finetune": {"epochs": 3, "batch_size": 16},
    "pruning": {"rounds": 2},
    "model": {"kind": "fc", "hidden": [64]},
}
result = wemem.compare(few, defenses=["undefended"], attacks="quick", progress=False)

# %%
# **First the strongest attack and its interval.** A defense is as good as the attack that it resists least. The
# interval is wide where few records were audited. An interval that reaches the level of chance proves no leak, and no
# safety either.
print(result)

# %%
# **Then the ROC curve**, on logarithmic axes. Two models with one AUC can differ where it matters: at a false positive
# rate of 1 %, an attack accuses few of those who were not trained on.
result.figure("roc")

# %%
# **Then the arms side by side.** ``unpruned`` was fine-tuned as often without pruning, so its distance from
# ``undefended`` is what pruning adds.
result.figure("plane-balanced_accuracy")
