"""Preprocessing of each model of an ensemble, fitted on its own train records."""

from dataclasses import replace

import torch

from wemem.data.dataset import Dataset
from wemem.data.preprocessing import Preprocessing
from wemem.data.split import Role, Split
from wemem.errors import InputError
from wemem.models.table import FITTED, PREPROCESS, table_input
from wemem.training.ensemble import Ensemble


def with_preprocessing(ensemble: Ensemble, data: Dataset, split: Split) -> Ensemble:
    """Models whose preprocessing is fitted; those that have one already keep it.

    Fine-tuning therefore goes on with the preprocessing that a model was trained with.

    Args:
        ensemble: the K models.
        data: the data set; without the columns of a table, nothing is done.
        split: the roles of the records, of which only the train records of a model are used.

    Raises:
        InputError: models that were not built for a table.
    """
    if data.table is None:
        return ensemble
    if table_input(ensemble.template) is None:
        raise InputError(
            f"expected models for the columns of {data.name!r}, got one without preprocessing; build it by "
            "model_for(model, data)"
        )
    buffers = {name: tensor.clone() for name, tensor in ensemble.buffers.items()}
    for k in range(len(ensemble)):
        if int(buffers[f"{PREPROCESS}.records"][k]) == 0:
            fitted = Preprocessing.fit(data.table, data.features[split.records(k, Role.TRAIN)])
            for name in FITTED:
                tensor = buffers[f"{PREPROCESS}.{name}"]
                tensor[k] = torch.from_numpy(getattr(fitted, name)).to(tensor)
            buffers[f"{PREPROCESS}.records"][k] = fitted.records
    return replace(ensemble, buffers=buffers)
