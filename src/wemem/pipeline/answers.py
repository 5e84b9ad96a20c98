"""Models that answer queries: an ensemble on a device, with or without an ONNX file before it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Real

from wemem.exporting.onnx import OnnxModel
from wemem.queries import Queried
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class OnDevice:
    """Models that compute their answers on a device."""

    ensemble: Ensemble
    device: torch.device

    def __len__(self) -> int:
        return len(self.ensemble)

    def logits(self, features: Real[np.ndarray, "N ..."]) -> Float32[np.ndarray, "K N C"]:
        """Answers of every model on the same records."""
        return self.ensemble.logits(features, device=self.device)


@dataclass(frozen=True, eq=False)
class ShippedFirst:
    """Models that answer queries: model 0 is an ONNX file, the others are an ensemble."""

    shipped: OnnxModel
    others: Queried

    def __len__(self) -> int:
        return 1 + len(self.others)

    def logits(self, features: Real[np.ndarray, "N ..."]) -> Float32[np.ndarray, "K N C"]:
        """Answers of every model on the same records."""
        return np.concatenate([self.shipped.logits(features)[None], self.others.logits(features)])
