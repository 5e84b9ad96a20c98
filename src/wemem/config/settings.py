"""The plain tables of a study: numbers of models, shares, and how models are pruned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wemem.data.split import require_shares
from wemem.errors import InputError
from wemem.memorization import Form
from wemem.pruning import LayerChoice, Pruning, Schedule, make_criterion
from wemem.pruning.iterate import Rewind
from wemem.pruning.masks import Scope
from wemem.pruning.schedule import ScheduleKind
from wemem.training import FINETUNE, Recipe


def require_different(what: str, values: Sequence[float | str]) -> None:
    """Refuse a value that is named twice.

    Raises:
        InputError: a value occurs more than once.
    """
    if len(set(values)) < len(values):
        raise InputError(f"expected different {what}, got {list(values)}; name each once")


@dataclass(frozen=True)
class SplitSettings:
    """The table ``[split]``.

    Args:
        shadows: number of shadow models, trained as the victim on the adversary's half.
        train: share of a half that a model trains on.
        dev: share of a half for early stopping. The rest are the model's audited non-members.
        references: number of models on random halves of the audited records, for LiRA and RMIA; an
            even number. If None, the study decides
            (:attr:`~wemem.config.study.StudyConfig.reference_models`).
    """

    shadows: int = 5
    train: float = 0.6
    dev: float = 0.1
    references: int | None = None

    def __post_init__(self) -> None:
        require_shares(self.shadows, self.train, self.dev)


@dataclass(frozen=True)
class ScoreSettings:
    """The table ``[scores]``: the estimation of memorization scores, for defenses that read them.

    Args:
        models: number of subset models that score the records of one model.
        fraction: share of a model's number of training records that a subset model trains on.
        form: average the true class's ``probability`` or the ``indicator`` of a right prediction.
        file: the defender's scores from a ``.csv`` or ``.parquet`` file instead.
        drawn_from: the records of which the subset models of shadows and reference models see
            subsets. ``own``: the training records of the scored model alone, as for the victim.
            ``pool``: for all shadows the adversary's records, and for all reference models the
            audited records, at a fraction of the cost; the audit then is not adaptive.
    """

    models: int = 40
    fraction: float = 0.7
    form: Form = "probability"
    file: str | None = None
    drawn_from: Literal["own", "pool"] = "own"

    def __post_init__(self) -> None:
        if self.drawn_from not in ("own", "pool"):
            raise InputError(f"drawn_from must be own or pool, got {self.drawn_from!r}")
        if self.models < 2:
            raise InputError(f"models must be at least 2, got {self.models}; scores compare with and without a record")
        if not 0 < self.fraction < 1:
            raise InputError(f"fraction must be in (0, 1), got {self.fraction}")

    @property
    def as_victim(self) -> bool:
        """True if shadows and reference models are scored exactly as the victim is.

        Scores from a file may have been estimated in any way.
        """
        return self.drawn_from == "own" and self.file is None


@dataclass(frozen=True)
class VictimSettings:
    """The table ``[victim]``: a given model, in place of one that the study trains.

    Args:
        weights: its ``.safetensors`` file.
        members: a ``.csv`` or ``.parquet`` file with a column ``record``, or an ``.npz`` with an
            array ``members``: the indices of the records that it was trained on.
        adversary_share: share of the members that the adversary gets as data of its own, for
            victims that were trained on most of the records. These members are not audited.
    """

    weights: str
    members: str
    adversary_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.adversary_share < 1:
            raise InputError(f"adversary_share must be in [0, 1), got {self.adversary_share}")


@dataclass(frozen=True)
class PruningSettings:
    """The table ``[pruning]``.

    Args:
        sparsity: one or several target sparsities.
        rounds: rounds of pruning and fine-tuning.
        schedule: ``geometric``, ``cubic``, ``linear`` or ``one_shot``.
        scope: ``layer`` or ``global``.
        rewind: ``none`` or ``initial``.
        method: a criterion by its name (:data:`~wemem.pruning.CRITERIA`) or ``module:Class``, or a
            table of its ``kind`` and settings.
        classifier: name of the layer that gives the logits, if the forward pass does not show it.
        ignored_layers: names of layers that stay whole.
        embeddings: also prune embedding tables.
    """

    sparsity: float | tuple[float, ...] = 0.6
    rounds: int = 5
    schedule: ScheduleKind = "geometric"
    scope: Scope = "layer"
    rewind: Rewind = "none"
    method: str | dict[str, Any] = "magnitude"
    classifier: str | None = None
    ignored_layers: tuple[str, ...] = ()
    embeddings: bool = False

    def __post_init__(self) -> None:
        if not self.sparsities:
            raise InputError("sparsity expected one or more values, got none")
        require_different("sparsities", self.sparsities)
        for sparsity in self.sparsities:
            self.to(sparsity, FINETUNE)

    @property
    def sparsities(self) -> tuple[float, ...]:
        """All targets."""
        return self.sparsity if isinstance(self.sparsity, tuple) else (self.sparsity,)

    def to(self, sparsity: float, recipe: Recipe) -> Pruning:
        """The pruning to one of the targets."""
        return Pruning(
            Schedule(sparsity, self.rounds, self.schedule), self.scope, recipe, self.rewind,
            make_criterion(self.method), LayerChoice(self.classifier, self.ignored_layers, self.embeddings),
        )  # fmt: skip


@dataclass(frozen=True)
class SelectionSettings:
    """The table ``[selection]``: the rule that chooses one setting from a grid.

    Args:
        max_accuracy_drop: the loss of dev accuracy that a setting may cost, as a fraction. Of the
            settings that cost no more, the one with the lowest ``dev_auc`` is chosen.
    """

    max_accuracy_drop: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_accuracy_drop <= 1:
            raise InputError(f"max_accuracy_drop must be in [0, 1], got {self.max_accuracy_drop}; 0.01 is one point")
