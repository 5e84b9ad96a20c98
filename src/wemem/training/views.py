"""Lookup of records and of their views (:mod:`wemem.data.views`) by number, on one device."""

import numpy as np
import torch
from jaxtyping import Float32, Int64, Real
from torch import Tensor

from wemem.data.views import DrawnViews


def only_answered(
    drawn: DrawnViews, targets: Float32[np.ndarray, "K M C"]
) -> tuple[DrawnViews, Float32[np.ndarray, "K M C"]]:
    """Show the record itself, with its target, in place of each view for which no teacher answers.

    Args:
        drawn: the views of K models.
        targets: log-probabilities of every record and view; NaN for views without an answer.
    """
    by_input = targets.reshape(len(targets), 1 + drawn.donors.shape[1], -1, targets.shape[-1])
    answered = ~np.isnan(by_input[..., 0])
    filled = np.where(answered[..., None], by_input, by_input[:, :1])
    return drawn.keep(answered[:, 1:]), filled.reshape(targets.shape)


class ViewedRecords:
    """The records of a data set, and the views that some models have of them.

    Args:
        features: the features of the records, shape ``(N, ...)``; views are computed on their
            device at each lookup.
        drawn: the views of each model; None without views.
    """

    def __init__(self, features: Real[Tensor, "N ..."], drawn: DrawnViews | None) -> None:
        self.features, self.drawn = features, drawn
        if drawn is not None:
            arrays = (drawn.donors, drawn.pattern, drawn.patterns)
            self.donors, self.pattern, self.patterns = (torch.from_numpy(a).to(features.device) for a in arrays)

    def numbered(self, models: Int64[Tensor, " S"], numbers: Int64[Tensor, "S B"]) -> Real[Tensor, "S B ..."]:
        """Look up records or views by number.

        Args:
            models: the places of the models to which the views belong, on the device of the features.
            numbers: the numbers of records and views, on the device of the features.
        """
        if self.drawn is None:
            return rows_of(self.features, numbers)
        record = self.of(numbers)
        x, view = rows_of(self.features, record), numbers // len(self.features) - 1
        which, who = view.clamp(min=0), models[:, None]
        taken = self.patterns[self.pattern[which, record]] & (view >= 0).view(*view.shape, *(1,) * (x.ndim - 2))
        return torch.where(taken, rows_of(self.features, self.donors[who, which, record]), x)

    def of(self, numbers: Int64[Tensor, "S B"]) -> Int64[Tensor, "S B"]:
        """Map numbers of records and views to records; a view maps to the record from which it is
        computed.
        """
        return numbers if self.drawn is None else numbers % len(self.features)


def rows_of(features: Real[Tensor, "N ..."], numbers: Int64[Tensor, "S B"]) -> Real[Tensor, "S B ..."]:
    """Compute ``features[numbers]``, several times faster on a CPU."""
    return features.index_select(0, numbers.flatten()).view(*numbers.shape, *features.shape[1:])
