"""The model that a user brings: its weights as an ensemble of one, or its ONNX file; and shadows
put behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned, training_certificate
from wemem.exporting.onnx import OnnxModel, read_onnx
from wemem.exporting.shards import weights_path, weights_sha256
from wemem.files.hashing import sha256_of
from wemem.models.table import model_for
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.stage import Derived, Stage
from wemem.pipeline.workspace import Workspace
from wemem.pruning import masks_of_zeros
from wemem.signals import UNKNOWN
from wemem.store.fingerprint import spelled
from wemem.store.key import Key
from wemem.store.keys import SelectionKey, ShippedVictimKey, SwappedKey, VictimKey
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


def training_fingerprint(space: Workspace) -> str:
    """Fingerprint of how an unpruned model of a study is trained, for the certificate beside its
    weights.
    """
    return sha256_of([space.recipe_fingerprint(None, None), spelled(space.config.training)])


def members_fingerprint(members: Int64[np.ndarray, " n"]) -> str:
    """Fingerprint of a set of records by their numbers."""
    return sha256_of(np.unique(members).tolist())


def certified_training(space: Workspace, members: Int64[np.ndarray, " n"]) -> str:
    """The recipe fingerprint of an unpruned victim: that of the study's own models if a certificate
    beside the weights states the same training on the same records, else :data:`UNKNOWN`.
    """
    assert space.config.victim is not None
    if is_onnx(space.config):
        return UNKNOWN
    certificate = training_certificate(weights_path(space.config.victim.weights))
    expected = (training_fingerprint(space), members_fingerprint(members))
    if (certificate.get("recipe_fingerprint"), certificate.get("members_sha256")) != expected:
        return UNKNOWN
    return space.recipe_fingerprint(None, None)


def with_shadows(
    space: Workspace, shadows: Stage[TrainedModels], recipe_fingerprint: str
) -> Stage[TrainedModels]:  # fmt: skip
    """The given victim, model 0, with shadows behind it.

    Args:
        space: names the victim.
        shadows: the shadows.
        recipe_fingerprint: of the victim, as its certificate states it.
    """
    if is_onnx(space.config):
        shipped = read_victim_file(space.config)
        key = ShippedVictimKey(shipped.sha256, shipped.runtime, shadows.key).key()
        return Derived(key, (shadows,), lambda: _behind(key, shipped, shadows.read(), recipe_fingerprint))
    assert space.config.victim is not None
    key = VictimKey(space.architecture, weights_sha256(space.config.victim.weights), shadows.key).key()
    return Derived(key, (shadows,), lambda: _joined(space, key, shadows.read(), recipe_fingerprint), keep=True)


def _behind(key: Key, shipped: OnnxModel, shadows: TrainedModels, recipe_fingerprint: str) -> TrainedModels:
    """An ONNX file with shadows behind it."""
    return TrainedModels(key, unmasked(shadows.ensemble), _joined_meta(shadows, recipe_fingerprint), shipped)


def _joined(space: Workspace, key: Key, shadows: TrainedModels, recipe_fingerprint: str) -> TrainedModels:
    """A victim by its weights with shadows behind it."""
    victim, _ = read_victim(space.config, space.data, space.cache.progress.warn)
    # the masks stay, so that pruning goes on from a victim's zeros; a model without masks has lost
    # nothing
    joined = Ensemble.concatenate([replace(models, channels={}) for models in (victim, shadows.ensemble)])
    return TrainedModels(key, joined, _joined_meta(shadows, recipe_fingerprint))


def _joined_meta(shadows: TrainedModels, recipe_fingerprint: str) -> dict[str, Any]:
    training = {name: shadows.meta[name] for name in ("backend", "seconds")}  # the rest describes a shadow
    return {**training, "recipe_fingerprint": [recipe_fingerprint, *shadows.provenance]}


def swap_shadows(victim: Stage[TrainedModels], shadows: Stage[TrainedModels]) -> Stage[TrainedModels]:
    """Model 0 of some models with all but model 0 of others behind it."""
    key = SwappedKey(victim.key, shadows.key).key()

    def swap() -> TrainedModels:
        first, behind = victim.read(), shadows.read()
        others = behind.ensemble.select(range(1, len(behind.ensemble)))
        joined = Ensemble.concatenate([unmasked(first.ensemble.select([0])), unmasked(others)])
        meta = {**first.meta, "recipe_fingerprint": [first.provenance[0], *behind.provenance[1:]]}
        return TrainedModels(key, joined, meta)

    return Derived(key, (victim, shadows), swap)


def selected(models: Stage[TrainedModels], places: Sequence[int], count: int) -> Stage[TrainedModels]:
    """Some of the models of a stage, as :meth:`TrainedModels.select` names them.

    Args:
        models: the stage.
        places: of the models.
        count: the number of models of the stage.
    """
    if list(places) == list(range(count)):
        return models
    key = SelectionKey(models.key, tuple(places)).key()
    return Derived(key, (models,), lambda: models.read().select(places))


def unmasked(ensemble: Ensemble) -> Ensemble:
    """An ensemble without its record of what is pruned, so that others can be joined to it."""
    return replace(ensemble, masks={}, channels={})
