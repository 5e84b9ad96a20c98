"""Settings selected from grids, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from wemem.results.wording import printable


def chosen_settings(results: Mapping[str, Any]) -> list[str]:
    """One sentence on the rule and one a grid; none where nothing was selected. Names are safe to
    print.

    Args:
        results: the content of ``results.json``.
    """
    if "selection" not in results:
        return []
    rule, candidates = results["selection"]["rule"], results["selection"]["candidates"]
    grids: dict[str, list[Mapping[str, Any]]] = {}
    for one in candidates:
        grids.setdefault(one["label"], []).append(one)
    return [
        "Settings were selected on dev records, by one rule for all defenses and without any attack: of those that "
        f"cost at most {100 * rule['max_accuracy_drop']:.3g} points of undefended's dev accuracy "
        f"({_per_cent(rule['undefended_dev_accuracy'])}), the one of lowest dev AUC.",
        *(_sentence(label, grid) for label, grid in grids.items()),
    ]


def _sentence(label: str, grid: Sequence[Mapping[str, Any]]) -> str:
    chosen = next(one for one in grid if one["chosen"])
    varied = [
        name for name in chosen["settings"] if any(one["settings"][name] != chosen["settings"][name] for one in grid)
    ]
    settings = " ".join(f"{name}={chosen['settings'][name]}" for name in varied or chosen["settings"])
    which = "" if chosen["qualified"] else "none of which keeps that accuracy, so the most accurate one, "
    return printable(
        f"{label}: {settings} of {len(grid)} settings, {which}dev accuracy {_per_cent(chosen['dev_accuracy'])}, "
        f"dev AUC {_per_cent(chosen['dev_auc'])}."
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f} %"
