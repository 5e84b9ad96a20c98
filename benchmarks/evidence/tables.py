"""Figures of a comparison as they are stored, and the page that shows them."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STORED = ROOT / "benchmarks" / "results" / "evidence.json"
PAGE = ROOT / "docs" / "measurements.md"
#: Studies of a night on two cores, the short ones first.
STUDIES = (
    "quickstart",
    "bank",
    "location-controls",
    "fashion",
    "cifar10-small",
    "compare-location",
    "sst2",
    "vit-small",
)
FPR = "tpr_at_0.01"


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """The figures of a study that the page shows; rates are fractions."""
    from wemem.results.arms import arms

    rows = []
    for arm in arms(results):
        attack, tpr = arm.strongest(FPR)
        balanced_by, balanced = arm.strongest("balanced_accuracy")
        accuracy, chance = arm.accuracy(), arm.chance(FPR)
        rows.append({
            "arm": arm.label, "sparsity": arm.sparsity, "answers_only": arm.answers_only,
            "accuracy": [accuracy.value, accuracy.low, accuracy.high],
            "balanced_accuracy": [balanced.value, balanced.low, balanced.high], "balanced_by": balanced_by,
            "tpr": [tpr.value, tpr.low, tpr.high], "attack": attack,
            "chance": None if chance is None else [chance.expected, chance.high],
        })  # fmt: skip
    worst = results["runs"][0]["attacks"].values()
    return {
        "study_sha256": results["study_sha256"], "seeds": sorted({run["seed"] for run in results["runs"]}),
        "wemem": results["environment"].get("wemem"), "attacks": len(results["planned"]["attacks"]),
        "members": next(iter(worst))["members"], "nonmembers": next(iter(worst))["nonmembers"], "rows": rows,
    }  # fmt: skip


def page(stored: dict[str, Any]) -> str:
    """The page in Markdown, from stored figures alone."""
    missing = [name for name in STUDIES if name not in stored]
    lines = [
        "# Measured comparisons", "",
        "`make evidence` runs these comparisons, goes on where it was stopped, and writes this page from",
        "[stored figures](../benchmarks/results/evidence.json). A test compares the two. Per cent; intervals of 95 %.",
        "The strongest attack is the strongest of all that were run on the arm; its level by chance is what the",
        "strongest of them reaches on models that leak nothing.", "",
    ]  # fmt: skip
    if missing:
        lines += [f"Not run yet: {', '.join(f'`studies/{name}.toml`' for name in missing)}.", ""]
    for name in [name for name in STUDIES if name in stored]:
        lines += [*_section(name, stored[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(name: str, study: dict[str, Any]) -> list[str]:
    seeds = ", ".join(map(str, study["seeds"]))
    return [
        f"## {name}", "",
        f"`wemem compare studies/{name}.toml`, seeds {seeds}, {study['attacks']} attacks, {study['members']:,} members",
        f"and {study['nonmembers']:,} non-members for each seed, study {study['study_sha256'][:12]}.", "",
        "| arm | test accuracy | strongest attack, balanced accuracy | strongest attack, TPR at 1 % FPR | by chance |",
        "|---|---|---|---|---|",
        *(
            f"| {row['arm']}{' (answers only)' if row['answers_only'] else ''}, {100 * row['sparsity']:.0f} % pruned "
            f"| {_rate(row['accuracy'])} | {_rate(row['balanced_accuracy'])} {row['balanced_by']} "
            f"| {_rate(row['tpr'])} {row['attack']} | {_chance(row['chance'])} |"
            for row in study["rows"]
        ),
    ]  # fmt: skip


def _rate(value: list[float]) -> str:
    return f"{100 * value[0]:.1f} [{100 * value[1]:.1f}, {100 * value[2]:.1f}]"


def _chance(value: list[float] | None) -> str:
    return "not known" if value is None else f"{100 * value[0]:.1f}, at most {100 * value[1]:.1f}"
