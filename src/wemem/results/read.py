"""``results.json`` read back, by those who did not write it: checked against the schema before anything is believed."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from wemem.errors import InputError
from wemem.results.schema import results_schema

#: Bytes; a study of 100 runs under ten attacks takes under one million.
MOST = 64 * 2**20


def read_results(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``results.json``.

    Raises:
        InputError: no such file, over 64 MiB, not JSON, not of the schema, or at odds with itself: an interval with its
            ends swapped, a strongest attack that was not run, one run twice.
    """
    path = folder / "results.json"
    remedy = "give the --out folder of a study or an audit"
    try:
        if not path.is_file():
            raise InputError(f"expected a file {path}, got none; {remedy}")
        with path.open("rb") as file:
            text = file.read(MOST + 1)
        if len(text) > MOST:
            raise InputError(f"expected {path} of at most {MOST >> 20} MiB, got more; {remedy}")
        found = json.loads(text, parse_constant=_number, parse_float=_number)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON in {path}, got a broken file ({error}); {remedy}") from error
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


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


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
