"""My own training loop
====================

The defense comes as ordinary PyTorch objects: a loader that shows the records of the epoch, a loss, and masks that
hold in the optimizer.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wemem

x, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(x[:300] / 16, dtype=torch.float32), torch.tensor(y[:300]))
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
loader = DataLoader(data, batch_size=32, shuffle=True)

# %%
# Memorization scores decide which records are shown when. They are drawn here; ``wemem.memorization_scores`` measures
# them with models that your loop trains.
scores = np.random.default_rng(0).random(len(data))
engine = wemem.PruningEngine("swmr", sparsity=0.6, rounds=4)
model, optimizer, loader = engine.prepare(model, optimizer, loader, scores=scores)
shown, sparsities = [], []
for current in engine.rounds():
    sparsities.append(current.sparsity)
    for _ in engine.epochs(5):
        count = 0
        for inputs, targets in loader:
            engine.loss(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            count += len(targets)
        shown.append(count)

# %%
# Under the sliding window an epoch shows a part of the records.
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(shown, marker=".")
axes.axhline(len(data), linestyle="--", color="grey")
axes.annotate("all records", (0, len(data)), textcoords="offset points", xytext=(0, -12))
axes.set(xlabel="epoch", ylabel="records shown", ylim=(0, None))
print("sparsity by round:", ", ".join(f"{100 * one:.0f} %" for one in sparsities))
