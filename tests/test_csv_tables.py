"""The table for spreadsheets: every number as it was measured, and no name that a spreadsheet would run."""

import csv
from pathlib import Path
from typing import Any

import pytest

from results_example import ATTACKS, make_results
from wemem.errors import InputError
from wemem.reporting.csv_tables import write_runs_csv


def rows_of(results: dict[str, Any], folder: Path) -> list[dict[str, str]]:
    write_runs_csv(results, folder / "runs.csv")
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_runs_by_attacks_and_numbers_come_back_exactly(tmp_path):
    results = make_results((0, 1))
    rows = rows_of(results, tmp_path)
    assert len(rows) == 2 * 5 * len(ATTACKS)
    expected = [(run, name, audit) for run in results["runs"] for name, audit in run["attacks"].items()]
    for row, (run, name, audit) in zip(rows, expected, strict=True):
        assert (row["label"], row["attack"], row["seed"]) == (run["label"], name, str(run["seed"]))
        assert float(row["test_accuracy"]) == run["accuracy"]["test"]
        assert [float(row["test_accuracy_low"]), float(row["test_accuracy_high"])] == run["accuracy"]["test_ci"]
        assert [float(row["auc"]), float(row["auc_low"]), float(row["auc_high"])] == [audit["auc"], *audit["auc_ci"]]
        assert float(row["balanced_accuracy"]) == audit["balanced_accuracy"]
        for fpr in ("0.1", "0.01", "0.001"):
            assert float(row[f"tpr_at_{fpr}"]) == audit["tpr_at_fpr"][fpr]
            assert float(row[f"tpr_at_{fpr}_high"]) == audit["tpr_at_fpr_ci"][fpr][1]
        assert (row["members"], row["nonmembers"], row["adaptive"]) == ("1503", "452", "true")
        assert float(row["finetune_seconds"]) == run["seconds"]["finetune"]


def test_every_line_has_as_many_cells_as_the_heading(tmp_path):
    results = make_results()
    results["runs"][0].update(attacks={}, worst={})
    write_runs_csv(results, tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert len({len(line) for line in lines}) == 1
    assert lines[1][lines[0].index("attack")] == ""
    assert len(lines) == 1 + 1 + 4 * len(ATTACKS)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_names_that_a_spreadsheet_would_run_are_quoted(start: str, tmp_path):
    hostile = start + 'cmd|" /c calc"!A1,"\n'
    results = make_results(attacks=(hostile,))
    for run in results["runs"]:
        run["label"], run["settings"] = hostile, {"=a": hostile}
    for row in rows_of(results, tmp_path):
        assert row["label"] == row["attack"] == f"'{hostile}"
        assert row["settings"].startswith("{")


def test_negative_numbers_stay_numbers(tmp_path):
    rsw = next(row for row in rows_of(make_results(), tmp_path) if row["label"] == "rsw")
    assert float(rsw["defense_overhead_seconds"]) == -4.0


def test_unknown_numbers_are_empty(tmp_path):
    results = make_results()
    results["runs"][0]["accuracy"]["dev"] = None
    assert rows_of(results, tmp_path)[0]["dev_accuracy"] == ""


def test_names_that_utf8_cannot_write_are_spelled_out(tmp_path):
    results = make_results()
    results["runs"][0]["label"] = "a\ud800"
    assert rows_of(results, tmp_path)[0]["label"] == "a\\ud800"


def test_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "runs.csv").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_runs_csv(make_results(), tmp_path / "runs.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


@pytest.mark.parametrize(
    "start",
    [
        "  =",
        " \t+",
        "\u00a0@",
        "\u200b=",
        "\ufeff=",
        "\uff1d",
        "\uff0b",
        "\uff0d",
        "\uff20",
        "\u3000=",
        "'=",
        '"=',
        "\x00=",
    ],
)
def test_a_formula_behind_spaces_or_in_full_width_signs_is_quoted_too(start: str, tmp_path):
    results = make_results(attacks=("lira",))
    for run in results["runs"]:
        run["label"] = f"{start}1+1"
    assert {row["label"] for row in rows_of(results, tmp_path)} == {f"'{start}1+1"}


def test_plain_names_are_left_alone(tmp_path):
    results = make_results(attacks=("lira",))
    for name in ("rsw width=500", "déjà vu", "(a)", "[b]", "5 models", "中文"):
        results["runs"][0]["label"] = name
        assert rows_of(results, tmp_path)[0]["label"] == name
