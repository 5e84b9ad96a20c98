"""Sentences about budgets, measured points and the defense that was found."""

from collections.abc import Mapping
from typing import Any

from wemem.config.budget import Budget
from wemem.tuning.objectives import Point


def budget_in_words(budget: Budget) -> str:
    """Sentence about a budget.

    >>> budget_in_words(Budget(max_accuracy_drop=0.01, max_tpr=0.05))
    'at most 1.0 points of accuracy lost, at most 5.0 % of the members found at 1 % FPR'
    """
    parts = []
    if budget.max_accuracy_drop is not None:
        parts.append(f"at most {100 * budget.max_accuracy_drop:.1f} points of accuracy lost")
    if budget.max_tpr is not None:
        parts.append(f"at most {100 * budget.max_tpr:.1f} % of the members found at {100 * budget.at_fpr:g} % FPR")
    return ", ".join(parts)


def figures_in_words(point: Point) -> str:
    """Sentence about the measured figures of a setting."""
    return (
        f"accuracy {100 * point.accuracy:.1f} % ({-100 * point.accuracy_drop:+.1f} points ± "
        f"{100 * point.accuracy_drop_se:.1f}), AUC {100 * point.leakage:.1f} % ({point.attack}), "
        f"TPR {100 * point.tpr:.1f} % ± {100 * point.tpr_se:.1f} ({point.tpr_attack})"
    )


_SETTINGS = {
    "width": lambda v: f"a window over {100 * v:g} % of each class",
    "stride": lambda v: f"that moves by {100 * v:g} % of the class an epoch",
    "order": lambda v: {
        "low_first": "from the least to the most memorized records",
        "high_first": "from the most to the least memorized records",
        "random": "in random order",
    }[v],
    "top": lambda v: f"weight decay on the {100 * v:g} % most memorized records",
    "decay": lambda v: f"of {v:g}",
    "teachers": lambda v: f"labels replaced by the predictions of {v} teachers",
    "held_out": lambda v: f"{v} of which did not see the record",
    "clusters": lambda v: f"nor what is like it, in {v} clusters a class" if v else "whatever is like it",
    "start": lambda v: {"fresh": "into new weights", "dense": "into those of the dense model"}[v],
    "temperature": lambda v: f"at temperature {v:g}",
    "hard": lambda v: f"with {100 * v:g} % of the true label mixed in",
    "views": lambda v: f"at each record and {v} views of it" if v else "at the records alone",
}


def settings_in_words(kind: str, settings: Mapping[str, Any]) -> str:
    """Phrase about the effect of a defense's settings.

    >>> settings_in_words("rmr", {"top": 0.27, "threshold": None, "decay": 0.1})
    'rmr: weight decay on the 27 % most memorized records, of 0.1'
    """
    phrases = [_SETTINGS[name](value) for name, value in settings.items() if value is not None and name in _SETTINGS]
    return f"{kind}: {', '.join(phrases)}"


STOPPED = {"trials": "", "minutes": " (the time was up)", "user": " (stopped by the user; the best so far)"}


def tuning_in_words(summary: Mapping[str, Any]) -> list[str]:
    """Sentences about how a defense was found.

    Args:
        summary: the key ``auto`` of a run in ``results.json``.
    """
    budget = f"Budget: {summary['budget_in_words']}."
    if summary["mode"] == "online":
        steered = f"{budget} One run that steers itself: {summary['settings_in_words']}."
        return [steered, *_audit_in_words(summary)]
    stopped = STOPPED[summary["stopped"]]
    return [
        f"{budget} Found after {summary['trials']} settings{stopped}: {summary['settings_in_words']}.",
        f"On the records and models that it was chosen by: {summary['search']['words']}.",
        f"{confirmation_in_words(summary.get('confirmed_on'))}: {summary['confirmed']['words']}.",
        _met_in_words(summary) if summary["met"] else summary["nearest"],
        *_audit_in_words(summary),
        "The trade-offs it saw:",
        *(f"  {one['words']}" for one in summary["front"]),
    ]


def _met_in_words(summary: Mapping[str, Any]) -> str:
    """Sentence about a budget that the confirmed means keep, and whether they keep it by a standard
    error.
    """
    budget, point = summary["budget"], summary["confirmed"]
    bounds = [("accuracy_drop", "max_accuracy_drop"), ("tpr", "max_tpr")]
    close = any(
        budget[bound] is not None and point[figure] + point[f"{figure}_se"] > budget[bound] for figure, bound in bounds
    )
    return f"The budget is met{', but by less than a standard error of these figures' if close else ''}."


def confirmation_in_words(confirmed_on: Mapping[str, Any] | None) -> str:
    """Beginning of a sentence about a confirmation: what about it the search had not used.

    Args:
        confirmed_on: the key ``confirmed_on`` of the summary; None in results that have no such
            key.

    >>> confirmation_in_words({"records": 375, "new_records": 375})
    'Confirmed with new models on 375 records, none of which the search used'
    >>> confirmation_in_words({"records": 400, "new_records": 100})
    'Confirmed with new models on 400 records, of which the search used 75 %'
    """
    if confirmed_on is None:
        return "Confirmed with new models on records of which the search used most"
    records, new = confirmed_on["records"], confirmed_on["new_records"]
    used = f"{100 * (records - new) / records:.0f} %"
    return f"Confirmed with new models on {records} records, " + (
        "none of which the search used" if new == records else f"of which the search used {used}"
    )


def _audit_in_words(summary: Mapping[str, Any]) -> list[str]:
    if "audited" not in summary:
        return []
    audited = summary["audited"]
    drop, tpr, met = audited["accuracy_drop"], audited["tpr"], audited["met"]
    lost = "not known without an undefended run" if drop is None else f"{-100 * drop:+.1f} points"
    outcome = {True: "within the budget", False: "NOT within the budget", None: "not compared to the budget"}[met]
    return [f"By the adversary's audit of the victim: accuracy {lost}, TPR {100 * tpr:.1f} %: {outcome}."]
