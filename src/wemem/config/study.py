"""A study as a value, and TOML to and from it."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from wemem.attacks.base import Attack
from wemem.config.attack_entries import AttackEntry, read_attack_entries
from wemem.config.budget import Budget
from wemem.config.controls import CONTROLS, Control, control_schedule
from wemem.config.defense_entries import DefenseEntry, read_entries
from wemem.data.sources import DataSource
from wemem.data.split import require_shares
from wemem.defenses import Defense, Undefended
from wemem.errors import InputError
from wemem.files.documents import parse_toml, read_toml
from wemem.memorization import Form
from wemem.models import CustomModel, Model, make_model
from wemem.pruning import LayerChoice, Pruning, Schedule, make_criterion
from wemem.pruning.iterate import Rewind
from wemem.pruning.masks import Scope
from wemem.pruning.schedule import ScheduleKind
from wemem.resolve import did_you_mean
from wemem.settings import from_table
from wemem.signals import SignalLayout
from wemem.store.fingerprint import spelled
from wemem.training import DENSE, FINETUNE, Recipe, choose_device


def require_different(what: str, values: Sequence[float | str]) -> None:
    """Refuse to do the same twice.

    Raises:
        InputError: a value stands there more than once.
    """
    if len(set(values)) < len(values):
        raise InputError(f"expected different {what}, got {list(values)}; name each once")


@dataclass(frozen=True)
class SplitSettings:
    """The table ``[split]``.

    Args:
        shadows: shadow models, made as the victim was, from the adversary's half of the records.
        train: share of a half that a model trains on.
        dev: share of a half for early stopping; the rest are its audited non-members.
        references: models on random halves of the audited records, for attacks that need them (LiRA, RMIA); even.
    """

    shadows: int = 5
    train: float = 0.6
    dev: float = 0.1
    references: int = 16

    def __post_init__(self) -> None:
        require_shares(self.shadows, self.train, self.dev)


@dataclass(frozen=True)
class ScoreSettings:
    """The table ``[scores]``: how each party estimates memorization scores of its own records.

    Args:
        models: subset models of a party.
        fraction: share of the victim's number of training records that a subset model trains on.
        form: average the true class's ``probability`` or the ``indicator`` of a right prediction.
        file: the defender's scores from a ``.csv`` or ``.parquet`` file instead.
    """

    models: int = 40
    fraction: float = 0.7
    form: Form = "probability"
    file: str | None = None

    def __post_init__(self) -> None:
        if self.models < 2:
            raise InputError(f"models must be at least 2, got {self.models}; scores compare with and without a record")
        if not 0 < self.fraction < 1:
            raise InputError(f"fraction must be in (0, 1), got {self.fraction}")


@dataclass(frozen=True)
class VictimSettings:
    """The table ``[victim]``: a model that exists already, in place of one the study trains.

    Args:
        weights: its ``.safetensors`` file.
        members: a ``.csv`` or ``.parquet`` file with a column ``record``, or an ``.npz`` with an array ``members``: the
            indices of the records it was trained on.
        adversary_share: share of the members that the adversary gets as data of its own; they are then not audited. For
            victims
            that were trained on most of the records there are.
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
        method: a criterion by its name (:data:`~wemem.pruning.CRITERIA`) or ``module:Class``, or a table of its
            ``kind`` and settings.
        classifier: name of the layer that gives the logits, where the forward pass does not show it.
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
        """How to prune to one of the targets."""
        return Pruning(
            Schedule(sparsity, self.rounds, self.schedule), self.scope, recipe, self.rewind,
            make_criterion(self.method), LayerChoice(self.classifier, self.ignored_layers, self.embeddings),
        )  # fmt: skip


