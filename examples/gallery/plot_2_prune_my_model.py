"""Prune my model
==============

A trained module is pruned in rounds under a defense. What comes back is an ordinary module, with a certificate beside
its weights.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import wemem

x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)
members = np.arange(300)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(60):
    nn.functional.cross_entropy(model(torch.from_numpy(x[members])), torch.from_numpy(y[members])).backward()
    optimizer.step()
    optimizer.zero_grad()

few = {"finetune": {"epochs": 4, "batch_size": 32}, "pruning": {"rounds": 4}, "scores": {"models": 12},
       "training": {"epochs": 6, "batch_size": 32}}  # fmt: skip
pruned = wemem.prune(model, (x, y), members, defense="swmr", settings=few, progress=False)
print(pruned)

# %%
# Rounds remove the smallest weights little by little. The result is a module like any other.
rounds = pruned.to_dict()["rounds"]
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot([one["round"] for one in rounds], [100 * one["sparsity"] for one in rounds], marker="o")
axes.set(xlabel="round", ylabel="weights removed (%)", xticks=[one["round"] for one in rounds])
pruned.model()
