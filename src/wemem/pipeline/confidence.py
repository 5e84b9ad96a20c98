"""How far a model's confidence alone tells its training records from others: a leak that needs no shadow models."""

import numpy as np
from jaxtyping import Float64, Int64

from wemem.data.dataset import Dataset
from wemem.memorization import truth_values
from wemem.metrics.rates import auc
from wemem.queries import Queried

Records = Int64[np.ndarray, " _"]


def confidence_auc(model: Queried, data: Dataset, train: Records, others: Records) -> float | None:
    """AUC of the true class's probability, training records against others; None if there are no others.

    Args:
        model: one model that answers queries.
        data: the records and their labels.
        train: those it was trained on.
        others: those it was not.
    """
    if not len(others):
        return None
    return auc(*(_confidence(model, data, records) for records in (train, others)))


def _confidence(model: Queried, data: Dataset, records: Records) -> Float64[np.ndarray, " n"]:
    values = truth_values(model.logits(data.features[records]), data.labels[records], "probability")
    return np.asarray(values[0])
