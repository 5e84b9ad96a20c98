"""The schema of results.json: it admits what a study writes and nothing that only looks like it."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from results_example import make_results
from wemem.metrics.registry import METRICS, fprs
from wemem.results.schema import results_schema

VALIDATOR = Draft202012Validator(results_schema())
Change = Callable[[dict[str, Any]], Any]


def test_schema_is_itself_valid():
    Draft202012Validator.check_schema(results_schema())


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_results_of_one_or_several_seeds_are_valid(seeds: tuple[int, ...]):
    VALIDATOR.validate(make_results(seeds))


def test_results_without_attacks_are_valid():
    VALIDATOR.validate(make_results(attacks=()))


def test_attacks_of_users_are_admitted():
    VALIDATOR.validate(make_results(attacks=("mine:Attack [red]",)))


def test_schema_names_the_measures_of_the_audit():
    defined = results_schema()["$defs"]
    assert set(defined["attack"]["properties"]["tpr_at_fpr"]["required"]) == {str(fpr) for fpr in fprs()}
    worst = defined["run"]["properties"]["worst"]
    for name in METRICS:
        assert name in worst["properties"] or any(re.search(p, name) for p in worst["patternProperties"])


def test_every_object_is_closed_but_settings_and_attacks():
    free: list[tuple[str, ...]] = []

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties") is not False:
                free.append(path)
            for name, child in node.items():
                walk(child, (*path, name))

    walk(results_schema(), ())
    assert {path[-1] for path in free} == {
        "study",
        "files",
        "runs",
        "settings",
        "attacks",
        "non_adaptive",
        "leave_one_out",
        "canaries",
        "additionalProperties",
        "coded",
    }


@pytest.mark.parametrize("level", ["results", "run", "attack"])
def test_no_key_may_be_missing_or_unknown(level: str):
    def part(results: dict[str, Any]) -> dict[str, Any]:
        run = results["runs"][1]
        found: dict[str, Any] = {"results": results, "run": run, "attack": run["attacks"]["lira"]}[level]
        return found

    for name in part(make_results()):
        results = make_results()
        del part(results)[name]
        assert not VALIDATOR.is_valid(results), name
    results = make_results()
    part(results)["surprise"] = 1
    assert not VALIDATOR.is_valid(results)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(schema="wemem.results/3"),
        lambda r: r["data"].update(fingerprint="not a hash"),
        lambda r: r["data"].update(classes=1),
        lambda r: r["scores"][0].update(party="victim"),
        lambda r: r["scores"][0].update(halves_correlation=1.5),
        lambda r: r.update(runs=[]),
        lambda r: r["runs"][0].update(label=""),
        lambda r: r["runs"][0].update(sparsity=60),
        lambda r: r["runs"][0].update(seed=0.5),
        lambda r: r["runs"][0]["accuracy"].update(test=61.0),
        lambda r: r["runs"][0]["accuracy"].update(test_ci=[0.1]),
        lambda r: r["runs"][0]["accuracy"].update(test_ci=[0.1, 1.2]),
        lambda r: r["runs"][0]["accuracy"].update(test_records=0),
        lambda r: r["runs"][0]["seconds"].update(finetune=-1.0),
        lambda r: r["runs"][0]["attacks"]["lira"].update(auc=None),
        lambda r: r["runs"][0]["attacks"]["lira"]["tpr_at_fpr"].update({"5 %": 0.5}),
        lambda r: r["runs"][0]["attacks"]["lira"].update(nonmembers=0),
        lambda r: r["runs"][0]["attacks"].update({"": r["runs"][0]["attacks"]["lira"]}),
        lambda r: r["runs"][0]["worst"].pop("auc"),
        lambda r: r["runs"][0].update(attacks={}),
    ],
)
def test_what_cannot_be_is_refused(change: Change):
    results = copy.deepcopy(make_results())
    change(results)
    assert not VALIDATOR.is_valid(results)


def test_overhead_may_be_negative_or_unknown():
    results = make_results()
    results["runs"][0]["seconds"]["defense_overhead"] = -13.3
    results["runs"][1]["seconds"]["defense_overhead"] = None
    VALIDATOR.validate(results)
