"""Files of a model that was pruned in a user's loop, and the scores and soft targets that a loop reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from wemem.blocks.observation import FinishedLoop, state_fingerprint
from wemem.blocks.pruner import IterativePruner
from wemem.defenses import Defense
from wemem.exporting.checkpoint import CERTIFICATE, certificate_of, channels_path, write_weights
from wemem.exporting.sparse import sparse_bytes
from wemem.files.atomic import require_folder, write_atomically
from wemem.files.hashing import file_sha256
from wemem.files.memory_limit import memory_limit
from wemem.files.npz import read_npz
from wemem.memorization import Memorization, read_scores
from wemem.signals import UNKNOWN


def save_pruned(
    directory: Path, pruner: IterativePruner, defense: Defense, rounds: Sequence[Mapping[str, Any]],
    loop: FinishedLoop | None,
) -> Path:  # fmt: skip
    """Write the files of ``wemem prune`` for a model from a user's loop.

    The certificate names the defense and the rounds. Where the loop ran to its end and the model
    still has the weights with which it ended, it also holds the recipe of the loop, by which an
    audit with a train function may count as adaptive.

    Args:
        directory: output directory; created if missing.
        pruner: the pruned model with its masks.
        defense: the defense of the loop.
        rounds: summary of each round.
        loop: the loop, if it ran to its end.

    Returns:
        The weights file.
    """
    require_folder(directory)
    pruner.apply()
    weights = directory / "weights.safetensors"
    state = {name: tensor.detach().cpu() for name, tensor in pruner.model.state_dict().items()}
    write_atomically(weights, lambda part: write_weights(part, state))
    compact = sparse_bytes(state)
    write_atomically(directory / "weights.sparse.safetensors", lambda part: part.write_bytes(compact))
    if pruner.masks:
        masks: dict[str, Tensor] = {name: mask.cpu() for name, mask in pruner.masks.items()}
        write_atomically(directory / "masks.safetensors", lambda part: write_weights(part, masks))
    if pruner.channels:
        layers = {
            name: {"of": len(kept), "kept": kept.nonzero().flatten().tolist()} for name, kept in pruner.channels.items()
        }
        text = json.dumps({"schema": "wemem.channels/1", "weights_sha256": file_sha256(weights), "layers": layers})
        write_atomically(channels_path(weights), lambda part: part.write_text(text + "\n", encoding="utf-8"))
    summary = {
        "defense": {"kind": defense.name, "settings": defense.settings},
        "sparsity": pruner.sparsity,
        "schedule": asdict(pruner.pruning.schedule),
        "rounds": list(rounds),
        "torch": torch.__version__,
    }
    fingerprint = UNKNOWN
    if loop is not None and loop.state == state_fingerprint(pruner.model):
        fingerprint = loop.fingerprint
        summary["loop"] = asdict(replace(loop, data=""))  # certificates hold nothing of the data
    certificate = certificate_of(weights, fingerprint, summary)
    write_atomically(directory / CERTIFICATE, lambda part: part.write_text(certificate, encoding="utf-8"))
    return weights


def given_scores(
    scores: str | Path | Memorization | Float64[np.ndarray, " N"] | None, records: int
) -> Float64[np.ndarray, " N"] | None:
    """The scores of the records, also from a file of them."""
    if isinstance(scores, Memorization):
        return scores.score
    return read_scores(Path(scores), records) if isinstance(scores, str | Path) else scores


def read_targets(path: str | Path) -> Float32[np.ndarray, "M C"]:
    """Read the log-probabilities that :class:`~wemem.blocks.SoftTargets` wrote.

    Raises:
        InputError: another file.
    """
    return read_npz(Path(path), ["log_probabilities"], limit=memory_limit(None))[0]
