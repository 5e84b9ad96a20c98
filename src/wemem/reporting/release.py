"""The answer to "may this model ship?", by limits, with how sure it is and what to do next."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wemem.metrics.registry import METRICS
from wemem.reporting.summary import recommended
from wemem.results.arms import Arm, arms
from wemem.results.combine import Combined
from wemem.results.gate import Check, Limits, check
from wemem.results.reservations import NAMES, reservations
from wemem.results.verify import verify
from wemem.results.wording import per_cent, printable

#: The limits of an answer where none are given. They are a convention of this project, no norm.
PROFILE = Limits(max_tpr=0.05, at_fpr=0.01, max_auc=0.6)
#: The remedy for each reservation.
REMEDIES = {
    "non-adaptive": "Audit with models that are pruned as the audited one was: name its defense.",
    "missing-attacks": 'Run LiRA and RMIA, for instance by attacks = "ten".',
    "few-references": "Raise split.references to 16 at least, and to 64 for a final audit.",
    "few-records": "Audit with at least 100 members and 100 other records.",
    "unsupported-fpr": "Add records that the model was not trained on, until they support the rate of the limit.",
    "split-leaks": "Draw members and other records from one source, so that records alone do not tell them apart.",
    "altered-answers": "Protect the weights too, or never release them.",
    "constant-answers": "Mend the model: it gives every record the same answer.",
    "other-file": "Audit the file that ships.",
    "partial": "Run the study again until all planned runs and attacks are there.",
    "unverified": "Run the study again with this version, which binds the records to the results.",
}


def release_answer(combined: Combined, folders: Sequence[Path], limits: Limits | None) -> dict[str, Any] | None:
    """The answer for the only audited arm, or for the recommended one.

    Args:
        combined: the results of the folders.
        folders: the folders, in the order of ``combined.sources``.
        limits: the limits; :data:`PROFILE` if None.

    Returns:
        The label, the decision (``yes``, ``no`` or ``undecided``), sentences and next steps; None
        if there is no arm to decide on.
    """
    decided = decided_on(combined.results, limits)
    if decided is None:
        return None
    arm, checks = decided
    chosen = PROFILE if limits is None else limits
    doubts = _doubts(combined, folders, arm, chosen)
    exceeded = [one for one in checks if _exceeds(one)]
    forged = "forged" in doubts
    open_ends = [one for one in checks if not one.passed]
    decision = "no" if exceeded or forged else "undecided" if open_ends or doubts else "yes"
    return {
        "label": arm.label,
        "decision": decision,
        "answer": _sentence(arm, decision, exceeded or open_ends or checks),
        "limits": _limits(chosen, given=limits is not None),
        "checks": [str(one) for one in checks],
        "reservations": list(doubts.values()),
        "next": _next_steps(arm, decision, doubts),
        "values": [asdict(one) for one in checks],
    }


def decided_on(results: Mapping[str, Any], limits: Limits | None) -> tuple[Arm, list[Check]] | None:
    """The arm that the answer is about, and the limits on it; they follow from the results alone."""
    arm = _subject(results)
    return None if arm is None else (arm, check(results, PROFILE if limits is None else limits, [arm.label]))


def contradicts(answer: object, results: Mapping[str, Any], limits: Limits | None) -> bool:
    """True if an answer is about another arm, has other figures, or is a yes that they do not allow."""
    decided = decided_on(results, limits)
    if decided is None or not isinstance(answer, Mapping):
        return decided is not None or answer is not None
    arm, checks = decided
    own = answer.get("label"), answer.get("checks"), answer.get("decision") == "yes"
    allowed = all(one.passed for one in checks) and not answer.get("reservations")
    return own[:2] != (arm.label, [str(one) for one in checks]) or (own[2] and not allowed)


def _subject(results: Mapping[str, Any]) -> Arm | None:
    rows = [arm for arm in arms(results) if arm.attacks and all(run["attacks"] for run in arm.runs)]
    candidates = [arm for arm in rows if not (arm.is_control and arm.label == arm.defense)]
    best = candidates[0] if len(candidates) == 1 else recommended(results)
    return best if best in rows or best is None else next((a for a in candidates if a.label == best.label), None)


def _doubts(combined: Combined, folders: Sequence[Path], arm: Arm, limits: Limits) -> dict[str, str]:
    """Reservations about the arm by name, with their texts."""
    doubts: dict[str, str] = {}
    fpr = None if limits.max_tpr is None else limits.at_fpr
    for folder, source in zip(folders, combined.sources, strict=True):
        labels = {arm.label, arm.label.removesuffix(f" ({source.name})")}
        same_setting = [one for one in arms(source.results) if one.label in labels and one.sparsity == arm.sparsity]
        if not same_setting:
            continue
        verified = verify(folder, [])
        if verified.forged:
            doubts["forged"] = f"The results contradict their files: {verified.forged[0].text}."
        for one in reservations(verified, same_setting, fpr):
            doubts.setdefault(one.name, f"{one.text} ({one.name})")
    return doubts


def _exceeds(one: Check) -> bool:
    if one.attack is None:
        return one.estimate.value < one.limit
    return one.estimate.value > one.limit


def _sentence(arm: Arm, decision: str, checks: Sequence[Check]) -> str:
    words = {
        "yes": "Yes, by these limits and these attacks",
        "no": "No",
        "undecided": "Not decided: the measurement does not show that the limits hold",
    }[decision]
    return f"{words}. {printable(arm.label)}: {'; '.join(_measured(one) for one in checks)}."


def _measured(one: Check) -> str:
    value = f"{100 * one.estimate.value:.1f} %"
    if one.attack is None:
        return (
            f"{one.measure} is {value}, with 95 % confidence at least {100 * one.estimate.low:.1f} %; the limit "
            f"is {per_cent(one.limit)}"
        )
    high = 100 * one.estimate.high
    close = one.estimate.high != one.limit and f"{high:.1f}" == f"{100 * one.limit:.1f}"
    ends = f"with 95 % confidence at most {high:.{3 if close else 1}f} %; the limit is {per_cent(one.limit)}"
    rate = re.fullmatch(r"TPR at (\S+ %) FPR(.*)", one.measure)
    if rate is not None:
        return (
            f"an attacker ({printable(one.attack)}) finds {value} of the training records with false alarms on at "
            f"most {rate[1]} of the others{rate[2]}, {ends}"
        )
    return f"{one.measure} is {value} by {printable(one.attack)}, {ends}"


def _limits(limits: Limits, *, given: bool) -> str:
    parts = [f"{METRICS[name].label} at most {per_cent(limit)}" for name, _, limit in limits.of_leaks()]
    if limits.max_canary_tpr is not None:
        parts.append(f"TPR on canaries at most {per_cent(limits.max_canary_tpr)}")
    if limits.min_accuracy is not None:
        parts.append(f"test accuracy at least {per_cent(limits.min_accuracy)}")
    origin = "The limits that were given"
    if not given:
        origin = "No limits were given, so those of WeMem's profile stand, which are no norm"
    return f"{origin}: {', '.join(parts)}; the unfavourable end of each 95 % interval counts."


def _next_steps(arm: Arm, decision: str, doubts: Mapping[str, str]) -> list[str]:
    steps = [REMEDIES[name] for name in NAMES if name in doubts]
    if decision == "no":
        undefended = arm.defense in ("undefended", "dense", "unpruned", "one_shot", "unknown")
        steps.append(
            "Prune under a defense that protects the weights, such as oosd or swmr, and audit the result again."
            if undefended
            else "Choose a stronger setting or another defense, and audit the result again; do not release this model."
        )
    if decision == "undecided" and len(arm.runs) == 1:
        steps.append("Run more seeds, or audit more records: the intervals become narrower.")
    if decision == "yes":
        steps.append("Keep the results with the model (wemem evidence), and audit again after every retraining.")
    return steps
