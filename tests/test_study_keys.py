"""A study on a store that another study has used: everything that reads a changed setting is computed, nothing else is.

What is found in the store is then right, for it is what would be computed.
"""

from pathlib import Path
from typing import Any

import pytest

from small_study import table, without_times, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.pipeline.progress import Silent

SMALL: dict[str, Any] = {
    "attacks": ["confidence", "lira"],
    "defenses": ["rmr"],
    "model": {"kind": "fc", "hidden": [8]},
    "split": {"shadows": 1, "references": 4},
    "training": {"epochs": 1, "batch_size": 64},
    "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2},
}

#: The parts of a study: what their stages' titles begin with.
PARTS = {
    "dense": ("dense models",),
    "references": ("dense references",),
    "defender": ("defender subset models",),
    "shadow subsets": ("shadow 1 subset models", "shadow 2 subset models"),
    "reference subsets": tuple(f"reference {k} subset models" for k in range(1, 7)),
    "scores": (
        "defender scores",
        "shadow 1 scores",
        "shadow 2 scores",
        *(f"reference {k} scores" for k in range(1, 7)),
    ),
    "attacks on dense": ("query dense", "confidence on dense", "lira on dense"),
    "pruned": ("prune under", "prune references"),
    "attacks on pruned": ("query rmr", "confidence on rmr", "lira on rmr"),
}
SCORING = {"scores", "pruned", "attacks on pruned"}
PRUNING = {"pruned", "attacks on pruned"}

#: A changed setting, and the parts of the study that read it, directly or through another part.
CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "seed": ({"seeds": [1]}, set(PARTS)),
    "training": ({"training": {"epochs": 1, "batch_size": 32}}, set(PARTS)),
    "model": ({"model": {"kind": "fc", "hidden": [9]}}, set(PARTS)),
    "backend": ({"backend": "sequential"}, set(PARTS)),
    "train share": ({"split": SMALL["split"] | {"train": 0.5}}, set(PARTS)),
    "shadows": (
        {"split": SMALL["split"] | {"shadows": 2}},
        {"dense", "shadow subsets", "scores", "attacks on dense", *PRUNING},
    ),
    "references": (
        {"split": SMALL["split"] | {"references": 6}},
        {"references", "reference subsets", "scores", "attacks on dense", *PRUNING},
    ),
    "number of scoring models": (
        {"scores": {"models": 12}},
        {"defender", "shadow subsets", "reference subsets", *SCORING},
    ),
    "form of scores": ({"scores": {"models": 10, "form": "indicator"}}, SCORING),
    "fine-tuning": ({"finetune": {"epochs": 1, "batch_size": 32}}, PRUNING),
    "sparsity": ({"pruning": {"rounds": 2, "sparsity": 0.5}}, PRUNING),
    "criterion": ({"pruning": {"rounds": 2, "scope": "global", "method": "lamp"}}, PRUNING),
    "rewinding": ({"pruning": {"rounds": 2, "rewind": "initial"}}, PRUNING),
    "defense": ({"defenses": [{"kind": "rmr", "decay": 0.2}]}, PRUNING),
    "attack": (
        {"attacks": ["confidence", {"kind": "lira", "augmented": False}]},
        {"attacks on dense", "attacks on pruned"},
    ),
    "name": ({"name": "another"}, set()),
}


class Computed(Silent):
    """The titles of the stages that were computed."""

    def __init__(self):
        self.titles: set[str] = set()
        self.title = ""

    def begin(self, stage: str, work: float) -> None:
        self.title = stage

    def end(self, *, stored: bool) -> None:
        if not stored:
            self.titles.add(self.title)

    @property
    def parts(self) -> set[str]:
        return {part for part, begins in PARTS.items() if any(title.startswith(begins) for title in self.titles)}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("used")
    first = Computed()
    api.run(parse_study(table(write_data(folder), **SMALL)), folder / "out", folder / "store", first)
    assert first.parts == set(PARTS)
    assert all(title.startswith(sum(PARTS.values(), ())) for title in first.titles)
    return folder


@pytest.mark.parametrize(("change", "parts"), CHANGES.values(), ids=CHANGES)
def test_a_changed_setting_computes_what_reads_it_and_nothing_else(used, tmp_path, change, parts):
    again = Computed()
    api.run(parse_study(table(used / "data.npz", **(SMALL | change))), tmp_path / "out", used / "store", again)
    assert again.parts == parts


@pytest.mark.parametrize("name", ["references", "criterion", "attack"])
def test_results_from_a_used_store_are_those_from_an_empty_one(used, tmp_path, name):
    study = parse_study(table(used / "data.npz", **(SMALL | CHANGES[name][0])))
    found, computed = (
        api.run(study, tmp_path / f"{store.name}/out", store) for store in (used / "store", tmp_path / "empty")
    )
    assert without_times(found) == without_times(computed)
