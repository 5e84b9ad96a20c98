"""Results of several studies of one data set, combined into one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.files.hashing import file_sha256
from wemem.files.input_files import exists
from wemem.results.arms import Arm, Run
from wemem.results.folder import SAMPLES
from wemem.results.per_record import RunScores, read_scores
from wemem.results.read import read_results

Key = tuple[str, float, int]


@dataclass(frozen=True, eq=False)
class Source:
    """One folder of results.

    Args:
        name: the name of the folder, shortened as far as it stays unique.
        results: the content of ``results.json``.
        scores: the scores of each run; None for a run that stored none.
    """

    name: str
    results: Mapping[str, Any]
    scores: Sequence[RunScores | None]


@dataclass(frozen=True, eq=False)
class Combined:
    """Results of several folders under unique labels.

    Args:
        sources: the folders, in the order in which they were passed.
        results: the results of all runs, in the form of ``results.json``. Settings and environment
            are those of the first folder.
        scores: the scores of the runs that stored any, by label, sparsity and seed.
    """

    sources: tuple[Source, ...]
    results: Mapping[str, Any]
    scores: Mapping[Key, RunScores]

    def of(self, arm: Arm, attack: str) -> list[RunScores]:
        """Scores of an arm's runs that were attacked by ``attack``; none unless each of them has
        scores.
        """
        candidates = [self.scores.get(run_key(run)) for run in arm.runs if attack in run["attacks"]]
        known = [one for one in candidates if one is not None and attack in one.scores]
        return known if len(known) == len(candidates) else []


def read_sources(folders: Sequence[Path]) -> Combined:
    """Read the results and the stored scores of one or several folders.

    Folders of different data sets are refused, since they cannot be compared. A run that two
    folders share, such as the dense model of two studies with different defenses, is kept once.
    Runs of one label and different seeds become one arm if the studies differ in seeds and defenses
    alone. Other runs of one label get the name of their folder in brackets.

    Raises:
        InputError: no folder, a folder without results of a study, or different data sets.
    """
    if not folders:
        raise InputError(
            "expected at least one --out folder of a study, got none; give the folder that holds results.json"
        )
    names = _short(folders)
    read = [(name, folder, read_results(folder)) for name, folder in zip(names, folders, strict=True)]
    for name, _, results in read[1:]:
        if results["data"]["fingerprint"] != read[0][2]["data"]["fingerprint"]:
            of = (f"{r['data']['name']!r} in {n}" for n, r in ((names[0], read[0][2]), (name, results)))
            raise InputError(f"expected studies of one data set, got {' and '.join(of)}; make a report of each")
    for _, folder, results in read:
        _require_own_records(folder, results)
    return combine([Source(name, results, read_scores(folder, results["runs"])) for name, folder, results in read])


def _require_own_records(folder: Path, results: Mapping[str, Any]) -> None:
    """Refuse records that are not those that the results were written with."""
    digest, path = results.get("files", {}).get(SAMPLES), folder / SAMPLES
    if digest is not None and exists(path, "the records of a study") and file_sha256(path) != digest:
        raise InputError(
            f"expected {path} as the results beside it were written with, got another file; run the study again"
        )


def combine(sources: Sequence[Source]) -> Combined:
    """Combine sources of one data set.

    Raises:
        InputError: a label with the name of its folder is already the label of another run.
    """
    clashing = {label for label in _labels(sources) if _clash(sources, label)}
    runs: dict[Key, Run] = {}
    scores: dict[Key, RunScores] = {}
    for source in sources:
        for run, stored in zip(source.results["runs"], source.scores, strict=True):
            label = f"{run['label']} ({source.name})" if run["label"] in clashing else run["label"]
            named = {**run, "label": label}
            key = run_key(named)
            if key in runs and not _alike(runs[key], named):
                raise InputError(f"expected one run of {label!r} and seed {run['seed']}, got two; rename a folder")
            runs.setdefault(key, named)
            if stored is not None:
                scores.setdefault(key, stored)
    notes = [note for source in sources for note in source.results["notes"]]
    different = [note for i, note in enumerate(notes) if note not in notes[:i]]
    blind = [one for source in sources for one in source.results.get("blind_baseline", ())]
    results = {
        **sources[0].results,
        "notes": different,
        "blind_baseline": [one for i, one in enumerate(blind) if one not in blind[:i]],
        "runs": list(runs.values()),
    }
    return Combined(tuple(sources), results, scores)


def run_key(run: Run) -> Key:
    """The fields that identify a run within its results."""
    return run["label"], round(run["sparsity"], 3), run["seed"]


def _short(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path where two last parts are equal."""
    last = [_resolved(folder).name or str(folder) for folder in folders]
    names = [name if last.count(name) == 1 else str(folder) for name, folder in zip(last, folders, strict=True)]
    if len(set(names)) < len(names):
        raise InputError(f"expected different folders, got one twice: {', '.join(names)}; give each once")
    return names


def _resolved(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError):  # a loop of links, or a folder that may not be entered
        return folder.absolute()


def _labels(sources: Sequence[Source]) -> list[str]:
    return list(dict.fromkeys(run["label"] for source in sources for run in source.results["runs"]))


def _clash(sources: Sequence[Source], label: str) -> bool:
    """True if a label stands for different defenses or recipes in different folders."""
    first: dict[tuple[float, int], Run] = {}
    definitions: list[object] = []
    for source in sources:
        runs = [run for run in source.results["runs"] if run["label"] == label]
        if not runs:
            continue
        definitions.append((_recipe(source.results["study"]), *_definition(runs[0])))
        for run in runs:
            if not _alike(first.setdefault((round(run["sparsity"], 3), run["seed"]), run), run):
                return True
    return any(one != definitions[0] for one in definitions)


def _definition(run: Run) -> tuple[object, object]:
    """The defense with its settings, or the budget where the settings were searched for each seed."""
    if "auto" in run:
        return run["auto"]["mode"], run["auto"]["budget"]
    return run["defense"], run["settings"]


def _recipe(study: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a study that apply to all of its models."""
    return {key: value for key, value in study.items() if key not in ("name", "seeds", "defenses", "controls")}


def _alike(one: Run, other: Run) -> bool:
    """True if two runs are equal in all but times and memory."""
    return _untimed(one) == _untimed(other)


def _untimed(run: Run) -> Run:
    rest = {name: value for name, value in run.items() if name not in ("seconds", "peak_memory_mib")}
    if "auto" in run:
        rest["auto"] = {name: value for name, value in run["auto"].items() if name != "seconds"}
    return rest
