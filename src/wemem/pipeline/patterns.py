"""Sparsity patterns of trained models, for attacks that read which weights are pruned."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from wemem.training import Ensemble


def joined_masks(parts: Sequence[tuple[Ensemble, int]]) -> dict[str, Bool[np.ndarray, "K ..."]]:
    """The masks of the first models of several ensembles, by tensor, True where a weight or channel
    is kept.

    A tensor that is pruned in another ensemble alone is kept whole. Without pruned models there are
    no masks.

    Args:
        parts: ensembles of one architecture, each with the number of its models that count.
    """
    known = [
        {name: mask[:count].cpu().numpy() for name, mask in {**ensemble.masks, **ensemble.channels}.items()}
        for ensemble, count in parts
    ]
    shapes = {name: mask.shape[1:] for masks in known for name, mask in masks.items()}
    return {
        name: np.concatenate(
            [
                masks[name] if name in masks else np.ones((count, *shape), bool)
                for masks, (_, count) in zip(known, parts, strict=True)
            ]
        )
        for name, shape in shapes.items()
    }
