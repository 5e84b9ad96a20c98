"""Notes on results, in sentences: those that a study left, and those that follow from its numbers."""

from collections.abc import Mapping
from typing import Any

from wemem.results.wording import per_cent

#: Phrases for the codes in ``privacy`` of a run; early files hold the phrases themselves.
PRIVACY = {
    "victim_fine_tuning": "fine-tuning of the victim only",
    "no_noise": "without noise there is no privacy guarantee",
    "noise_too_small": "the noise is too small for a finite epsilon",
    "no_accountant": "expected Opacus to account for privacy, got none; pip install wemem[dp]",
    "out_of_range": "too few records or steps for a finite epsilon",
}


def notes(results: Mapping[str, Any]) -> list[str]:
    """All notes on some results, each once.

    Args:
        results: the content of ``results.json``; early files hold the sentences on privacy
            themselves.
    """
    return list(dict.fromkeys([*results["notes"], *_on_privacy(results)]))


def _on_privacy(results: Mapping[str, Any]) -> list[str]:
    """The nominal ε of each arm that was trained with DP-SGD, over its seeds."""
    by_arm: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        if "privacy" in run:
            by_arm.setdefault((run["label"], round(run["sparsity"], 3)), []).append(run["privacy"])
    return [_on_epsilon(label, sparsity, accounts) for (label, sparsity), accounts in by_arm.items()]


def _on_epsilon(label: str, sparsity: float, accounts: list[Mapping[str, Any]]) -> str:
    known = [account["epsilon"] for account in accounts if account["epsilon"] is not None]
    codes = (account["note"] for account in accounts if "note" in account)
    reasons = dict.fromkeys(PRIVACY.get(note, note) for note in codes)
    covers = accounts[0]["covers"]
    ends = " to ".join(dict.fromkeys(f"{end:.3g}" for end in (min(known), max(known)))) if known else "not known"
    return (
        f"{label}, {per_cent(sparsity)} sparsity: nominal ε {ends} at δ {accounts[0]['delta']:.2g}, which covers "
        f"{PRIVACY.get(covers, covers)}{''.join(f'; {reason}' for reason in reasons)}."
    )
