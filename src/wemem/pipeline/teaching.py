"""What teachers say of records, and of views of them, that they did not train on."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32
from scipy.special import softmax

from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.teachers import Teachers
from wemem.training import Ensemble
from wemem.training.views import ViewedRecords


def teacher_log_probabilities(
    chunks: Sequence[Ensemble], parts: Split, split: Split, data: Dataset, asked: Teachers, device: torch.device
) -> Float32[np.ndarray, "K M C"]:
    """Log of the mean probabilities of each member's teachers, record by record of those that they were left without.

    Args:
        chunks: the teachers of all K members, ``asked.count`` each, in one or several ensembles.
        parts: who of them trained on what (:func:`~wemem.data.teachers.held_out`).
        split: roles of the members.
        data: N records.
        asked: what the teachers are asked about: M is N, and as many more for each view.
        device: where they compute.

    Returns:
        By member and number of a record or view; 0 where no teacher was asked.
    """
    teachers = [(ensemble, place) for ensemble in chunks for place in range(len(ensemble))]
    train = [split.records(k, Role.TRAIN) for k in range(split.num_models)]
    drawn = None if asked.views is None else asked.views.draw(train, len(data), data.input_shape)
    shown = ViewedRecords(torch.from_numpy(data.features), drawn)
    said = np.zeros((split.num_models, asked.passes_per_epoch * len(data), data.classes), np.float32)
    for k in range(split.num_models):
        total, models = np.zeros(said.shape[1:]), np.zeros(len(said[k]))
        for t in range(k * asked.count, (k + 1) * asked.count):
            unseen = np.add.outer(len(data) * np.arange(asked.passes_per_epoch), parts.records(t, Role.AUDIT)).ravel()
            x = shown.numbered([k], torch.from_numpy(unseen)[None])[0].numpy()
            ensemble, place = teachers[t]
            logits = ensemble.select([place]).logits(x, device=device)[0]
            total[unseen] += softmax(logits.astype(np.float64), axis=-1)
            models[unseen] += 1
        answered = models > 0
        # a probability below float32's smallest would have no finite logarithm
        said[k, answered] = np.log(np.maximum(total[answered] / models[answered, None], 1e-30))
    return said
