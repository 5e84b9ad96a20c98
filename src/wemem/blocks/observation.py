"""Observation of the loops and estimates that a user's function runs.

An audit by functions calls the user's train function for each of the adversary's models. It
observes the call, and calls itself adaptive only for what it saw: a loop of
:class:`~wemem.blocks.PruningEngine` that ran to its end and left the very weights that answer.
Loops are recognized by these weights, so that no other module can stand in their place.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from wemem.files.hashing import sha256_of
from wemem.signals import UNKNOWN


@dataclass(frozen=True)
class FinishedLoop:
    """A loop that ran to its end.

    Args:
        state: the fingerprint of the weights with which it ended.
        recipe: how the model was made, as far as the loop shows it.
        problem: the reason why the recipe does not describe the loop; None if it does.
        records: the number of records of the loop's data.
        data: the fingerprint of a few of these records, which distinguishes data sets.
    """

    state: str
    recipe: Mapping[str, Any]
    problem: str | None
    records: int
    data: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the recipe, which equals no fingerprint of a study; ``unknown`` where the
        recipe does not describe the loop.
        """
        return UNKNOWN if self.problem else sha256_of({"loop": self.recipe})


@dataclass(eq=False)
class Observation:
    """The loops and estimates within one call of a user's function."""

    begun: int = 0
    finished: list[FinishedLoop] = field(default_factory=list)
    estimates: dict[str, str] = field(default_factory=dict)


_observed: ContextVar[Observation | None] = ContextVar("observed", default=None)
#: Loops and estimates of this process outside of any observation.
_process = Observation()


@contextmanager
def observing() -> Iterator[Observation]:
    """Observe the loops and estimates of a call; those of other threads and processes are not seen."""
    token = _observed.set(observation := Observation())
    try:
        yield observation
    finally:
        _observed.reset(token)


def is_observed() -> bool:
    """Return True within :func:`observing`."""
    return _observed.get() is not None


def note_begun() -> None:
    """Note that a loop has begun."""
    _current().begun += 1


def note_finished(loop: FinishedLoop) -> None:
    """Note that a loop has ended."""
    _current().finished.append(loop)


def note_estimate(values: np.ndarray, labels: np.ndarray, settings: str, stored: bool) -> None:
    """Note scores or targets that were estimated for some records.

    Args:
        values: the scores or targets.
        labels: the classes of the records.
        settings: how they were estimated.
        stored: True if models of an earlier call took part. Within an observation these may be
            models of other records, so that the estimate does not count.
    """
    if not (stored and is_observed()):
        _current().estimates[_fingerprint(values, labels)] = settings


def estimate_settings(values: np.ndarray | None, labels: np.ndarray) -> str | None:
    """Return how scores or targets of some records were estimated: ``unknown`` unless by this
    program, within the observation if there is one; None without any.
    """
    return None if values is None else _current().estimates.get(_fingerprint(values, labels), UNKNOWN)


def finished_loop(module: nn.Module) -> FinishedLoop | None:
    """Return the last loop of this process that ended with the weights of a module."""
    state = state_fingerprint(module)
    return next((loop for loop in reversed(_process.finished) if loop.state == state), None)


def state_fingerprint(module: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()


def _current() -> Observation:
    return _observed.get() or _process


def _fingerprint(values: np.ndarray, labels: np.ndarray) -> str:
    plain = np.nan_to_num(np.asarray(values, np.float64), nan=2.0)  # no score is 2
    return hashlib.sha256(plain.tobytes() + np.asarray(labels, np.int64).tobytes()).hexdigest()
