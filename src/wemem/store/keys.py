"""Keys: for every stage whose result is stored, a frozen value with everything that the stage
reads.

The key of a result is the SHA-256 of that value, of the code that computes, and of the versions of
its libraries. A value carries the settings objects themselves, so that a new field of theirs
counts. Where a stage reads the result of another, the value carries that stage's key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from wemem.attacks.base import Attack
from wemem.data.teachers import Teachers
from wemem.defenses import Defense
from wemem.memorization import Form
from wemem.models import Model
from wemem.pruning import Criterion, Pruning
from wemem.store.key import Key, StageKey
from wemem.training import Recipe


@dataclass(frozen=True)
class Architecture:
    """A model, with the behavior of a user's own.

    Args:
        model: as the study names it.
        behavior: its tensors and outputs (:func:`~wemem.store.behavior.behavior_fingerprint`); None
            for a model of this package.
    """

    model: Model
    behavior: str | None


@dataclass(frozen=True)
class EnsembleInputs:
    """Settings and records that every training of an ensemble reads.

    Args:
        architecture: of the models.
        data: fingerprint of the data set.
        split: fingerprint of the roles of the records.
        seeds: one per model.
        backend: how models are trained together.
        device: kind of the device.
    """

    architecture: Architecture
    data: str
    split: str
    seeds: tuple[int, ...]
    backend: str
    device: str


@dataclass(frozen=True)
class DenseKey(StageKey):
    """Training of unpruned models."""

    stage = "dense"
    ensemble: EnsembleInputs
    recipe: Recipe


@dataclass(frozen=True)
class UntrainedKey(StageKey):
    """Initialization of models."""

    stage = "untrained"
    architecture: Architecture
    data: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ScoresKey(StageKey):
    """Memorization scores from subset models."""

    stage = "scores"
    subset_models: tuple[Key, ...]
    split: str
    form: Form


@dataclass(frozen=True)
class ScoreFileKey(StageKey):
    """Memorization scores from a file: one per record, None where there is none."""

    stage = "score_file"
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class DenseTargetsKey(StageKey):
    """Soft targets by the dense models, each for its own train records."""

    stage = "teacher_log_probs"
    dense: Key
    data: str
    split: str
    device: str


@dataclass(frozen=True)
class TeacherTargetsKey(StageKey):
    """Soft targets by teachers that did not train on a record."""

    stage = "teacher_log_probs"
    teachers: tuple[Key, ...]
    data: str
    split: str
    source: Teachers


@dataclass(frozen=True)
class RoundKey(StageKey):
    """One round of pruning and fine-tuning.

    Args:
        before: key of the round before, or of the models at the start.
        sparsity: of this round.
        rules: every field of the pruning but its schedule.
        defense: changes the fine-tuning.
        scores: keys of each model's memorization scores, None where it has none.
        soft_targets: key of the teachers' predictions.
        ensemble: the models.
    """

    stage = "round"
    before: Key
    sparsity: float
    rules: Mapping[str, Any]
    defense: Defense
    scores: tuple[Key | None, ...]
    soft_targets: Key | None
    ensemble: EnsembleInputs

    @property
    def libraries(self) -> Sequence[str]:
        return libraries_of(self.rules)


@dataclass(frozen=True)
class VictimKey(StageKey):
    """A given model by its weights, alone or with shadows behind it."""

    stage = "victim"
    architecture: Architecture
    weights: str
    shadows: Key | None


@dataclass(frozen=True)
class ShippedVictimKey(StageKey):
    """A given ONNX file with shadows behind it."""

    stage = "victim"
    onnx: str
    runtime: str
    shadows: Key


@dataclass(frozen=True)
class SelectionKey(StageKey):
    """Some of the models of an ensemble, by their places."""

    stage = "selection"
    models: Key
    places: tuple[int, ...]


@dataclass(frozen=True)
class SwappedKey(StageKey):
    """The victim of one stage with the shadows of another."""

    stage = "swapped"
    victim: Key
    shadows: Key


@dataclass(frozen=True)
class SignalsKey(StageKey):
    """Queries of a stage's models on some records.

    Args:
        models: key of the stage.
        data: fingerprint of the data set.
        records: numbers of the records.
        required_signals: sorted names of the extra signals.
        seed: of the queries.
        device: kind of the device.
        defense: the one that alters answers, or None.
        turn: number of the models queried with one seed, where answers are altered.
    """

    stage = "signals"
    models: Key
    data: str
    records: tuple[int, ...]
    required_signals: tuple[str, ...]
    seed: int
    device: str
    defense: Defense | None
    turn: int | None


@dataclass(frozen=True)
class DisjointSignalsKey(StageKey):
    """Signals of a victim and its shadows."""

    stage = "disjoint_signals"
    parts: tuple[Key, ...]
    split: str


@dataclass(frozen=True)
class SharedSignalsKey(StageKey):
    """Signals of a victim and the reference models.

    Args:
        parts: keys of the queries, one per stage.
        splits: fingerprints of the roles of the victim and the reference models.
    """

    stage = "shared_signals"
    parts: tuple[Key, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True)
class AttackKey(StageKey):
    """One attack on the victim."""

    stage = "attack"
    signals: Key
    attack: Attack
    seed: int


@dataclass(frozen=True)
class LeaveOneOutKey(StageKey):
    """One attack on every model of an ensemble, leave-one-out."""

    stage = "leave_one_out"
    signals: Key
    attack: Attack
    seed: int
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class CanaryKey(LeaveOneOutKey):
    """One attack on the canaries of every model; their records are those of the signals."""

    stage = "canaries"


@dataclass(frozen=True)
class FunctionKey(StageKey):
    """Outputs of a model that a user's own function trains.

    Args:
        function: ``module:function``.
        source: fingerprint of the user's sources behind it.
        data: fingerprint of the data set.
        split: fingerprint of the roles of the records.
        model: row of the model in those roles.
        seed: seed of the model.
    """

    stage = "black_box"
    function: str
    source: str
    data: str
    split: str
    model: int
    seed: int


@dataclass(frozen=True)
class PanelKey(StageKey):
    """The models of a search: the victim, where it takes part, and the defender's own."""

    stage = "panel"
    victim: Key | None
    models: tuple[Key, ...]
    scores: Key
    count: int


