"""An audited model that is known by its answers, before models made by the study."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wemem.study.onnx_file import OnnxModel
from wemem.training import Ensemble


@dataclass(frozen=True, eq=False)
class ShippedFirst:
    """Models that answer queries: member 0 a file that ships, the others an ensemble."""

    shipped: OnnxModel
    others: Ensemble

    def __len__(self) -> int:
        return 1 + len(self.others)

    def logits(self, features: Float32[np.ndarray, "N ..."]) -> Float32[np.ndarray, "K N C"]:
        """Answers of every model on the same records."""
        return np.concatenate([self.shipped.logits(features)[None], self.others.logits(features)])
