"""Leakage through the confidence alone, which an adversary without shadow models measures too."""

import numpy as np
from jaxtyping import Float64, Int64

from wemem.data.dataset import Dataset
from wemem.memorization import truth_values
from wemem.metrics.rates import auc
from wemem.queries import Queried

Records = Int64[np.ndarray, " _"]


def confidence_auc(model: Queried, data: Dataset, train: Records, others: Records) -> float | None:
    """AUC of the true class's probability on training records against others.

    Args:
        model: a model that answers queries.
        data: the records and their labels.
        train: numbers of the records that it was trained on.
        others: numbers of records that it was not trained on.

    Returns:
        None if there are no others.
    """
    if not len(others):
        return None
    return auc(*(_confidence(model, data, records) for records in (train, others)))


def _confidence(model: Queried, data: Dataset, records: Records) -> Float64[np.ndarray, " n"]:
    values = truth_values(model.logits(data.features[records]), data.labels[records], "probability")
    return np.asarray(values[0])
