"""What the expensive stages of a study leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from wemem.export.onnx import OnnxModel
from wemem.memorization import Memorization
from wemem.pipeline.answers import OnDevice, ShippedFirst
from wemem.signals import Queried
from wemem.store.key import Key
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class Stage:
    """What a stage left: an ensemble, how it got there, and the key under which it is stored.

    Args:
        key, ensemble, meta: these.
        shipped: an audited model known by its answers, which is then member 0; the ensemble's follow.
    """

    key: Key
    ensemble: Ensemble
    meta: Mapping[str, Any]
    shipped: OnnxModel | None = None

    def models(self, device: torch.device) -> Queried:
        """All models, as they answer; those of the ensemble on a device."""
        own = OnDevice(self.ensemble, device)
        return own if self.shipped is None else ShippedFirst(self.shipped, own)

    def first(self, features: Float32[np.ndarray, "N ..."], device: torch.device) -> Float32[np.ndarray, "N C"]:
        """Answers of member 0 alone."""
        if self.shipped is not None:
            return self.shipped.logits(features)
        return np.asarray(self.ensemble.select([0]).logits(features, device=device)[0])

    @property
    def provenance(self) -> tuple[str, ...]:
        """Recipe fingerprint of each model, stored with it (:meth:`Stages.recipe_fingerprint`)."""
        made = self.meta["recipe_fingerprint"]
        return (made,) * len(self.ensemble) if isinstance(made, str) else tuple(made)

    @property
    def seconds(self) -> float:
        """Wall time when it was computed, without that of teachers."""
        return float(self.meta["seconds"])

    @property
    def teachers_seconds(self) -> float:
        """Wall time of training teachers and asking them; 0 where there were none."""
        return float(self.meta.get("teachers_seconds", 0.0))


@dataclass(frozen=True, eq=False)
class Scores:
    """One party's memorization scores, how far they can be trusted, and what they cost."""

    key: Key
    memorization: Memorization
    halves_correlation: float
    models: int
    seconds: float


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """What the teachers of a member predict of its train records: log-probabilities ``(K, N, C)``, and their cost."""

    key: Key
    log_probabilities: np.ndarray
    seconds: float
