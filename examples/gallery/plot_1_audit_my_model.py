"""Audit my model in ten lines
===========================

A trained network, its records, and the numbers of the records that it was trained on are enough.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import wemem

x, y = load_digits(return_X_y=True)
features, labels = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
members = torch.arange(300)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(60):
    nn.functional.cross_entropy(model(features[members]), labels[members]).backward()
    optimizer.step()
    optimizer.zero_grad()

# %%
# WeMem trains the adversary's models itself, with the settings of a study. The real recipe of your model belongs here.
few = {"split": {"shadows": 2, "references": 8}, "training": {"epochs": 10, "batch_size": 32}}
result = wemem.audit(model, (features.numpy(), y), members.numpy(), settings=few, attacks="quick", progress=False)
print(result)

# %%
# The ROC curve on logarithmic axes: what matters is the left, where an attack is rarely wrong.
result.figure("roc")
