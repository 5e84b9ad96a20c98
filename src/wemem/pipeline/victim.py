"""The model that a user brings: its weights as an ensemble of one, or its ONNX file; and shadows
put behind it.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned
from wemem.exporting.onnx import OnnxModel, read_onnx
from wemem.exporting.shards import weights_sha256
from wemem.models.table import model_for
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.workspace import Workspace
from wemem.pruning import masks_of_zeros
from wemem.signals import UNKNOWN
from wemem.store.keys import ShippedVictimKey, SwappedKey, VictimKey
from wemem.training import Ensemble


def is_onnx(config: StudyConfig) -> bool:
    """True if the victim is an ONNX file, which can be queried but not trained."""
    return config.victim is not None and Path(config.victim.weights).suffix.lower() == ".onnx"


def read_victim_file(config: StudyConfig) -> OnnxModel:
    """The victim that is an ONNX file."""
    assert config.victim is not None
    return read_onnx(Path(config.victim.weights))


def read_victim(config: StudyConfig, data: Dataset, note: Callable[[str], object]) -> tuple[Ensemble, str]:
    """The victim as an ensemble of one, its exact zeros as masks, and the fingerprint of its
    weights file.

    Args:
        config: the study, with a ``[victim]``.
        data: the records that the victim is for.
        note: called with one line where the weights are not taken as they stand in the file.

    Raises:
        InputError: no victim is given, or the file does not fit the model.
    """
    if config.victim is None:
        raise InputError("expected a [victim] with weights, got none; add one")
    path = Path(config.victim.weights)
    module = load_pruned(model_for(config.model, data).build(data.input_shape, data.classes), path, note)
    ensemble = Ensemble.from_modules([module.train()])
    return masks_of_zeros(ensemble, torch.from_numpy(data.features[:2]), config.prunings[0].layers), weights_sha256(
        path
    )


def load_victim(space: Workspace) -> TrainedModels:
    """The given victim alone, whose training is not known."""
    victim, weights = read_victim(space.config, space.data, space.cache.progress.warn)
    key = VictimKey(space.architecture, weights, None).key()
    return TrainedModels(key, victim, {"seconds": 0.0, "recipe_fingerprint": UNKNOWN})


def with_shadows(space: Workspace, shadows: TrainedModels, recipe_fingerprint: str) -> TrainedModels:
    """The given victim, model 0, with shadows behind it.

    Args:
        space: names the victim.
        shadows: the shadows.
        recipe_fingerprint: of the victim, as its certificate states it.
    """
    kept = {name: shadows.meta[name] for name in ("backend", "seconds")}  # the rest describes a shadow
    meta = {**kept, "recipe_fingerprint": [recipe_fingerprint, *shadows.provenance]}
    if is_onnx(space.config):
        shipped = read_victim_file(space.config)
        key = ShippedVictimKey(shipped.sha256, shipped.runtime, shadows.key).key()
        return TrainedModels(key, unmasked(shadows.ensemble), meta, shipped)
    victim, weights = read_victim(space.config, space.data, space.cache.progress.warn)
    # the masks stay, so that pruning goes on from a victim's zeros; a model without masks has lost
    # nothing
    joined = Ensemble.concatenate([replace(models, channels={}) for models in (victim, shadows.ensemble)])
    return TrainedModels(VictimKey(space.architecture, weights, shadows.key).key(), joined, meta)


def swap_shadows(victim: TrainedModels, shadows: TrainedModels) -> TrainedModels:
    """Model 0 of some models with all but model 0 of others behind it."""
    others = shadows.ensemble.select(range(1, len(shadows.ensemble)))
    joined = Ensemble.concatenate([unmasked(victim.ensemble.select([0])), unmasked(others)])
    meta = {**victim.meta, "recipe_fingerprint": [victim.provenance[0], *shadows.provenance[1:]]}
    return TrainedModels(SwappedKey(victim.key, shadows.key).key(), joined, meta)


def unmasked(ensemble: Ensemble) -> Ensemble:
    """An ensemble without its record of what is pruned, so that others can be joined to it."""
    return replace(ensemble, masks={}, channels={})
