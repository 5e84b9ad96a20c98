"""Linear classifiers on principal components, several at once: models that memorize little.

A network memorizes its training records, so that its predictions for *other* records still depend on
the label of each. A multinomial logistic regression on a few principal components has too few
parameters for that. With one or two thousand records it is about as accurate.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Real
from torch import Tensor

#: Full-batch steps of Adam, and its learning rate at the start, which falls to 0 along a cosine.
STEPS, RATE = 200, 0.2
#: Inverse strength of the penalty on squared weights, of a loss that is summed over records.
PENALTY = 3.0


@dataclass(frozen=True, eq=False)
class Components:
    """Leading principal components of some records.

    Args:
        mean: the mean record.
        axes: the components, orthonormal columns.
    """

    mean: Float64[np.ndarray, " F"]
    axes: Float64[np.ndarray, "F P"]

    @classmethod
    def of(cls, features: Real[np.ndarray, "n ..."], count: int) -> "Components":
        """Compute the leading components of records, as many as there are directions at most."""
        x = _rows(features)
        mean = x.mean(axis=0)
        _, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
        return cls(mean, vectors[:, ::-1][:, :count])

    def project(self, features: Real[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n P"]:
        """Coordinates of records along the components."""
        return np.asarray((_rows(features) - self.mean) @ self.axes)

    def first(self, count: int) -> "Components":
        """The leading ones of these components."""
        return Components(self.mean, self.axes[:, :count])


@dataclass(frozen=True, eq=False)
class LinearModels:
    """Multinomial logistic regressions on the same components.

    Args:
        components: the features of the models.
        weight: one matrix for each of T models.
        bias: one bias for each model and class.
    """

    components: Components
    weight: Float[Tensor, "T P C"]
    bias: Float[Tensor, "T 1 C"]

    def probabilities(self, features: Real[np.ndarray, "n ..."]) -> Float64[np.ndarray, "T n C"]:
        """Probabilities of every class by every model."""
        z = torch.from_numpy(self.components.project(features).astype(np.float32))
        return np.asarray((z @ self.weight + self.bias).softmax(-1).double().numpy())


def fit_linear(
    components: Components, features: Real[np.ndarray, "n ..."], labels: Int64[np.ndarray, " n"],
    seen: Bool[np.ndarray, "T n"], classes: int,
) -> LinearModels:  # fmt: skip
    """Train one logistic regression on each of several sets of records, on the CPU.

    Args:
        components: the features of the models.
        features: the n records.
        labels: the class of each record.
        seen: the records that each of the T models trains on.
        classes: C, the number of classes.
    """
    z = torch.from_numpy(components.project(features).astype(np.float32))
    target = torch.from_numpy(labels)[None, :, None].expand(len(seen), -1, 1)
    counted = torch.from_numpy(seen.astype(np.float32))
    weight = torch.zeros(len(seen), z.shape[1], classes, requires_grad=True)
    bias = torch.zeros(len(seen), 1, classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        log_p = (z @ weight + bias).log_softmax(-1).gather(-1, target)[..., 0]
        loss = -(log_p * counted).sum() + weight.square().sum() / (2 * PENALTY)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return LinearModels(components, weight.detach(), bias.detach())


def _rows(features: Real[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n F"]:
    return np.asarray(features.reshape(len(features), -1), np.float64)
