"""Contradictions within ``results.json`` that a JSON schema cannot detect."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

from wemem.metrics.intervals import Estimate
from wemem.metrics.rates import smallest_fpr
from wemem.metrics.registry import METRICS, fprs, tpr_metric
from wemem.results.content_hash import CONTENT_SHA256, content_sha256
from wemem.signals import UNKNOWN

#: Largest difference between two numbers that is attributed to rounding.
ROUNDING = 1e-9

#: Kinds of the arms whose models are not pruned.
UNPRUNED = ("dense", "unpruned")

Run = Mapping[str, Any]


def contradictions(results: Mapping[str, Any]) -> Iterator[str]:
    """Find contradictions, each as a phrase that names the run.

    These are: content with another SHA-256 than the stored one, a run that occurs twice, equal
    numbers under different seeds, a value outside its interval, a strongest attack that another
    attack exceeds, an unpruned model with a sparsity, a true positive rate that falls as the false
    positive rate rises, an adaptive audit whose recipe fingerprints differ, runs or files that are
    not declared, and one model file for two runs.
    """
    if results.get(CONTENT_SHA256, digest := content_sha256(results)) != digest:
        yield "the content is not the one of content_sha256: the file was changed after it was written"
    for entry in results.get("blind_baseline", ()):
        yield from (f"blind_baseline, seed {entry['seed']}, {wrong}" for wrong in _in_blind(entry))
    runs = results["runs"]
    seen = set()
    for i, run in enumerate(runs):
        where = f"runs[{i}] ({run['label']}, seed {run['seed']})"
        key = run["label"], round(run["sparsity"], 3), run["seed"]
        if key in seen:
            yield f"{where} has the label, sparsity and seed of another"
        seen.add(key)
        yield from (f"{where} {wrong}" for wrong in _in_run(run))
    for one, other in combinations(runs, 2):
        if _cloned(one, other):
            yield f"seeds {one['seed']} and {other['seed']} of {one['label']!r} have the same numbers and times"
    if results["schema"] != "wemem.results/1":
        yield from _undeclared(results)


def _in_blind(entry: Mapping[str, Any]) -> Iterator[str]:
    for name in (metric.name for metric in METRICS.values() if metric.name in entry):
        yield from _outside(name, Estimate(entry[name]["value"], *entry[name]["ci"]))
    if entry["above_chance"] and entry["auc"]["ci"][0] <= METRICS["auc"].chance:
        yield "is called above chance, and its interval is not"


def _in_run(run: Run) -> Iterator[str]:
    if run["label"] == "dense" != run["defense"]:
        yield "is labelled dense and has a defense"
    if run["defense"] in UNPRUNED and run["sparsity"] > 0:
        yield f"is labelled {run['defense']} and has a sparsity above 0"
    if _uncertified(run["certificate"]):
        yield "is called adaptive, and the adversary's models were not made as the audited model was"
    accuracy = run["accuracy"]
    yield from _outside("accuracy.test", Estimate(accuracy["test"], *accuracy["test_ci"]))
    for name, audit in run["attacks"].items():
        for metric in METRICS.values():
            if (estimate := metric.read(audit)) is not None:
                yield from _outside(f"{name} {metric.name}", estimate)
        rates = [estimate.value for fpr in fprs() if (estimate := tpr_metric(fpr).read(audit)) is not None]
        if any(rare > common + ROUNDING for common, rare in pairwise(rates)):
            yield f"{name} has a higher true positive rate at a lower false positive rate"
        if abs(audit["smallest_fpr"] - smallest_fpr(audit["nonmembers"])) > ROUNDING:
            yield f"{name} has a smallest false positive rate other than that of {audit['nonmembers']} non-members"
    counts = {(audit["members"], audit["nonmembers"]) for audit in run["attacks"].values()}
    if len(counts) > 1:
        yield "has attacks with different numbers of records"
    yield from _strongest(run)


def _strongest(run: Run) -> Iterator[str]:
    """Contradictions of ``worst``: an unknown attack, another value, or an attack that exceeds it."""
    for name, worst in run["worst"].items():
        yield from _outside(f"worst {name}", Estimate(worst["value"], *worst["ci"]))
        metric = METRICS.get(name)
        if worst["attack"] not in run["attacks"]:
            yield f"worst {name} names an attack that was not run"
        elif metric is not None:
            values = {label: one.value for label, audit in run["attacks"].items() if (one := metric.read(audit))}
            if worst["attack"] not in values or abs(worst["value"] - values[worst["attack"]]) > ROUNDING:
                yield f"worst {name} differs from the value of {worst['attack']}"
            elif worst["value"] < max(values.values()) - ROUNDING:
                yield f"worst {name} is weaker than another attack of the run"


def _outside(what: str, estimate: Estimate) -> Iterator[str]:
    if estimate.low > estimate.high:
        yield f"{what} has an interval whose low end is above its high end"
    elif not estimate.low - ROUNDING <= estimate.value <= estimate.high + ROUNDING:
        yield f"{what} {estimate.value:.4g} lies outside its interval [{estimate.low:.4g}, {estimate.high:.4g}]"


def _cloned(one: Run, other: Run) -> bool:
    """True if two seeds of one arm have exactly equal times and numbers, as a copied run has."""
    arm = one["label"], round(one["sparsity"], 3)
    if arm != (other["label"], round(other["sparsity"], 3)) or one["seed"] == other["seed"]:
        return False
    seconds = one["seconds"]["finetune"] + one["seconds"]["attacks"]
    fields = ("seconds", "accuracy")
    return seconds > 0 and all(one[name] == other[name] for name in fields) and _areas(one) == _areas(other)


def _areas(run: Run) -> list[float]:
    return [audit["auc"] for audit in run["attacks"].values()]


def _uncertified(certificate: Mapping[str, Any]) -> bool:
    """Return True if an audit calls itself adaptive against fingerprints that are unknown or
    differ.
    """
    version_1 = "victim_made_as" in certificate
    victim, adversary = ("made_as", "made_as") if version_1 else ("recipe_fingerprint", "recipe_fingerprints")
    victims, others = certificate[f"victim_{victim}"], set(certificate[f"adversary_{adversary}"])
    return bool(certificate["adaptive"]) and (victims == UNKNOWN or others != {victims})


def _undeclared(results: Mapping[str, Any]) -> Iterator[str]:
    planned, files = results["planned"], results["files"]
    models = Counter(run["model_file"] for run in results["runs"] if run["model_file"] is not None)
    yield from (f"{count} runs have the model file {name}" for name, count in models.items() if count > 1)
    for run in results["runs"]:
        label, seed = run["label"], run["seed"]
        if seed not in planned["seeds"] or label not in planned["runs"]:
            yield f"{label!r}, seed {seed}, is not a planned run"
        yield from _unplanned_attacks(run, planned["attacks"])
        if run["model_file"] is not None and run["model_file"] not in files:
            yield f"the model file of {label!r}, seed {seed}, has no SHA-256"


def _unplanned_attacks(run: Run, planned: Sequence[str]) -> Iterator[str]:
    if run["altered_answers"]:
        return  # the suite adds attacks that fit the channel
    for name in run["attacks"]:
        if name not in planned:
            yield f"{run['label']!r} has an attack {name!r} that was not planned"
