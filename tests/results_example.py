"""Hand-made results of a small study, whose numbers are easy to follow through tables and sentences."""

import copy
import io
from typing import Any

from rich.console import Console

from wemem.files.hashing import sha256_of
from wemem.reporting.console import results_table
from wemem.results.combine import Source

#: (defense, test accuracy, balanced accuracy of the confidence attack, TPR of LiRA at 1 % FPR)
ARMS = (
    ("dense", 0.604, 0.758, 0.402),
    ("undefended", 0.599, 0.841, 0.546),
    ("rsw", 0.625, 0.661, 0.233),
    ("rmr", 0.630, 0.718, 0.340),
    ("swmr", 0.618, 0.673, 0.256),
)
#: What the strongest of ten attacks reaches on models without a leak: on average, and at most on 97.5 % of them.
CHANCE = {
    "balanced_accuracy": (0.52, 0.54), "auc": (0.53, 0.55), "tpr_at_0.01": (0.024, 0.038),
    "tpr_at_0.001": (0.007, 0.016),
}  # fmt: skip
ATTACKS = (
    "confidence", "entropy", "modified_entropy", "top_confidence", "nn", "nn_top3", "nn_class", "samia", "lira", "rmia",
)  # fmt: skip


def make_results(
    seeds: tuple[int, ...] = (0,), attacks: tuple[str, ...] = ATTACKS, nonmembers: int = 452
) -> dict[str, Any]:
    """Results of every arm at 60 % sparsity; seeds differ by half a point."""
    study = {"name": "location", "defenses": {name: {} for name, *_ in ARMS[1:]}}
    return {
        "schema": "wemem.results/2",
        "study": study,
        "study_sha256": sha256_of(study),
        "planned": {
            "runs": {name: 1 for name, *_ in ARMS}, "seeds": list(seeds),
            "attacks": {name: name for name in attacks},
        },
        "files": {},
        "environment": {
            "wemem": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6", "threads": 2,
            "platform": "Linux",
        },
        "data": {
            "name": "location", "fingerprint": "0123456789abcdef" * 4, "records": 5010, "classes": 30,
            "input_shape": [446],
        },
        "notes": ["an example"],
        "scores": [
            {"seed": seed, "party": party, "models": 40, "halves_correlation": 0.81, "seconds": 12.5}
            for seed in seeds for party in ("defender", "adversary", "references")
        ],
        "runs": [make_run(*arm, seed, attacks, nonmembers) for seed in seeds for arm in ARMS],
    }  # fmt: skip


def as_version_1(results: dict[str, Any]) -> dict[str, Any]:
    """The same results as version 1 had them: no hashes, other names in the certificate."""
    old = copy.deepcopy(results)
    old["schema"] = "wemem.results/1"
    for name in ("study_sha256", "planned", "files", "content_sha256"):
        old.pop(name, None)
    for run in old["runs"]:
        for worst in run["worst"].values():
            for name in ("chance", "chance_high"):
                worst.pop(name, None)
        del run["model_file"], run["altered_answers"]
        run["certificate"]["victim_made_as"] = run["certificate"].pop("victim_recipe_fingerprint")
        run["certificate"]["adversary_made_as"] = run["certificate"].pop("adversary_recipe_fingerprints")
    return old


def make_run(
    defense: str, accuracy: float, balanced: float, tpr: float, seed: int, attacks: tuple[str, ...], nonmembers: int
) -> dict[str, Any]:
    """One run. Confidence is the most accurate attack, LiRA the strongest at low FPR; each next attack is weaker."""
    shift = 0.005 * (seed % 5)
    audits = {name: make_audit(balanced + shift - 0.01 * i, tpr + shift, nonmembers) for i, name in enumerate(attacks)}
    for name in set(attacks) - {"lira"}:
        audits[name] = make_audit(audits[name]["balanced_accuracy"], 0.1 + shift, nonmembers)
    worst = {}
    for metric in ("balanced_accuracy", "auc", "tpr_at_0.01", "tpr_at_0.001") if attacks else ():
        name, value = max(((name, value_of(a, metric)) for name, a in audits.items()), key=lambda pair: pair[1])
        worst[metric] = {"attack": name, "value": value, "ci": around(value, 0.04)}
        # guessing, and what the strongest of ten guesses reaches
        worst[metric] |= dict(zip(("chance", "chance_high"), CHANCE[metric], strict=True))
    accuracy += shift
    return {
        "defense": defense, "label": defense, "settings": {}, "seed": seed,
        "sparsity": 0.0 if defense == "dense" else 0.6,
        "accuracy": {
            "train": 0.9, "dev": accuracy, "test": accuracy, "test_ci": around(accuracy, 0.013), "test_records": 1510,
        },
        "seconds": {
            "finetune": 0.0 if defense == "dense" else 12.1, "defense_overhead": -4.0 if defense == "rsw" else None,
            "scores": 20.0, "attacks": 30.25,
        },
        "records_seen": 0 if defense == "dense" else 1503 * 50,
        "backend": {"backend": "vmapped", "reason": "rule: no convolutions"},
        "certificate": {
            "adaptive": True, "victim_recipe_fingerprint": "a1", "adversary_recipe_fingerprints": ["a1"], "models": 5,
        },
        "model_file": None, "altered_answers": False,
        "rounds": [
            {"round": r, "sparsity": 0.15 * r, "test_accuracy": accuracy, "dev_accuracy": accuracy, "epochs": [7, 9]}
            for r in range(0 if defense == "dense" else 5)
        ],
        "attacks": audits,
        "worst": worst,
    }  # fmt: skip


def make_audit(balanced: float, tpr: float, nonmembers: int) -> dict[str, Any]:
    """One attack."""
    rates = {"0.1": min(1.0, 2 * tpr), "0.01": tpr, "0.001": tpr / 2}
    return {
        "adaptive": True,
        "balanced_accuracy": balanced, "balanced_accuracy_ci": around(balanced, 0.02),
        "auc": min(1.0, balanced + 0.05), "auc_ci": around(min(1.0, balanced + 0.05), 0.02),
        "tpr_at_fpr": rates, "tpr_at_fpr_ci": {fpr: around(rate, 0.03) for fpr, rate in rates.items()},
        "smallest_fpr": 1 / nonmembers, "members": 1503, "nonmembers": nonmembers, "reference_models": 5,
    }  # fmt: skip


def value_of(audit: dict[str, Any], metric: str) -> float:
    """A metric of one attack by its name in ``worst``."""
    value: float = audit["tpr_at_fpr"][metric[7:]] if metric.startswith("tpr_at_") else audit[metric]
    return value


def around(value: float, reach: float) -> list[float]:
    """An interval within [0, 1]."""
    return [max(0.0, value - reach), min(1.0, value + reach)]


def drawn(results: dict[str, Any], width: int = 110) -> str:
    """The table of results as a terminal of this width shows it."""
    console = Console(file=io.StringIO(), force_terminal=False, width=width)
    console.print(results_table(results))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def sources(*results: dict[str, Any]) -> list[Source]:
    """The results as if each were read from a folder without scores of single records."""
    return [Source(f"folder{i}", one, [None] * len(one["runs"])) for i, one in enumerate(results)]
