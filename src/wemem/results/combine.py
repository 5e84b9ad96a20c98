"""The ``--out`` folders of several studies of one data set, shown as if they were one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.results.arms import Arm, Run
from wemem.results.per_record import RunScores, read_scores
from wemem.results.read import read_results

Key = tuple[str, float, int]


@dataclass(frozen=True, eq=False)
class Source:
    """One folder.

    Args:
        name: the folder's, as short as tells it from the others.
        results: the content of its ``results.json``.
        scores: the scores of each of its runs.
    """

    name: str
    results: Mapping[str, Any]
    scores: Sequence[RunScores | None]


@dataclass(frozen=True, eq=False)
class Combined:
    """Several folders under labels that do not clash.

    Args:
        sources: the folders, in the order they were given.
        results: the results of all runs, in the form of ``results.json``; settings and environment are those of the
            first folder.
        scores: the scores by label, sparsity and seed, of the runs that stored any.
    """

    sources: tuple[Source, ...]
    results: Mapping[str, Any]
    scores: Mapping[Key, RunScores]

    def of(self, arm: Arm, attack: str) -> list[RunScores]:
        """The scores of an arm's runs that an attack was run on; none unless all of those stored them."""
        found = [self.scores.get(run_key(run)) for run in arm.runs if attack in run["attacks"]]
        known = [one for one in found if one is not None and attack in one.scores]
        return known if len(known) == len(found) else []


def read_sources(folders: Sequence[Path]) -> Combined:
    """Read the results and the stored scores of one or several folders.

    Folders of different data sets are refused, since no comparison between them means anything. A run that two
    folders share, such as the dense model of two studies that differ in their defenses, is shown once. Runs of one
    label and different seeds are seeds of one arm if the studies agree in all but seeds and defenses. Other runs of
    one label are told apart by the name of their folder, in brackets.

    Raises:
        InputError: no folder, one that is no study's, or different data sets.
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
    return combine([Source(name, results, read_scores(folder, results["runs"])) for name, folder, results in read])


def combine(sources: Sequence[Source]) -> Combined:
    """Sources of one data set as one.

    Raises:
        InputError: a label that was told apart is another's already.
    """
    clashing = {label for label in _labels(sources) if _clash(sources, label)}
    runs: dict[Key, Run] = {}
    scores: dict[Key, RunScores] = {}
    for source in sources:
        for run, found in zip(source.results["runs"], source.scores, strict=True):
            label = f"{run['label']} ({source.name})" if run["label"] in clashing else run["label"]
            named = {**run, "label": label}
            key = run_key(named)
            if key in runs and not _alike(runs[key], named):
                raise InputError(f"expected one run of {label!r} and seed {run['seed']}, got two; rename a folder")
            runs.setdefault(key, named)
            if found is not None:
                scores.setdefault(key, found)
    notes = dict.fromkeys(note for source in sources for note in source.results["notes"])
    results = {**sources[0].results, "notes": list(notes), "runs": list(runs.values())}
    return Combined(tuple(sources), results, scores)


def run_key(run: Run) -> Key:
    """The fields that identify a run within its results."""
    return run["label"], round(run["sparsity"], 3), run["seed"]


def _short(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or all of it where two would be the same."""
    last = [folder.resolve().name or str(folder) for folder in folders]
    names = [name if last.count(name) == 1 else str(folder) for name, folder in zip(last, folders, strict=True)]
    if len(set(names)) < len(names):
        raise InputError(f"expected different folders, got one twice: {', '.join(names)}; give each once")
    return names


def _labels(sources: Sequence[Source]) -> list[str]:
    return list(dict.fromkeys(run["label"] for source in sources for run in source.results["runs"]))


def _clash(sources: Sequence[Source], label: str) -> bool:
    """True if a label stands for different things in different folders."""
    first: dict[tuple[float, int], Run] = {}
    made: list[object] = []
    for source in sources:
        runs = [run for run in source.results["runs"] if run["label"] == label]
        if not runs:
            continue
        made.append((_recipe(source.results["study"]), *_definition(runs[0])))
        for run in runs:
            if not _alike(first.setdefault((round(run["sparsity"], 3), run["seed"]), run), run):
                return True
    return any(one != made[0] for one in made)


def _definition(run: Run) -> tuple[object, object]:
    """A defense with its settings, or a budget, for which every seed may have found others."""
    if "auto" in run:
        return run["auto"]["mode"], run["auto"]["budget"]
    return run["defense"], run["settings"]


def _recipe(study: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a study that concern all of its models."""
    return {key: value for key, value in study.items() if key not in ("name", "seeds", "defenses", "controls")}


def _alike(one: Run, other: Run) -> bool:
    """The same run but for the time that it took."""
    return _untimed(one) == _untimed(other)


def _untimed(run: Run) -> Run:
    kept = {name: value for name, value in run.items() if name not in ("seconds", "peak_memory_mib")}
    if "auto" in run:
        kept["auto"] = {name: value for name, value in run["auto"].items() if name != "seconds"}
    return kept
