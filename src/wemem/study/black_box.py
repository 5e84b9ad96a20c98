"""Audits without our training code: by the outputs an auditor brings, or by a training function of theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from wemem.attacks.base import Attack
from wemem.audit.report import AuditReport, run_attacks
from wemem.audit.signal_file import read_signals
from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.given_victim import given_victim
from wemem.data.split import Role, Split
from wemem.errors import InputError
from wemem.files.record_tables import read_members
from wemem.pipeline.loading import load_data
from wemem.pipeline.progress import Progress
from wemem.randomness import derive_seed
from wemem.resolve import resolve
from wemem.signals import UNKNOWN, Signals, require_logits
from wemem.store.keys import FunctionKey
from wemem.store.sources import spec_fingerprint
from wemem.store.store import Store


@dataclass(frozen=True, eq=False)
class BlackBoxAudit:
    """The result of an audit by outputs.

    Args:
        report: the results of the attacks.
        signals: the outputs that they saw.
        left_out: a sentence for each attack that could not run on these outputs, with the reason.
        attacks: the attacks that ran, by label.
    """

    report: AuditReport
    signals: Signals
    left_out: tuple[str, ...]
    attacks: Mapping[str, Attack]


def audit_signals(path: Path, attacks: Mapping[str, Attack], *, seed: int) -> BlackBoxAudit:
    """Every attack that needs no more than the outputs in a file.

    Args:
        path: a file that :func:`~wemem.audit.signal_file.read_signals` takes. Models that share no record with model 0
            are shadows; others are reference models, trained on random halves of the same records.
        attacks: by label; those that a missing signal or the other layout rules out are left out, and named.
        seed: for attacks that train something.

    Raises:
        InputError: a file that cannot be read or does not fit, or outputs that no attack can use.
    """
    return _audit_what_fits(read_signals(path), attacks, seed)


def audit_by_functions(
    config: StudyConfig, predict: str, train: str, members: Path, store: Store, progress: Progress
) -> BlackBoxAudit:
    """Attack a model that is known by its predictions alone, with shadows from a training function of the auditor's.

    Args:
        config: data, split, seeds and attacks are used.
        predict: ``module:function``, ``predict(features) -> logits (N, C)`` of the audited model.
        train: ``module:function``, ``train(features, labels, seed) -> predict``, a model made as the audited one was.
        members: the records the audited model was trained on.
        store: where the outputs are kept.
        progress: hears of every model.

    Raises:
        InputError: the functions cannot be found or return something else.
    """
    data, seed = load_data(config, progress), config.seeds[0]
    data.require_all_records("members")
    adversary_share = config.victim.adversary_share if config.victim else 0.0
    split = given_victim(
        data.labels, read_members(str(members), len(data)), config.split.shadows, seed=seed, train=config.split.train,
        dev=config.split.dev, adversary_share=adversary_share,
    )  # fmt: skip
    progress.begin("the audited model", 1.0)
    outputs = [_victim_outputs(data, predict)]
    progress.end(stored=False)
    outputs += [_shadow_outputs(data, split, k, train, seed, store, progress) for k in range(1, split.num_models)]
    provenance = (UNKNOWN,) * split.num_models
    signals = Signals(np.stack(outputs), data.labels, split.roles, np.arange(len(data)), "disjoint", provenance)
    return _audit_what_fits(signals, config.attacks, seed)


def _victim_outputs(data: Dataset, predict: str) -> Float32[np.ndarray, "N C"]:
    """Logits of the audited model on all records; it is asked every time, for it may have been trained anew."""
    return _require_logits(data, predict, _call(predict, resolve(predict), data.features))


def _shadow_outputs(
    data: Dataset, split: Split, model: int, train: str, seed: int, store: Store, progress: Progress
) -> Float32[np.ndarray, "N C"]:
    """Logits of a shadow on all records, trained first unless the store has them."""
    own = FunctionKey(train, spec_fingerprint(train), data.fingerprint, split.fingerprint, model, seed).key()
    progress.begin(f"shadow {model} of {split.num_models - 1}", 1.0)
    entry = store.get(own)
    stored = entry is not None
    if entry is None:
        rows = split.records(model, Role.TRAIN)
        shadow_seed = derive_seed(seed, train, model)
        predict = _call(train, resolve(train), data.features[rows], data.labels[rows], shadow_seed)
        entry = store.put(own, {"logits": _require_logits(data, train, _call(train, predict, data.features))}, {})
    progress.end(stored=stored)
    return entry.arrays["logits"]


def _require_logits(data: Dataset, spec: str, outputs: object) -> Float32[np.ndarray, "N C"]:
    logits = np.asarray(outputs, np.float32)
    if logits.shape != (len(data), data.classes):
        raise InputError(f"expected logits {(len(data), data.classes)} from {spec!r}, got {logits.shape}")
    require_logits(logits, repr(spec))
    return logits


def _call(spec: str, function: object, *arguments: object) -> Any:
    if not callable(function):
        raise InputError(f"expected {spec!r} to be, or to give, a function of features, got {type(function).__name__}")
    return function(*arguments)


def _audit_what_fits(signals: Signals, attacks: Mapping[str, Attack], seed: int) -> BlackBoxAudit:
    fits = {
        name: attack
        for name, attack in attacks.items()
        if attack.layout == signals.layout and attack.required_signals <= set(signals.extras)
    }
    left_out = [
        f"{name} was not run: it needs {a.layout} signals"
        + (f" with {', '.join(sorted(a.required_signals))}" if a.required_signals else "")
        for name, a in attacks.items()
        if name not in fits
    ]
    if not fits:
        raise InputError(f"expected an attack that works on {signals.layout} outputs, got none; {'; '.join(left_out)}")
    return BlackBoxAudit(run_attacks({signals.layout: signals}, fits, seed=seed), signals, tuple(left_out), fits)
