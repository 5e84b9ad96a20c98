"""Defenses: values that change how the rounds of iterative pruning fine-tune."""

from collections.abc import Mapping
from dataclasses import fields
from inspect import isabstract
from typing import Any

from wemem.data.teachers import Teachers
from wemem.defenses.advreg import AdvReg
from wemem.defenses.base import Defense, Undefended
from wemem.defenses.batch import Batch
from wemem.defenses.capabilities import (
    AdversarialTraining,
    Capability,
    Distillation,
    FreshStart,
    OutputPostprocessing,
    OwnDenseModel,
    RecordRisk,
    RoundObservation,
)
from wemem.defenses.chain import Chain, chain
from wemem.defenses.clipping import Clipping
from wemem.defenses.distillation import OutOfSampleDistillation
from wemem.defenses.dp_sgd import DPSGD
from wemem.defenses.early_stopping import EarlyStopping
from wemem.defenses.hamp import HAMP
from wemem.defenses.inference_adversary import InferenceAdversary
from wemem.defenses.label_smoothing import LabelSmoothing
from wemem.defenses.memory_regularizer import MemoryRegularizer
from wemem.defenses.online import OnlineController
from wemem.defenses.ppb import PPB
from wemem.defenses.radd import RADD
from wemem.defenses.relaxloss import RelaxLoss
from wemem.defenses.sliding_window import SlidingWindow
from wemem.defenses.training_records import Observation, TrainingRecords
from wemem.errors import InputError
from wemem.resolve import did_you_mean, resolve
from wemem.settings import from_table

__all__ = [
    "DEFENSES",
    "DPSGD",
    "HAMP",
    "PPB",
    "RADD",
    "AdvReg",
    "AdversarialTraining",
    "Batch",
    "Capability",
    "Chain",
    "Clipping",
    "Defense",
    "Distillation",
    "EarlyStopping",
    "FreshStart",
    "InferenceAdversary",
    "LabelSmoothing",
    "MemoryRegularizer",
    "Observation",
    "OnlineController",
    "OutOfSampleDistillation",
    "OutputPostprocessing",
    "OwnDenseModel",
    "RecordRisk",
    "RelaxLoss",
    "RoundObservation",
    "SlidingWindow",
    "Teachers",
    "TrainingRecords",
    "Undefended",
    "chain",
    "make_defense",
]  # fmt: skip

#: Kinds that a study can name; ``a+b`` is a chain of two, ``package.module:Class`` a defense of the
#: user's.
DEFENSES: dict[str, type[Defense]] = {
    "undefended": Undefended,
    "rsw": SlidingWindow,
    "rmr": MemoryRegularizer,
    "oosd": OutOfSampleDistillation,
    "radd": RADD,
    "ppb": PPB,
    "advreg": AdvReg,
    "relaxloss": RelaxLoss,
    "hamp": HAMP,
    "label_smoothing": LabelSmoothing,
    "early_stopping": EarlyStopping,
    "dpsgd": DPSGD,
}

#: The paper's name for a chain.
CHAINS = {"swmr": "rsw+rmr"}


def make_defense(kind: str, settings: Mapping[str, Any] | None = None) -> Defense:
    """Make a defense from its kind and settings, as they stand in a study.

    Args:
        kind: a key of :data:`DEFENSES`, ``swmr``, several joined by ``+``, or
            ``package.module:Class``.
        settings: hyperparameters; in a chain each goes to the part that has a field of that name.

    Raises:
        InputError: an unknown kind or setting, or values the defense refuses.

    >>> make_defense("swmr", {"width": 15, "stride": 1, "top": 0.27}).settings["width"]
    15
    """
    classes = [_defense_class(part) for part in CHAINS.get(kind, kind).split("+")]
    settings = dict(settings or {})
    known = [name for cls in classes for name in _setting_names(cls)]
    for name in settings:
        if name not in known:
            listed, hint = ", ".join(known) or "none", did_you_mean(name, known)
            raise InputError(f"defense {kind!r} expected settings among {listed}, got {name!r}{hint}")
    parts = [{name: value for name, value in settings.items() if name in _setting_names(cls)} for cls in classes]
    return chain(*(from_table(cls, part, f"defense {kind!r}") for cls, part in zip(classes, parts, strict=True)))


def _setting_names(cls: type[Defense]) -> list[str]:
    return [f.name for f in fields(cls)]


def _defense_class(kind: str) -> type[Defense]:
    if ":" in kind:
        cls = resolve(kind)
        if not (isinstance(cls, type) and issubclass(cls, Defense)):
            raise InputError(f"expected {kind!r} to name a subclass of wemem.defenses.Defense, got {cls!r}")
        if isabstract(cls):
            raise InputError(f"expected {kind!r} to define {', '.join(cls.__abstractmethods__)}, got none")
        return cls
    if kind not in DEFENSES:
        known = [*DEFENSES, *CHAINS]
        listed, hint = ", ".join(known), did_you_mean(kind, known)
        raise InputError(f"expected a defense among {listed} or 'package.module:Class', got {kind!r}{hint}")
    return DEFENSES[kind]
