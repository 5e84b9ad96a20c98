"""``results.json`` read back, by those who did not write it: checked against the schema before anything is believed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from wemem.errors import InputError
from wemem.files.documents import read_json
from wemem.results.schema import results_schema


def read_results(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``results.json``.

    Raises:
        InputError: no such file, over 16 MiB, not JSON, not of the schema, or at odds with itself: an interval with its
            ends swapped, a strongest attack that was not run, one run twice.
    """
    path = folder / "results.json"
    remedy = "give the --out folder of a study or an audit"
    try:
        found = read_json(path, "results")
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from error
    wrong = next(faults(found), None)
    if wrong is not None:
        raise InputError(
            f"expected results of schema wemem.results/1 in {path}, got a file that is not: {wrong}; {remedy}"
        )
    return dict(found)


def faults(results: object) -> Iterator[str]:
    """What in a value is not as the schema of results has it, or contradicts itself; nothing if all is well.

    >>> next(faults([]))
    "$: [] is not of type 'object'"
    """
    wrong = False
    for error in Draft202012Validator(results_schema()).iter_errors(results):
        wrong = True
        # a message can hold the whole value that is wrong
        yield f"{error.json_path}: {error.message[:100]}"
    if not wrong and isinstance(results, dict):
        yield from _contradictions(results["runs"])


def _contradictions(runs: list[dict[str, Any]]) -> Iterator[str]:
    """What no schema can say."""
    seen = set()
    for i, run in enumerate(runs):
        where, key = f"runs[{i}]", (run["label"], round(run["sparsity"], 3), run["seed"])
        if key in seen:
            yield f"{where} has the label, sparsity and seed of another"
        seen.add(key)
        for metric, worst in run["worst"].items():
            if worst["attack"] not in run["attacks"]:
                yield f"{where}.worst.{metric} names an attack that was not run"
        ends = [run["accuracy"]["test_ci"], *(worst["ci"] for worst in run["worst"].values())]
        for audit in run["attacks"].values():
            ends += [audit["balanced_accuracy_ci"], audit["auc_ci"], *audit["tpr_at_fpr_ci"].values()]
        if any(low > high for low, high in ends):
            yield f"{where} has an interval whose low end is above its high end"
