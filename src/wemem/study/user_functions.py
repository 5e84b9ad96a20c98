"""Audits of a model behind a user's predict function, with models that a user's train function
trains.

The train function trains shadows on the adversary's records and, for LiRA and RMIA, reference
models on random halves of the audited records. Both have as many training records of each class as
the victim.
"""

import copy
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from wemem.auditing.blind import blind_baseline
from wemem.blocks.observation import observing
from wemem.config.study import FEW_REFERENCES, StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.given_victim import given_victim, halves_around, matched
from wemem.data.split import Indices, Role, Split, require_covered
from wemem.errors import InputError
from wemem.exporting.checkpoint import load_pruned
from wemem.exporting.shards import weights_sha256
from wemem.files.record_tables import read_members
from wemem.models.outputs import returning_logits
from wemem.models.table import model_for
from wemem.notes import Note
from wemem.pipeline.loading import load_data
from wemem.pipeline.progress import Progress
from wemem.randomness import derive_seed
from wemem.resolve import Given, resolve
from wemem.signals import SignalLayout, Signals, of_log_odds, refuse_probabilities, refuse_sigmoid
from wemem.store.keys import FunctionKey
from wemem.store.sources import spec_fingerprint
from wemem.store.store import Store
from wemem.study.black_box import BlackBoxAudit, run_possible_attacks
from wemem.study.loops import ModelLoop, audited_loop, compared, trained_loop

#: The number of records that a module computes at once.
BATCH = 512
#: The number of lines of the user's code that an error shows.
FRAMES = 3
#: Folders that hold no code of the user.
FOREIGN = (str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))


@dataclass(frozen=True, eq=False)
class UserFunctions:
    """The user's functions in an audit, with the store of their outputs.

    Args:
        predict: the predict function of the audited model, as ``module:function`` or itself;
            ``predict(features)`` returns logits ``(N, C)``. A module may stand in place of any
            predict function.
        train: the train function, as ``module:function`` or itself; ``train(features, labels,
            seed)`` trains a model in the same way as the audited one and returns its predict
            function. Seeds are in 0..2**32-1, which every library accepts.
        data: the data set.
        seed: the seed of the audit.
        members: the number of records on which the audited model was trained.
        file: the file of the audited model, if it is known.
        store: the store of the outputs of trained models.
        progress: receives every model.
    """

    predict: str | Given
    train: str | Given
    data: Dataset
    seed: int
    members: int
    file: Path | None
    store: Store
    progress: Progress

    def victim_outputs(self) -> "Answered":
        """Compute the logits of the audited model on all records; they are never stored, because it
        may change.
        """
        self.progress.begin("the audited model", 1.0)
        predict = resolve(self.predict)
        outputs = self._logits(self.predict, predict)
        self.progress.end(stored=False)
        return Answered(outputs, audited_loop(predict, self.file, self.members))

    def outputs(self, kind: str, split: Split, model: int, *purpose: str | int) -> "Answered":
        """Compute the logits of one of the adversary's models on all records, or read them from the
        store.

        Args:
            kind: the kind of the model, for the progress display.
            split: the roles of the records.
            model: the row of the model in the split.
            purpose: the parts from which the seed is derived, besides the train function.
        """
        source = spec_fingerprint(self.train)
        seed = derive_seed(self.seed, str(self.train), *purpose) % 2**32
        key = FunctionKey(str(self.train), source, self.data.fingerprint, split.fingerprint, model, seed).key()
        name = f"{kind} model {purpose[-1]}"
        self.progress.begin(name, 1.0)
        entry = self.store.get(key)
        stored = entry is not None
        if entry is None:
            rows = split.records(model, Role.TRAIN)
            with observing() as seen:
                trained = call(self.train, resolve(self.train), self.data.features[rows], self.data.labels[rows], seed)
            # before it answers: what a predict function changes by then is not what the loop made
            loop = trained_loop(name, seen, trained, len(rows))
            entry = self.store.put(key, {"logits": self._logits(self.train, trained)}, loop.as_json())
        self.progress.end(stored=stored)
        return Answered(entry.arrays["logits"], ModelLoop.from_json(name, entry.meta))

    def _logits(self, spec: str | Given, predict: object) -> Float32[np.ndarray, "N C"]:
        function = predict_by(predict, self.data.classes) if isinstance(predict, nn.Module) else predict
        logits = np.asarray(call(spec, function, self.data.features), np.float32)
        if self.data.classes == 2 and logits.shape in ((len(self.data),), (len(self.data), 1)):
            logits = of_log_odds(logits.reshape(-1, 1))
        if logits.shape != (len(self.data), self.data.classes):
            raise InputError(
                f"expected logits {(len(self.data), self.data.classes)} from {spec!r}, got {logits.shape}; return one "
                "row for each record and one column for each class"
            )
        refuse_probabilities(logits, repr(spec))
        refuse_sigmoid(logits, repr(spec))
        return logits


@dataclass(frozen=True, eq=False)
class Answered:
    """The logits of one model on all records, and the loop that made it."""

    logits: Float32[np.ndarray, "N C"]
    loop: ModelLoop


