"""Audits of a model behind a predict function, by models that a train function of the user's makes.

The train function makes shadows from the adversary's records and, for LiRA and RMIA, reference models on random halves
of the audited records. Both are matched to the number and classes of the victim's training records.
"""

import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.given_victim import given_victim, halves_around
from wemem.data.split import Role, Split, require_covered
from wemem.errors import InputError
from wemem.files.record_tables import read_members
from wemem.pipeline.loading import load_data
from wemem.pipeline.progress import Progress
from wemem.randomness import derive_seed
from wemem.resolve import resolve
from wemem.signals import UNKNOWN, SignalLayout, Signals, refuse_probabilities
from wemem.store.keys import FunctionKey
from wemem.store.sources import spec_fingerprint
from wemem.store.store import Store
from wemem.study.black_box import BlackBoxAudit, audit_what_fits

#: Lines of the user's code that an error names.
FRAMES = 3
#: Folders whose code is not the user's.
FOREIGN = (str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))


@dataclass(frozen=True, eq=False)
class UserFunctions:
    """The functions of an audit and where their outputs are kept.

    Args:
        predict: ``module:function``, ``predict(features) -> logits (N, C)`` of the audited model.
        train: ``module:function``, ``train(features, labels, seed) -> predict``, which makes a model as the audited one
            was made; seeds are in 0..2**32-1, which every library takes.
        data: the records.
        seed: the seed of the audit.
        store: the place where outputs of trained models are kept.
        progress: receives every model.
    """

    predict: str
    train: str
    data: Dataset
    seed: int
    store: Store
    progress: Progress

    def victim_outputs(self) -> Float32[np.ndarray, "N C"]:
        """Logits of the audited model on all records; it is queried every time, for it may have been trained anew."""
        self.progress.begin("the audited model", 1.0)
        outputs = self._logits(self.predict, resolve(self.predict))
        self.progress.end(stored=False)
        return outputs

    def outputs(self, kind: str, split: Split, model: int, *purpose: str | int) -> Float32[np.ndarray, "N C"]:
        """Logits of one of the adversary's models on all records, trained first unless the store has them.

        Args:
            kind: the kind of model, for the progress display.
            split: the roles of the records.
            model: the row of the model in the split.
            purpose: the parts that its seed is derived from, besides the train function.
        """
        source = spec_fingerprint(self.train)
        seed = derive_seed(self.seed, self.train, *purpose) % 2**32
        key = FunctionKey(self.train, source, self.data.fingerprint, split.fingerprint, model, seed).key()
        self.progress.begin(f"{kind} model {purpose[-1]}", 1.0)
        entry = self.store.get(key)
        stored = entry is not None
        if entry is None:
            rows = split.records(model, Role.TRAIN)
            trained = call(self.train, resolve(self.train), self.data.features[rows], self.data.labels[rows], seed)
            entry = self.store.put(key, {"logits": self._logits(self.train, trained)}, {})
        self.progress.end(stored=stored)
        return entry.arrays["logits"]

    def _logits(self, spec: str, predict: object) -> Float32[np.ndarray, "N C"]:
        logits = np.asarray(call(spec, predict, self.data.features), np.float32)
        if logits.shape != (len(self.data), self.data.classes):
            raise InputError(
                f"expected logits {(len(self.data), self.data.classes)} from {spec!r}, got {logits.shape}; return one "
                "row for each record and one column for each class"
            )
        refuse_probabilities(logits, repr(spec))
        return logits


def audit_by_functions(
    config: StudyConfig, predict: str, train: str, members: Path, store: Store, progress: Progress
) -> BlackBoxAudit:
    """Attack a model that is known by its predictions alone, by models of a training function of the auditor's.

    Args:
        config: the study, of which data, split, seeds and attacks are used.
        predict: as :class:`UserFunctions` takes it.
        train: as :class:`UserFunctions` takes it.
        members: the file of the records that the audited model was trained on.
        store: the place where outputs are kept.
        progress: receives every model.

    Raises:
        InputError: the functions cannot be found, fail or return something else, or there are too few records.
    """
    data, seed = load_data(config, progress), config.seeds[0]
    data.require_all_records("members")
    known = read_members(str(members), len(data))
    split = given_victim(
        data.labels, known, config.split.shadows, seed=seed, train=config.split.train, dev=config.split.dev,
        adversary_share=config.victim.adversary_share if config.victim else 0.0,
    )  # fmt: skip
    halves = None
    if config.uses("shared"):
        halves = halves_around(data.labels, split, known, config.split.references, seed=seed)
        require_covered(halves, split.audited(0), least=2)
    functions = UserFunctions(predict, train, data, seed, store, progress)
    progress.plan(1.0 + (split.num_models - 1) * config.uses("disjoint") + (0 if halves is None else halves.num_models))
    victim, signals = functions.victim_outputs(), dict[SignalLayout, Signals]()
    if config.uses("disjoint"):
        shadows = [functions.outputs("shadow", split, k, k) for k in range(1, split.num_models)]
        signals["disjoint"] = _signals(data, [victim, *shadows], split.roles, "disjoint", np.arange(len(data)))
    if halves is not None:
        others = [functions.outputs("reference", halves, k, "reference", k) for k in range(halves.num_models)]
        used = (halves.roles != Role.UNUSED).any(axis=0) | (split.roles[0] == Role.DEV)
        rows = np.sort(np.concatenate([split.audited(0), np.flatnonzero(~used)]))
        roles = np.concatenate([split.roles[:1], halves.roles])
        signals["shared"] = _signals(data, [victim, *others], roles, "shared", rows)
    return audit_what_fits(signals, config.attacks, seed)


def _signals(
    data: Dataset, outputs: list[np.ndarray], roles: np.ndarray, layout: SignalLayout, rows: np.ndarray
) -> Signals:  # fmt: skip
    """The outputs of some models on some records; nothing certifies how the models were made."""
    logits, recipes = np.stack([one[rows] for one in outputs]), (UNKNOWN,) * len(outputs)
    return Signals(logits, data.labels[rows], roles[:, rows], rows, layout, recipes)


def call(spec: str, function: object, *arguments: object) -> Any:
    """Call a function of the user's.

    Raises:
        InputError: it is none, or it fails; then with the lines of the user's code that led to it.
    """
    if not callable(function):
        raise InputError(f"expected {spec!r} to be, or to give, a function of features, got {type(function).__name__}")
    try:
        return function(*arguments)
    except Exception as error:
        raise InputError(
            f"expected {spec!r} to run, got {type(error).__name__}: {error}{_lines_of_user(error)}; mend the function"
        ) from error


def _lines_of_user(error: Exception) -> str:
    """The last lines of the user's own code that led to an error, on one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(FOREIGN)]
    lines = [f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-FRAMES:]]
    return f" at {'; '.join(lines)}" if lines else ""