@dataclass(frozen=True)
class FiguresKey(StageKey):
    """Accuracy and leakage of a panel's models, pruned under a setting.

    Args:
        panel: key of the models.
        models: number of them that take part.
        pruning: schedule and recipe.
        defense: the setting.
        training: recipe of the models that a defense trains beforehand.
        ensemble: the models.
        attacks: by reference models, beside the confidence.
        fpr: of the true positive rates.
        seed: of the attacks.
        evaluated: indices of the records that accuracy and leakage are measured on.
    """

    stage = "auto_figures"
    panel: Key
    models: int
    pruning: Pruning
    defense: Defense
    training: Recipe
    ensemble: EnsembleInputs
    attacks: tuple[Attack, ...]
    fpr: float
    seed: int
    evaluated: tuple[int, ...]

    @property
    def libraries(self) -> Sequence[str]:
        return libraries_of(vars(self.pruning))


@dataclass(frozen=True)
class SearchKey(StageKey):
    """One step of a search for settings.

    Args:
        step: quick looks at many settings, or full audits of a few.
        panel: key of the models.
        models: number of them that take part.
        pruning: schedule and recipe.
        candidates: families of defenses that are looked at, or the settings that are audited.
        at_fpr: of the true positive rates.
        seed: of the search.
    """

    stage = "auto_search"
    step: Literal["try", "audit"]
    panel: Key
    models: int
    pruning: Pruning
    candidates: Sequence[Any]
    at_fpr: float
    seed: int

    @property
    def libraries(self) -> Sequence[str]:
        return ("optuna", *libraries_of(vars(self.pruning)))


@dataclass(frozen=True)
class SearchedKey(StageKey):
    """A search for a defense, whose steps are stored under keys of their own."""

    stage = "auto_searched"
    dense: Key
    budget: Any
    pruning: Pruning
    training: Recipe
    ensemble: EnsembleInputs

    @property
    def libraries(self) -> Sequence[str]:
        return ("optuna", *libraries_of(vars(self.pruning)))


def rules_of(pruning: Pruning) -> dict[str, Any]:
    """Every field of a pruning but its schedule, whose sparsities the keys of its rounds name one
    by one.
    """
    return {field.name: getattr(pruning, field.name) for field in fields(pruning) if field.name != "schedule"}


def libraries_of(rules: Mapping[str, Any]) -> Sequence[str]:
    """Distributions that take part in pruning, as the criterion names them."""
    criterion: Criterion = rules["criterion"]
    return criterion.packages
