"""Notes on results, in sentences: those that a study left, and those that follow from its numbers."""

from collections.abc import Mapping
from typing import Any

from wemem.notes import shown
from wemem.results.arms import arms
from wemem.results.wording import per_cent

#: A gap between the sparsity of the prunable weights and that of all parameters from which on a
#: warning stands.
WIDE_GAP = 0.1
#: Phrases for the codes in ``privacy`` of a run; early files hold the phrases themselves.
PRIVACY = {
    "victim_fine_tuning": "fine-tuning of the victim only",
    "victim_training": "training and pruning of the victim from new weights",
    "no_noise": "without noise there is no privacy guarantee",
    "noise_too_small": "the noise is too small for a finite epsilon",
    "no_accountant": "expected Opacus to account for privacy, got none; pip install wemem[dp]",
    "out_of_range": "too few records or steps for a finite epsilon",
}


def notes(results: Mapping[str, Any]) -> list[str]:
    """All notes on some results, each once.

    Args:
        results: the content of ``results.json``; early files hold the sentences themselves.
    """
    return list(dict.fromkeys([*map(shown, results["notes"]), *_on_whole_model(results), *_on_privacy(results)]))


def _on_whole_model(results: Mapping[str, Any]) -> list[str]:
    """The sparsity of the whole model beside that of the prunable weights, with a warning where
    they differ much.
    """
    shares = {arm.sparsity: arm.whole_model_sparsity for arm in arms(results) if arm.sparsity}
    known = {sparsity: share for sparsity, share in shares.items() if share is not None}
    if not known:
        return []
    listed = ", ".join(f"{per_cent(share)} at {per_cent(sparsity)} sparsity" for sparsity, share in known.items())
    wide = any(abs(share - sparsity) > WIDE_GAP for sparsity, share in known.items())
    warning = " The two differ much: large parts of the model were not pruned." if wide else ""
    return [
        f"Sparsity counts prunable weights, or filters. Of all parameters of the model, {listed} are gone.{warning}"
    ]


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
