"""Limits: the end of the interval decides, and nothing that cannot be judged passes."""

import copy
import json
import sys
from collections.abc import Callable
from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bound_results import bound_folder
from results_example import make_results
from wemem import cli
from wemem.errors import InputError
from wemem.files.documents import read_json
from wemem.results.gate import Limits, check
from wemem.results.read import faults, read_results
from wemem.results.schema import results_schema

VALIDATOR = Draft202012Validator(results_schema())


def written(folder: Path, results: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def ended(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["wemem", "gate", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_upper_end_of_a_leak_decides_and_not_its_value():
    # rsw: 0.233 with the worst attack's interval 0.193 to 0.273
    for limit, passed in ((0.274, True), (0.272, False), (0.24, False)):
        (one,) = check(make_results(), Limits(max_tpr=limit), ["rsw"])
        assert one.passed is passed
        assert one.attack == "lira"
        assert one.estimate.value == pytest.approx(0.233)


def test_lower_end_of_accuracy_decides_and_not_its_value():
    # rsw: 0.625 with 0.612 to 0.638
    for limit, passed in ((0.611, True), (0.613, False), (0.62, False)):
        assert [one.passed for one in check(make_results(), Limits(min_accuracy=limit), ["rsw"])] == [passed]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_limits_at_the_ends_themselves_pass(seeds: tuple[int, ...]):
    results = make_results(seeds)
    loose = Limits(max_tpr=0.99, min_accuracy=0.01, max_auc=0.99, max_balanced_accuracy=0.99)
    tpr, auc, balanced, accuracy = (one.estimate for one in check(results, loose, ["swmr"]))
    exact = Limits(tpr.high, 0.01, accuracy.low, auc.high, balanced.high)
    assert all(one.passed for one in check(results, exact, ["swmr"]))
    tight = Limits(tpr.high - 1e-9, 0.01, accuracy.low + 1e-9, auc.high - 1e-9, balanced.high - 1e-9)
    assert not any(one.passed for one in check(results, tight, ["swmr"]))


def test_dense_is_checked_only_by_name():
    limits = Limits(max_tpr=0.5, min_accuracy=0.5)
    told = [one.label for one in check(make_results(), limits)]
    assert told == [name for name in ("undefended", "rsw", "rmr", "swmr") for _ in range(2)]
    assert {one.label for one in check(make_results(), limits, ["dense"])} == {"dense"}


def test_line_tells_value_interval_attack_and_limit():
    lines = [str(one) for one in check(make_results(), Limits(max_tpr=0.05, min_accuracy=0.6), ["rsw"])]
    assert lines == [
        "failed: rsw, 60 % sparsity, 1 seed: TPR at 1 % FPR 23.3 [19.3-27.3] % by lira, "
        "upper end 27.3 % must be at most 5 %",
        "passed: rsw, 60 % sparsity, 1 seed: test accuracy 62.5 [61.2-63.8] %, lower end 61.2 % must be at least 60 %",
    ]


def test_one_run_at_a_tenth_is_judged_by_its_widened_end():
    results = make_results(attacks=("confidence", "lira"))
    results["runs"][2]["worst"]["tpr_at_0.1"] = {"attack": "lira", "value": 0.466, "ci": [0.4, 0.53]}
    VALIDATOR.validate(results)
    (one,) = check(results, Limits(max_tpr=0.52, at_fpr=0.1), ["rsw"])
    assert (one.attack, one.estimate.high, one.passed) == ("lira", 0.53, False)
    assert "not widened" not in str(one)


def test_one_run_at_a_tenth_of_older_results_is_judged_by_the_highest_end_of_all_attacks():
    results = make_results(attacks=("confidence", "lira"))
    rsw = results["runs"][2]["attacks"]
    rsw["confidence"]["tpr_at_fpr_ci"]["0.1"] = [0.0, 0.9]
    (one,) = check(results, Limits(max_tpr=0.89, at_fpr=0.1), ["rsw"])
    assert (one.attack, one.estimate.high, one.passed) == ("lira", 0.9, False)
    assert "not widened" in str(one)


@pytest.mark.parametrize("given_", [
    {}, {"at_fpr": 0.1}, {"max_tpr": 0.1, "at_fpr": 0.05}, {"max_tpr": 5.0}, {"min_accuracy": -0.1},
    {"max_auc": float("nan")},
])  # fmt: skip
def test_limits_that_limit_nothing_are_refused(given_: dict[str, float]):
    with pytest.raises(InputError, match="expected"):
        Limits(**given_)


@pytest.mark.parametrize(("results", "labels", "message"), [
    (make_results(), ["smwr"], "did you mean 'swmr'"),
    (make_results(attacks=()), [], "expected attacks"),
    ({**make_results(), "runs": make_results()["runs"][:1]}, [], "--label dense"),
])  # fmt: skip
def test_nothing_to_judge_is_an_error_and_no_pass(results: dict[str, Any], labels: list[str], message: str):
    with pytest.raises(InputError, match=message):
        check(results, Limits(max_tpr=0.99), labels)


def test_exit_code_is_0_if_all_hold_and_1_if_one_does_not(tmp_path, monkeypatch, capsys):
    first, second = bound_folder(tmp_path / "a"), bound_folder(tmp_path / "b", {"dense": 0.5, "rsw": 0.0, "rmr": 2.0})
    assert ended([str(first), "--max-tpr", "0.1", "--min-accuracy", "0.5"], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("passed: ") for line in lines)
    arguments = [str(first), str(second), "--max-tpr", "0.1", "--label", "rsw"]
    assert ended(arguments, monkeypatch) == 0
    capsys.readouterr()
    assert ended([str(second), "--max-tpr", "0.1", "--label", "rsw", "--label", "rmr"], monkeypatch) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:11] for line in lines] == ["passed: rsw", "failed: rmr"]
    assert ended([str(first), str(second), "--max-tpr", "0.1"], monkeypatch) == 1
    assert f"{second}: failed: rmr" in capsys.readouterr().out


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": "other/1"}', b'{"x": NaN}', b'{"x": 1e999}',
    b'{"x": ' + b"9" * 5000 + b"}", None,
])  # fmt: skip
def test_file_that_is_no_results_is_one_line_and_exit_code_2(content, tmp_path, monkeypatch, capsys):
    if content is not None:
        (tmp_path / "results.json").write_bytes(content)
    assert ended([str(tmp_path), "--max-tpr", "0.9"], monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert "results.json" in printed.err


def test_file_over_the_limit_is_refused_and_one_at_it_is_read(tmp_path, monkeypatch):
    folder = written(tmp_path, make_results())
    size = (folder / "results.json").stat().st_size
    monkeypatch.setattr(unwrap(read_json), "__kwdefaults__", {"limit": size})
    assert read_results(folder) == make_results()
    monkeypatch.setattr(unwrap(read_json), "__kwdefaults__", {"limit": size - 1})
    with pytest.raises(InputError, match="at most"):
        read_results(folder)


@pytest.mark.parametrize(("change", "wrong"), [
    (lambda runs: runs.append(copy.deepcopy(runs[0])), "of another"),
    (lambda runs: runs[0]["worst"]["auc"].update(attack="none"), "was not run"),
    (lambda runs: runs[0]["attacks"]["lira"].update(auc_ci=[0.9, 0.1]), "low end is above"),
    (lambda runs: runs[0]["accuracy"].update(test_ci=[0.9, 0.1]), "low end is above"),
])  # fmt: skip
def test_results_at_odds_with_themselves_are_refused(change: Callable[[Any], Any], wrong: str, tmp_path):
    results = make_results()
    change(results["runs"])
    with pytest.raises(InputError, match=wrong):
        read_results(written(tmp_path, results))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [found for key in keys for found in ((value, key), *places(value[key]))]


VALUES = st.sampled_from([None, True, -1, 0, 2, 1.5, 7.0, "", "x", [], [0.1], [0.1, 0.2], {}, {"x": 1}])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_damaged_place_is_found_wherever_the_schemas_own_validator_finds_it(data: st.DataObject):
    results = make_results(attacks=("confidence", "lira"))
    results["runs"] = results["runs"][:2]
    box, key = data.draw(st.sampled_from(places(results)))
    if data.draw(st.booleans()):
        box[key] = data.draw(VALUES)
    elif isinstance(box, dict) and data.draw(st.booleans()):
        box["surprise"] = 1
    else:
        del box[key]
    found = next(faults(results), None)
    assert (found is None or found.startswith("contradiction: ")) == VALIDATOR.is_valid(results)
