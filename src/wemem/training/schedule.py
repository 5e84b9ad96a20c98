"""The learning rate over the course of a training, and the average of the weights that it visits.

``one_cycle`` raises the learning rate from 0 to its peak and lowers it to 0 again, both linearly
(Smith, Topin, "Super-Convergence", 2019; the peak is at a fifth, as in the fast public recipes for
CIFAR-10). With ``t`` in [0, 1] the share of the training that is done::

    rate(t) = peak * min(t / RISE, (1 - t) / (1 - RISE))

The average forgets exponentially, over a share ``h`` of the training. A step that is a share ``s``
of the training changes it to::

    average = exp(-s / h) * average + (1 - exp(-s / h)) * weights

so that the weights of the moment ``t`` have a part that is proportional to ``exp(-(1 - t) / h)`` in
the result, whatever the size of the batches. Time is counted in planned steps: models of one plan
share it, and an epoch on few records is as long as any other.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

Schedule = Literal["constant", "one_cycle"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)

#: The share of the training after which the learning rate of ``one_cycle`` is at its peak.
RISE = 0.2


def rate_at(schedule: Schedule, done: float) -> float:
    """Compute the learning rate as a share of its peak.

    Args:
        schedule: the schedule of the learning rate.
        done: the share of the training that is done, in [0, 1].

    >>> rate_at("one_cycle", 0.1), rate_at("one_cycle", 0.2), rate_at("one_cycle", 0.6)
    (0.5, 1.0, 0.5)
    """
    return 1.0 if schedule == "constant" else min(done / RISE, (1 - done) / (1 - RISE))


def remembered(share: float, horizon: float) -> float:
    """Compute the factor by which a step multiplies the average of the weights.

    Args:
        share: the share of the training that the step is.
        horizon: the share of the training over which the average forgets.
    """
    return math.exp(-share / horizon)


class WeightAverage:
    """The average of the weights of models that train together, and of their floating-point
    buffers; other buffers are copied.

    Args:
        parameters: the stacked parameters, with which the average begins.
        buffers: the stacked buffers.
    """

    def __init__(self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        self.parameters = {name: tensor.clone() for name, tensor in parameters.items()}
        self.buffers = {name: tensor.clone() for name, tensor in buffers.items()}

    def update(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], rows: Tensor | None, decay: float
    ) -> None:
        """Add the weights after a step.

        Args:
            parameters: the stacked parameters.
            buffers: the stacked buffers.
            rows: the places of the models that took the step; None for all models.
            decay: the factor of the average so far.
        """
        for averages, current in ((self.parameters, parameters), (self.buffers, buffers)):
            for name, tensor in current.items():
                average, own = (averages[name], tensor) if rows is None else (averages[name][rows], tensor[rows])
                mixed = torch.lerp(own, average, decay) if tensor.is_floating_point() else own
                averages[name][slice(None) if rows is None else rows] = mixed
