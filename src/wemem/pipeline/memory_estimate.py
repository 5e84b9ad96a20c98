"""An estimate of the memory that a study's models and their answers need, made before any model is
built.
"""

import torch

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.files.memory_limit import machine_memory
from wemem.models import CustomModel, Model
from wemem.models.table import model_for
from wemem.pipeline.cost import CHUNK

#: Copies of one model's weights while it is trained: itself, its gradient and two optimizer states.
COPIES_IN_TRAINING = 4
BYTES = 4  # of a float32


def count_weights(model: Model, data: Dataset) -> int:
    """The number of weights of a model of this package, for the records of a data set; nothing is
    allocated.

    Raises:
        InputError: a number of weights beyond 64 bits.
    """
    try:
        with torch.device("meta"):
            module = model_for(model, data).build(data.input_shape, data.classes)
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        raise InputError(f"expected a model that fits into memory, got {model!r}; make its layers smaller") from error
    return sum(parameter.numel() for parameter in module.parameters())


def require_memory(config: StudyConfig, data: Dataset) -> None:
    """Refuse a study whose models, or their answers on all records, cannot fit into memory at once.

    The weights of a user's own model are not known before it is built, and count nothing here.

    Raises:
        InputError: more memory is needed than the machine has.
    """
    references = max(config.references_of(label) for label in config.labels) if config.uses("shared") else 0
    disjoint = 1 + config.split.shadows
    together = max(disjoint, min(CHUNK, max(references, config.scores.models)))
    weights = 0 if isinstance(config.model, CustomModel) else count_weights(config.model, data)
    estimates = {
        f"{together:,} models of {weights:,} weights and their checkpoints": (
            BYTES * weights * (2 * together + COPIES_IN_TRAINING)
        ),
        f"answers of {max(disjoint, 1 + references):,} models on {len(data):,} records and {data.classes:,} classes": (
            2 * BYTES * max(disjoint, 1 + references) * len(data) * data.classes
        ),
    }
    memory = machine_memory()
    for what, need in estimates.items():
        if need > memory:
            raise InputError(
                f"expected a study that fits into {memory / 2**30:.3g} GiB of memory, got about {need / 2**30:.3g} GiB "
                f"for {what}; make layers smaller, or lower split.shadows, split.references or data.records"
            )
