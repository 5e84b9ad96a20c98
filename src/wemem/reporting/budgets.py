"""Defenses found for a budget, in sentences for a terminal."""

from collections.abc import Mapping
from typing import Any

from wemem.results.wording import printable
from wemem.tuning.wording import tuning_in_words


def budgets(results: Mapping[str, Any]) -> list[str]:
    """One block of lines for every run whose defense was found from a budget; names are safe to
    print.

    Args:
        results: the content of ``results.json``.
    """
    several = len({run["seed"] for run in results["runs"]}) > 1
    return [
        printable(f"{_name(run, several)}: {line}" if i == 0 else f"  {line}")
        for run in results["runs"]
        if "auto" in run
        for i, line in enumerate(tuning_in_words(run["auto"]))
    ]


def _name(run: Mapping[str, Any], several: bool) -> str:
    return f"{run['label']}, seed {run['seed']}" if several else str(run["label"])
