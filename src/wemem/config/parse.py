"""A study from TOML, and back to a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wemem.attacks.channels import Adversary
from wemem.config.attack_entries import AttackEntry, read_attack_entries
from wemem.config.controls import CONTROLS, Control
from wemem.config.defense_entries import DefenseEntry, read_entries
from wemem.config.limits import require_within_limits
from wemem.config.override import override_key
from wemem.config.settings import (
    PruningSettings,
    ScoreSettings,
    SelectionSettings,
    SplitSettings,
    VictimSettings,
)
from wemem.config.study import COMPARED_SEEDS, StudyConfig
from wemem.data.sources import DataSource
from wemem.errors import InputError
from wemem.files.documents import read_toml
from wemem.models import CustomModel, make_model
from wemem.resolve import did_you_mean
from wemem.settings import from_table
from wemem.training import RECIPES, Recipe

#: Tables of a study file that are plain settings.
TABLES: Mapping[str, type] = {
    "split": SplitSettings,
    "scores": ScoreSettings,
    "training": Recipe,
    "pruning": PruningSettings,
    "selection": SelectionSettings,
}
SCALARS = (
    "name",
    "seeds",
    "attacks",
    "backend",
    "device",
    "non_adaptive",
    "leave_one_out",
    "canaries",
    "controls",
    "adversary",
)
#: Keys of earlier versions, and those that took their place.
RENAMED = {("split", "reference_scores"): "scores.drawn_from", ("victim", "lend"): "victim.adversary_share"}
KEYS = (*SCALARS, "data", "model", *TABLES, "finetune", "victim", "defenses")


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

    >>> study = parse_study({"data": {"source": "digits"}, "defenses": ["undefended", "rsw"]})
    >>> list(study.defenses), study.pruning.sparsities
    (['undefended', 'rsw'], (0.6,))
    """
    for key in table:
        if key not in KEYS:
            raise InputError(f"a study expected keys among {', '.join(KEYS)}, got {key!r}{did_you_mean(key, KEYS)}")
    tables = {key: table.get(key, {}) for key in ("data", "model", "finetune", "victim", *TABLES)}
    for key, value in tables.items():
        if not isinstance(value, Mapping):
            raise InputError(f"expected [{key}] to be a table, got {value!r}")
    tables.update({stage: _recipe_table(tables[stage], stage) for stage in ("training", "finetune")})
    for (name, key), new in RENAMED.items():
        if key in tables[name]:
            raise InputError(f"expected {new}, got {name}.{key}, its name in earlier versions; rename it")
    if "source" not in tables["data"]:
        raise InputError('a study expected [data] with a source, got none; add source = "digits" or a file')
    model = {"kind": "fc", **tables["model"]}
    if not isinstance(model["kind"], str):
        raise InputError(f"expected the kind of [model] to be a string, got {model['kind']!r}")
    attacks = read_attack_entries(table.get("attacks", "ten"))
    settings: dict[str, Any] = {key: from_table(cls, tables[key], f"[{key}]") for key, cls in TABLES.items()}
    victim = from_table(VictimSettings, tables["victim"], "[victim]") if "victim" in table else None
    scalars = from_table(_Scalars, {k: table[k] for k in SCALARS if k in table and k != "attacks"}, "a study")
    entries = read_entries(table.get("defenses", ["undefended", "rsw", "rmr", "swmr"]))
    require_within_limits({**table, "defenses": [dict(entry.table) for entry in entries]})
    study = StudyConfig(
        data=from_table(DataSource, tables["data"], "[data]"),
        model=make_model(model["kind"], {k: v for k, v in model.items() if k != "kind"}),
        defenses={entry.label: entry.candidates[0] for entry in entries if entry.budget is None},
        budgets={entry.label: entry.budget for entry in entries if entry.budget is not None},
        grids={entry.label: entry.candidates for entry in entries if "grid" in entry.table},
        references={entry.label: entry.references for entry in entries if entry.references is not None},
        attacks={entry.label: entry.attack for entry in attacks},
        finetune=from_table(Recipe, tables["finetune"], "[finetune]"),
        victim=victim,
        **{**asdict(scalars), "seeds": _seeds(scalars.seeds, entries)},
        **settings,
    )
    return replace(study, table=_as_table(study, table, attacks, entries))


def _seeds(given: tuple[int, ...] | None, entries: Sequence[DefenseEntry]) -> tuple[int, ...]:
    """The seeds of a study: those that it names, or else as many as a comparison takes."""
    if given is not None:
        return given
    return COMPARED_SEEDS if len(entries) > 1 else COMPARED_SEEDS[:1]


def _recipe_table(table: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The settings of the recipe that ``table`` names, and its own keys in place of them."""
    stated = dict(table)
    name = stated.pop("recipe", "paper")
    if not (isinstance(name, str) and name in RECIPES):
        raise InputError(f"expected recipe in [{stage}] to be {' or '.join(RECIPES)}, got {name!r}")
    return {**asdict(RECIPES[name][stage]), **stated}


@dataclass(frozen=True)
class _Scalars:
    name: str = "study"
    seeds: tuple[int, ...] | None = None
    backend: str = "auto"
    device: str = "auto"
    non_adaptive: bool = False
    leave_one_out: bool = False
    canaries: int = 0
    controls: tuple[Control, ...] = CONTROLS
    adversary: Adversary = "weights"


def _as_table(
    study: StudyConfig, given: Mapping[str, Any], attacks: Sequence[AttackEntry], entries: Sequence[DefenseEntry]
) -> dict[str, Any]:  # fmt: skip
    """Every setting of a study, defaults included, as JSON-able values that give the same study."""
    assert isinstance(study.data, DataSource)
    model: Mapping[str, Any] = vars(study.model)
    if isinstance(study.model, CustomModel):
        output = study.model.output
        model = {**study.model.arguments, **({} if output is None else {"output": output})}
    table = {
        "name": study.name,
        "seeds": list(study.seeds),
        "backend": study.backend,
        "device": study.device,
        "non_adaptive": study.non_adaptive,
        "leave_one_out": study.leave_one_out,
        "controls": list(study.controls),
        "adversary": study.adversary,
        "attacks": preset if isinstance(preset := given.get("attacks", "ten"), str) else [a.table for a in attacks],
        "data": study.data.table(),
        "model": {"kind": given.get("model", {}).get("kind", "fc"), **model},
        "defenses": [dict(entry.table) for entry in entries],
        **{key: asdict(getattr(study, key)) for key in (*TABLES, "finetune")},
        **({"victim": asdict(study.victim)} if study.victim else {}),
        # without canaries a study has the fingerprint that it had before there were any
        **({"canaries": study.canaries} if study.canaries else {}),
    }
    try:
        return dict(json.loads(json.dumps(table, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"expected finite numbers, strings, lists and tables in a study, got: {error}") from error
