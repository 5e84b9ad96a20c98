"""The behavior of a user's own architecture: its tensors, and its outputs on a few records."""

import hashlib

import numpy as np
import torch

from wemem.data.dataset import Dataset
from wemem.models import CustomModel, Model
from wemem.models.outputs import require_logits
from wemem.models.table import model_for
from wemem.training import Ensemble

#: Number of records that the model is applied to; BatchNorm needs two.
PROBE = 2


def behavior_fingerprint(model: Model, data: Dataset) -> str | None:
    """SHA-256 of a user's model as it is built from one seed: tensors by name, outputs, and what a
    batch changes.

    Sources tell what was edited; this tells what they cannot: a file that a factory reads, or
    another version of a package that it calls.

    Args:
        model: the architecture.
        data: its first records are the probe.

    Returns:
        None for an architecture of this package, whose code counts in every key already.
    """
    if not isinstance(model, CustomModel):
        return None
    module = Ensemble.initialize(model_for(model, data), data.input_shape, data.classes, [0]).module(0)
    records = torch.from_numpy(data.features[:PROBE])
    require_logits(module, records, data.classes)
    digest = hashlib.sha256()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for training in (False, True):
            torch.manual_seed(0)
            outputs = module.train(training)(records)
            for name, tensor in sorted({**module.state_dict(), "outputs": outputs}.items()):
                values = np.ascontiguousarray(tensor.numpy())
                digest.update(f"{name}\0{values.dtype}\0{values.shape}\0".encode() + values.tobytes())
    return digest.hexdigest()
