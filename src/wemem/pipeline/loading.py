"""A study's data, in the form that its model takes, and warnings about them."""

from dataclasses import replace

import numpy as np
import torch

from wemem.config.study import StudyConfig
from wemem.data.concerns import concerns
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.exporting.trained_form import trained_form
from wemem.models import CustomModel, EntityEmbedding, Model
from wemem.models.outputs import require_logits
from wemem.models.table import model_for
from wemem.models.tokens import TokenModel
from wemem.pipeline.progress import Progress


def load_data(config: StudyConfig, progress: Progress) -> Dataset:
    """Load the data of a study, and warn of properties that would spoil training or audit.

    Raises:
        InputError: data that cannot be used.
    """
    data = study_data(config)
    for concern in concerns(data):
        progress.warn(f"data: {concern}")
    return data


def study_data(config: StudyConfig) -> Dataset:
    """Load the data of a study in the form that its model takes (:func:`suited_to`), and that of a
    given model's table (:mod:`~wemem.exporting.trained_form`).

    Raises:
        InputError: data that cannot be used.
    """
    data = suited_to(config.model, config.data.load())
    return data if config.victim is None else trained_form(config.victim.weights, data).applied(data)


def suited_to(model: Model, data: Dataset) -> Dataset:
    """A data set whose whole-number features stay so if the model takes them, else become float32.

    A model of tokens takes whole numbers alone, and one with embeddings of categories takes any
    numbers. All other models of this package compute with floating-point numbers. A user's own is
    tried on two records, so that one with an embedding gets token ids and one with a linear layer
    gets numbers. A table stays as it is, for its preprocessing is a part of the model.

    Raises:
        InputError: features that a model of tokens or of categories cannot look up.
    """
    if data.table is not None:
        return data
    if isinstance(model, TokenModel | EntityEmbedding):
        model.require_features(data.features)
        whole = isinstance(model, TokenModel)
        return replace(data, features=data.features.astype(np.int64)) if whole else data
    if data.features.dtype.kind == "f":
        return data
    return data if isinstance(model, CustomModel) and _takes(model, data) else data.as_floats()


def _takes(model: CustomModel, data: Dataset) -> bool:
    with torch.random.fork_rng(devices=[]):
        module = model_for(model, data).build(data.input_shape, data.classes).eval()
    try:
        require_logits(module, torch.from_numpy(data.features[:2]), data.classes)
    except InputError:
        return False
    return True
