"""Signals from a file that an auditor brings, every array of it checked before an attack sees it."""

from pathlib import Path

import numpy as np
from jaxtyping import Int8, Int64

from wemem.data.split import Role
from wemem.errors import InputError
from wemem.files.memory_limit import memory_limit
from wemem.files.npz import read_npz
from wemem.signals import UNKNOWN, SignalLayout, Signals, of_log_odds, refuse_sigmoid

#: The arrays of a signal file.
ARRAYS = ("logits", "labels", "roles")


def read_signals(path: Path) -> Signals:
    """Signals from an ``.npz`` file.

    Args:
        path: a file with ``logits``, float ``(K, N, C)``, model 0 the audited one; ``labels``,
            whole numbers ``(N,)``; and ``roles`` ``(K, N)``: 1 where the model was trained on the
            record, 3 where it was not and is audited on it, 2 where the record served early
            stopping, 0 where it served nothing. Boolean roles mean member (True) or not (False).

    Raises:
        InputError: a file that cannot be read, an array of another shape or kind, or a model 0
            without members or without non-members.
    """
    logits, labels, roles = read_npz(path, list(ARRAYS), limit=memory_limit(None))
    return signals_from_arrays(logits, labels, roles, str(path))


def signals_from_arrays(logits: np.ndarray, labels: np.ndarray, roles: np.ndarray, where: str) -> Signals:
    """Signals from the arrays that :func:`read_signals` describes; ``where`` names them in errors.

    >>> logits, labels = np.zeros((2, 4, 3)), np.array([0, 1, 2, 0])
    >>> signals = signals_from_arrays(logits, labels, np.array([[True, True, False, False]] * 2), "arrays")
    >>> signals.roles[0].tolist(), signals.layout
    ([1, 1, 3, 3], 'shared')
    """
    if logits.ndim != 3 or logits.dtype.kind not in "fiu":
        raise InputError(
            f"expected logits (K, N, C) of numbers in {where}, got {logits.dtype} of shape {logits.shape}; stack the "
            "outputs of the audited model and of the others, model 0 the audited one"
        )
    logits = of_log_odds(logits) if logits.shape[2] == 1 else logits
    checked = _whole_labels(labels, logits.shape[2], where)
    known = _known_roles(roles, logits.shape[:2], where)
    for name, role in (("members (role 1)", Role.TRAIN), ("non-members (role 3)", Role.AUDIT)):
        if not (known[0] == role).any():
            raise InputError(
                f"expected the roles of model 0 in {where} to have {name}, got none among {len(known[0])} records; an "
                "audit compares the two"
            )
    with np.errstate(over="ignore"):
        narrowed = np.asarray(logits, np.float32)
    signals = Signals(narrowed, checked, known, np.arange(len(checked)), layout_of(known), (UNKNOWN,) * len(logits))
    for k, outputs in enumerate(narrowed):
        refuse_sigmoid(outputs, f"model {k} in {where}")
    return signals


def layout_of(roles: Int8[np.ndarray, "K N"]) -> SignalLayout:
    """The layout: ``disjoint`` if no record has a role for model 0 and for another, else ``shared``."""
    return "shared" if ((roles[0] != Role.UNUSED) & (roles[1:] != Role.UNUSED).any(axis=0)).any() else "disjoint"


def _whole_labels(labels: np.ndarray, classes: int, where: str) -> Int64[np.ndarray, " N"]:
    remedy = f"give each record the column of its class in the logits, 0 to {classes - 1}"
    if labels.dtype.kind not in "iuf" or labels.ndim != 1:
        raise InputError(
            f"expected labels (N,) of whole numbers in {where}, got {labels.dtype} of shape {labels.shape}; {remedy}"
        )
    if not (np.isfinite(labels).all() and (labels == np.floor(labels)).all()):
        raise InputError(f"expected labels of whole numbers in {where}, got fractions; {remedy}")
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise InputError(
            f"expected labels 0..{classes - 1} in {where}, got {int(labels.min())}..{int(labels.max())}; {remedy}"
        )
    return labels.astype(np.int64)


def _known_roles(roles: np.ndarray, shape: tuple[int, ...], where: str) -> Int8[np.ndarray, "K N"]:
    if roles.shape != shape:
        turned = "; transpose it" if roles.shape == shape[::-1] else "; give each model's role of each record"
        raise InputError(
            f"expected roles {shape} as the logits have models and records in {where}, got {roles.shape}{turned}"
        )
    if roles.dtype == bool:
        return np.where(roles, Role.TRAIN, Role.AUDIT).astype(np.int8)
    if (others := roles[~np.isin(roles, [role.value for role in Role])]).size:
        raise InputError(
            f"expected roles among 0 (unused), 1 (trained on), 2 (early stopping) and 3 (not trained on) in {where}, "
            f"got {others[0]!r}; True and False do as well"
        )
    return roles.astype(np.int8)
