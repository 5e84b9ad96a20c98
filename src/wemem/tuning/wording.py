"""Sentences about budgets, measured points and defenses that were found, made where they are shown."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from wemem.config.budget import Budget
from wemem.defenses import chain, make_defense
from wemem.defenses.online import at_strength
from wemem.tuning.objectives import Point, excess


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


def point_in_words(point: Mapping[str, Any]) -> str:
    """Sentence about a setting and its figures.

    Args:
        point: fields of a :class:`~wemem.tuning.objectives.Point`.
    """
    settings = make_defense(point["kind"], point["settings"]).settings
    return (
        f"{settings_in_words(point['kind'], settings)}: "
        f"accuracy {100 * point['accuracy']:.1f} % ({-100 * point['accuracy_drop']:+.1f} points ± "
        f"{100 * point['accuracy_drop_se']:.1f}), AUC {100 * point['leakage']:.1f} % ({point['attack']}), "
        f"TPR {100 * point['tpr']:.1f} % ± {100 * point['tpr_se']:.1f} ({point['tpr_attack']})"
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
    "discount": lambda v: f"in which the true label is lowered by {v:g}",
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
    bounds = Budget(mode=summary["mode"], **summary["budget"])
    budget = f"Budget: {budget_in_words(bounds)}."
    if summary["mode"] == "online":
        steered = f"{budget} One run that steers itself: {_strengths_in_words(summary)}."
        return [steered, *_audit_in_words(summary)]
    stopped, settings = STOPPED[summary["stopped"]], settings_in_words(summary["kind"], summary["settings"])
    return [
        f"{budget} Found after {summary['trials']} settings{stopped}: {settings}.",
        f"On the records and models that it was chosen by: {point_in_words(summary['search'])}.",
        f"{confirmation_in_words(summary.get('confirmed_on'))}: {point_in_words(summary['confirmed'])}.",
        _excess_in_words(bounds, summary["confirmed"]),
        *_audit_in_words(summary),
        "The trade-offs it saw:",
        *(f"  {point_in_words(one)}" for one in summary["front"]),
    ]


def _strengths_in_words(summary: Mapping[str, Any]) -> str:
    strengths = summary.get("strengths")
    if not strengths:
        # results of schema 1 have a sentence in place of the strengths
        return str(summary.get("settings_in_words", "window, risky share and decay follow the confidence gap"))
    words = f"strength {', '.join(f'{strength:g}' for strength in strengths)} of 1 in its rounds"
    if strengths[-1] == 0:
        return words
    settings = chain(*at_strength(strengths[-1])).settings
    return f"{words}; in the last one {settings_in_words('swmr', settings)}"


def _excess_in_words(budget: Budget, confirmed: Mapping[str, Any]) -> str:
    """Sentence about whether the confirmed means keep a budget, and whether by a standard error."""
    point = Point(**{field.name: confirmed[field.name] for field in fields(Point)})
    if (over := excess(budget, point)) > 0:
        return f"The budget is NOT met: this is the nearest that was found, {100 * over:.1f} points beyond it."
    close = excess(budget, point, errors=1.0) > 0
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