@dataclass(frozen=True)
class SelectionSettings:
    """The table ``[selection]``: how one setting is chosen from a grid, by the same rule for every kind of defense.

    Args:
        max_accuracy_drop: dev accuracy below undefended's that a setting may cost, as a fraction; of those that cost no
            more, the one that leaks least by ``dev_auc`` is chosen.
    """

    max_accuracy_drop: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_accuracy_drop <= 1:
            raise InputError(f"max_accuracy_drop must be in [0, 1], got {self.max_accuracy_drop}; 0.01 is one point")


@dataclass(frozen=True)
class StudyConfig:
    """Everything that determines a study's results, apart from the machine.

    Args:
        data: where the records come from.
        model: the architecture.
        defenses: each with a label that is unique in the study; where it is to be selected from a grid, its first
            setting.
        budgets: by label, the budgets for which a defense is found.
        attacks: by label, the attacks that audit each of them.
        seeds: one whole repetition per seed.
        name: of the study.
        backend: ``auto``, ``vmapped`` or ``sequential``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        non_adaptive: also report the adversary whose shadows were pruned without the defense.
        leave_one_out: also attack every reference model in turn, for attacks that use them.
        controls: the undefended arms that stand beside the defenses (:mod:`wemem.config.controls`).
        grids: by label, the settings of which one is to be selected.
        references: by label, how many reference models, where that is not the number of ``split``.
        split, scores, training, pruning, finetune, selection, victim: the tables of those names.
        table: the study as plain JSON-able values, for results.
    """

    data: DataSource
    model: Model
    defenses: Mapping[str, Defense]
    attacks: Mapping[str, Attack]
    seeds: tuple[int, ...] = (0,)
    name: str = "study"
    backend: str = "auto"
    device: str = "auto"
    non_adaptive: bool = False
    leave_one_out: bool = False
    controls: tuple[Control, ...] = CONTROLS
    split: SplitSettings = SplitSettings()
    scores: ScoreSettings = ScoreSettings()
    training: Recipe = DENSE
    pruning: PruningSettings = PruningSettings()
    finetune: Recipe = FINETUNE
    selection: SelectionSettings = SelectionSettings()
    grids: Mapping[str, tuple[Defense, ...]] = field(default_factory=dict)
    references: Mapping[str, int] = field(default_factory=dict)
    victim: VictimSettings | None = None
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.labels:
            raise InputError('a study needs at least one defense, got none; add [[defenses]] with kind = "undefended"')
        if not self.seeds:
            raise InputError("a study needs at least one seed, got none")
        require_different("seeds", self.seeds)
        require_different("controls", self.controls)
        for control in self.controls:
            if control in self.labels:
                raise InputError(
                    f"expected no defense labelled {control!r} beside the control of that name, got one; give it "
                    "another label, or leave the control out of controls"
                )
        if self.backend not in ("auto", "vmapped", "sequential"):
            raise InputError(f"backend must be auto, vmapped or sequential, got {self.backend!r}")
        choose_device(self.device)
        # the sources of a user's own parts are read now that they were imported, not when they may have been edited
        spelled([self.model, *self.every_defense, *self.attacks.values()])

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all arms: the defenses, and after them the budgets."""
        return (*self.defenses, *self.budgets)

    @property
    def known_defenses(self) -> dict[str, Defense]:
        """Defenses of all arms but those whose settings are searched for, by label."""
        steered = {label: budget.controller() for label, budget in self.budgets.items() if not budget.searches}
        return {**self.defenses, **steered}

    @property
    def every_defense(self) -> tuple[Defense, ...]:
        """All defenses that are known before training, with all settings of the grids."""
        return (*self.known_defenses.values(), *(defense for grid in self.grids.values() for defense in grid))

    @property
    def searches(self) -> bool:
        """True if the settings of a defense are searched for."""
        return any(budget.searches for budget in self.budgets.values())

    @property
    def needs_scores(self) -> bool:
        """True if memorization scores are needed: a defense reads them, or a search may choose one that does."""
        return self.searches or any(defense.needs_scores for defense in self.every_defense)

    def uses(self, layout: SignalLayout) -> bool:
        """True if an attack of the study works on signals of a layout."""
        return any(attack.layout == layout for attack in self.attacks.values())

    @property
    def prunings(self) -> tuple[Pruning, ...]:
        """How the models of a defense are pruned, to each of the target sparsities."""
        return tuple(self.pruning.to(sparsity, self.finetune) for sparsity in self.pruning.sparsities)

    @cached_property
    def arms(self) -> Sequence[tuple[str, Pruning]]:
        """The label and pruning of every arm, in the order in which they run: controls first, then the defenses."""
        arms: list[tuple[str, Pruning]] = []
        for pruning in self.prunings:
            for control in self.controls:
                schedule = control_schedule(control, pruning.schedule)
                if schedule is not None and (arm := (control, replace(pruning, schedule=schedule))) not in arms:
                    arms.append(arm)
            arms += [(label, pruning) for label in self.labels]
        return arms

    def prunings_of(self, label: str) -> list[Pruning]:
        """How the models of one arm are pruned, once or to each of several sparsities."""
        return [pruning for name, pruning in self.arms if name == label]

    def defense_of(self, label: str) -> Defense:
        """The defense of an arm; none for a control, or while a search has yet to find it."""
        return self.known_defenses.get(label, Undefended())

    def references_of(self, label: str) -> int:
        """The number of reference models that attack an arm; as many as any arm's for the dense model.

        Controls are attacked by as many as undefended pruning, which they are compared with.
        """
        if label == "dense":
            return max(self.references_of(other) for other in self.labels)
        label = "undefended" if label in self.controls else label
        return self.references.get(label, self.split.references)


#: Tables of a study file that are plain settings.
_TABLES: Mapping[str, type] = {
    "split": SplitSettings,
    "scores": ScoreSettings,
    "training": Recipe,
    "pruning": PruningSettings,
    "selection": SelectionSettings,
}
_SCALARS = ("name", "seeds", "attacks", "backend", "device", "non_adaptive", "leave_one_out", "controls")
_KEYS = (*_SCALARS, "data", "model", *_TABLES, "finetune", "victim", "defenses")


def read_table(path: Path) -> dict[str, Any]:
    """The table of a TOML file; paths in it are relative to the working directory.

    Raises:
        InputError: what :func:`~wemem.files.documents.read_toml` refuses.
    """
    return read_toml(path, "a study file")


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """A study from a TOML file, with some keys set anew (:func:`override_key`)."""
    table = read_table(path)
    for override in overrides:
        override_key(table, override)
    return parse_study(table)


def parse_study(table: Mapping[str, Any]) -> StudyConfig:
    """A study from the table that TOML gives.

    Raises:
        InputError: an unknown key, a value out of range, an unknown defense or attack.

    >>> study = parse_study({"data": {"source": "digits"}, "attacks": "threshold", "defenses": ["undefended", "rsw"]})
    >>> list(study.defenses), study.pruning.sparsities
    (['undefended', 'rsw'], (0.6,))
    """
    for key in table:
        if key not in _KEYS:
            raise InputError(f"a study expected keys among {', '.join(_KEYS)}, got {key!r}{did_you_mean(key, _KEYS)}")
    tables = {key: table.get(key, {}) for key in ("data", "model", "finetune", "victim", *_TABLES)}
    for key, value in tables.items():
        if not isinstance(value, Mapping):
            raise InputError(f"expected [{key}] to be a table, got {value!r}")
    if "source" not in tables["data"]:
        raise InputError('a study expected [data] with a source, got none; add source = "digits" or a file')
    model = {"kind": "fc", **tables["model"]}
    if not isinstance(model["kind"], str):
        raise InputError(f"expected the kind of [model] to be a string, got {model['kind']!r}")
    attacks = read_attack_entries(table.get("attacks", "ten"))
    settings: dict[str, Any] = {key: from_table(cls, tables[key], f"[{key}]") for key, cls in _TABLES.items()}
    victim = from_table(VictimSettings, tables["victim"], "[victim]") if "victim" in table else None
    scalars = from_table(_Scalars, {k: table[k] for k in _SCALARS if k in table and k != "attacks"}, "a study")
    entries = read_entries(table.get("defenses", ["undefended", "rsw", "rmr", "swmr"]))
    study = StudyConfig(
        data=from_table(DataSource, tables["data"], "[data]"),
        model=make_model(model["kind"], {k: v for k, v in model.items() if k != "kind"}),
        defenses={entry.label: entry.candidates[0] for entry in entries if entry.budget is None},
        budgets={entry.label: entry.budget for entry in entries if entry.budget is not None},
        grids={entry.label: entry.candidates for entry in entries if "grid" in entry.table},
        references={entry.label: entry.references for entry in entries if entry.references is not None},
        attacks={entry.label: entry.attack for entry in attacks},
        finetune=from_table(Recipe, {"epochs": FINETUNE.epochs, **tables["finetune"]}, "[finetune]"),
        victim=victim,
        **asdict(scalars),
        **settings,
    )
    return replace(study, table=_as_table(study, table, attacks, entries))


@dataclass(frozen=True)
class _Scalars:
    name: str = "study"
    seeds: tuple[int, ...] = (0,)
    backend: str = "auto"
    device: str = "auto"
    non_adaptive: bool = False
    leave_one_out: bool = False
    controls: tuple[Control, ...] = CONTROLS


def override_key(table: dict[str, Any], override: str) -> None:
    """Set one key of a study's table.

    Args:
        table: changed in place.
        override: ``key=value`` with dotted keys (``finetune.epochs=5``, ``defenses.1.width=0.5``) and a TOML value;
            what is not TOML is taken as text.

    Raises:
        InputError: not of that form, or no such place in the table.

    >>> table = {"finetune": {"epochs": 21}}
    >>> override_key(table, "finetune.epochs=5"); table
    {'finetune': {'epochs': 5}}
    """
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise InputError(f"expected --set key=value, got {override!r}")
    try:
        value = parse_toml(f"value = {text}", f"--set {path[:50]}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = path.strip().split(".")
    node: Any = table
    for part in parents:
        node = node[_index(node, part, path)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise InputError(f"--set {path}: expected {part!r} to be a table, got {node!r}")
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    else:
        node[last] = value


def _index(node: list[Any], part: str, path: str) -> int:
    if not (part.isdecimal() and int(part) < len(node)):
        raise InputError(f"--set {path}: expected an index 0..{len(node) - 1}, got {part!r}")
    return int(part)


def _as_table(
    study: StudyConfig, given: Mapping[str, Any], attacks: Sequence[AttackEntry], entries: Sequence[DefenseEntry]
) -> dict[str, Any]:  # fmt: skip
    """The study with every default spelled out, as plain JSON-able values that give the same study again."""
    own: Mapping[str, Any] = vars(study.model)
    if isinstance(study.model, CustomModel):
        output = study.model.output
        own = {**study.model.arguments, **({} if output is None else {"output": output})}
    table = {
        "name": study.name,
        "seeds": list(study.seeds),
        "backend": study.backend,
        "device": study.device,
        "non_adaptive": study.non_adaptive,
        "leave_one_out": study.leave_one_out,
        "controls": list(study.controls),
        "attacks": preset if isinstance(preset := given.get("attacks", "ten"), str) else [a.table for a in attacks],
        "data": asdict(study.data),
        "model": {"kind": given.get("model", {}).get("kind", "fc"), **own},
        "defenses": [dict(entry.table) for entry in entries],
        **{key: asdict(getattr(study, key)) for key in (*_TABLES, "finetune")},
        **({"victim": asdict(study.victim)} if study.victim else {}),
    }
    try:
        return dict(json.loads(json.dumps(table, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"expected finite numbers, strings, lists and tables in a study, got: {error}") from error