def audit_by_functions(
    config: StudyConfig, predict: str | Given | None, train: str | Given, members: Path, store: Store,
    progress: Progress, file: Path | None = None,
) -> BlackBoxAudit:  # fmt: skip
    """Attack a model that is known by its predictions alone, with models from the user's train
    function.

    Args:
        config: the study, of which data, split, seeds and attacks are used.
        predict: the predict function of the audited model (:class:`UserFunctions`); None for the
            study's architecture with the weights of the file.
        train: the train function (:class:`UserFunctions`).
        members: the file that lists the records on which the audited model was trained.
        store: the store of the outputs of trained models.
        progress: receives every model.
        file: the file of the audited model, if it is known.

    Raises:
        InputError: a function does not exist, fails or returns something else, or there are too few
            records.
    """
    if config.canaries:
        raise InputError(
            "expected no canaries in an audit by functions, got some; they need models that this program trains"
        )
    data, seed = load_data(config, progress), config.seeds[0]
    data.require_all_records("members")
    known = read_members(str(members), len(data), data.ids)
    split = given_victim(
        data.labels, known, config.split.shadows, seed=seed, train=config.split.train, dev=config.split.dev,
        adversary_share=config.victim.adversary_share if config.victim else 0.0,
    )  # fmt: skip
    halves = None
    if config.uses("shared"):
        halves = halves_around(data.labels, split, known, config.split.references or FEW_REFERENCES, seed=seed)
        require_covered(halves, split.audited(0), least=2)
    if predict is None:
        predict = _module_of(config, data, file, progress)
    functions = UserFunctions(predict, train, data, seed, len(known), file, store, progress)
    progress.plan(1.0 + (split.num_models - 1) * config.uses("disjoint") + (0 if halves is None else halves.num_models))
    victim, shadows, others = functions.victim_outputs(), list[Answered](), list[Answered]()
    if config.uses("disjoint"):
        shadows = [functions.outputs("shadow", split, k, k) for k in range(1, split.num_models)]
    if halves is not None:
        others = [functions.outputs("reference", halves, k, "reference", k) for k in range(halves.num_models)]
    recipes, adaptivity = compared(victim.loop, [one.loop for one in (*shadows, *others)])
    signals = dict[SignalLayout, Signals]()
    if shadows:
        own, rows = recipes[: 1 + len(shadows)], np.arange(len(data))
        signals["disjoint"] = _signals(data, [victim, *shadows], split.roles, "disjoint", rows, own)
    if halves is not None:
        used = (halves.roles != Role.UNUSED).any(axis=0) | (split.roles[0] == Role.DEV)
        rows = np.sort(np.concatenate([split.audited(0), np.flatnonzero(~used)]))
        roles, own = np.concatenate([split.roles[:1], halves.roles]), (recipes[0], *recipes[1 + len(shadows) :])
        signals["shared"] = _signals(data, [victim, *others], roles, "shared", rows, own)
    others_of = {"shadow models": split.select(range(1, split.num_models))} if config.uses("disjoint") else {}
    if halves is not None:
        others_of["reference models"] = halves
    unmatched = tuple(_unmatched(data, known, others_of))
    baseline = blind_baseline(data, split, seed)
    blind = () if baseline is None else (baseline,)
    attacked = run_possible_attacks(signals, config.attacks, seed)
    return replace(attacked, remarks=unmatched, blind=blind, adaptivity=adaptivity)


def _module_of(config: StudyConfig, data: Dataset, file: Path | None, progress: Progress) -> Given:
    """The study's architecture with the weights of a file."""
    if file is None:
        raise InputError("expected a predict function or the file of the audited model, got neither; give one")
    network = model_for(config.model, data).build(data.input_shape, data.classes)
    return Given(str(file), load_pruned(network, file, progress.warn), weights_sha256(file))


def _unmatched(data: Dataset, members: Indices, others: Mapping[str, Split]) -> Iterator[Note]:
    """A note on each kind of model that was not trained on as many records of each class as the
    audited one.
    """
    for kind, split in others.items():
        trains = [split.records(k, Role.TRAIN) for k in range(split.num_models)]
        if not all(matched(data.labels, members, train) for train in trains):
            yield Note(
                "unmatched_size", {"kind": kind, "records": round(float(np.mean([len(records) for records in trains])))}
            )


def _signals(
    data: Dataset, models: list[Answered], roles: np.ndarray, layout: SignalLayout, rows: np.ndarray,
    recipes: tuple[str, ...],
) -> Signals:  # fmt: skip
    """The outputs of several models on some records."""
    logits = np.stack([model.logits[rows] for model in models])
    return Signals(logits, data.labels[rows], roles[:, rows], rows, layout, recipes)


def predict_by(module: nn.Module, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from features to the logits of a copy of a module, in evaluation mode on
    its device.
    """
    where = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    network = returning_logits(copy.deepcopy(module).eval(), classes)

    def predict(features: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [network(part.to(where)).cpu() for part in torch.split(torch.from_numpy(features), BATCH)]
        return torch.cat(parts).numpy()

    return predict


def call(spec: str | Given, function: object, *arguments: object) -> Any:
    """Call a function of the user.

    Raises:
        InputError: the object is no function, or the call fails; the error then shows the lines of
            the user's code.
    """
    if not callable(function):
        raise InputError(f"expected {spec!r} to be, or to give, a function of features, got {type(function).__name__}")
    try:
        return function(*arguments)
    except Exception as error:
        raise InputError(
            f"expected {spec!r} to run, got {type(error).__name__}: {error}{_lines_of_user(error)}; correct the "
            "function"
        ) from error


def _lines_of_user(error: Exception) -> str:
    """The last lines of the user's code in the traceback of an error, on one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(FOREIGN)]
    lines = [f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-FRAMES:]]
    return f" at {'; '.join(lines)}" if lines else ""
