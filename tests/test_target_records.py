"""Leave-one-out figures: they follow from records, and a gate holds its limits against them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from bound_results import bound_folder, edit
from wemem.errors import InputError
from wemem.files.hashing import file_sha256
from wemem.metrics.registry import METRICS, ScoredRecords
from wemem.results.folder import TARGETS
from wemem.results.gate import Limits, check_folder
from wemem.results.read import read_results
from wemem.results.target_records import read_targets
from wemem.results.verify import Finding, verify

LIMITS = Limits(max_tpr=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return bound_folder(tmp_path_factory.mktemp("bound"), {"dense": 0.5, "rsw": 0.0}, targets=6)


def copied(folder: Path, to: Path) -> Path:
    for path in folder.rglob("*.*"):
        (to / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (to / path.relative_to(folder)).write_bytes(path.read_bytes())
    return to


def on_targets(folder: Path) -> list[Finding]:
    return [one for one in verify(folder).findings if one.subject == "targets"]


def test_ranks_give_each_target_the_rates_of_its_scores(folder):
    results = read_results(folder)
    for index, targets in read_targets(folder, results["runs"]):
        audit = results["runs"][index]["leave_one_out"]["lira"]
        for name in ("auc", "tpr_at_0.01"):
            rates = [
                METRICS[name].value(ScoredRecords(r, m))
                for r, m in zip(targets.ranks["lira"], targets.member, strict=True)
            ]
            assert audit[name]["value"] == pytest.approx(np.mean(rates), abs=1e-12)


def test_figures_of_every_run_are_recomputed(folder):
    assert [one.passed for one in on_targets(folder)] == [True, True]
    assert verify(folder).passed


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run["leave_one_out"]["lira"]["tpr_at_0.01"].update(value=0.0, ci=[0.0, 0.01]),
        lambda run: run["leave_one_out"]["rmia"]["auc"].update(ci=[0.0, 1.0]),
        lambda run: run["leave_one_out"]["lira"]["tpr_at_0.01"]["pseudo_values"][0].reverse(),
        lambda run: run["leave_one_out"].pop("rmia"),
        lambda run: run.pop("leave_one_out"),
        lambda run: run["leave_one_out"]["lira"].update(targets=60),
        lambda run: run["reference_accuracy"].update(value=0.99, ci=[0.9, 1.0]),
    ],
)
def test_an_edited_figure_fails(folder, tmp_path, change):
    copied(folder, tmp_path)
    edit(tmp_path, lambda results: change(results["runs"][1]))
    first, *others = [one.passed for one in on_targets(tmp_path)]
    assert first is True
    assert set(others) == {False}


def test_a_limit_holds_over_targets_too(tmp_path):
    """The audited model happens to leak little, the models of its recipe leak much."""
    folder = bound_folder(tmp_path, {"rsw": 0.0}, targets=6, over_targets=2.0)
    victim, targets = check_folder(folder, LIMITS).checks
    assert (victim.passed, targets.passed) == (True, False)
    assert "over 6 leave-one-out targets" in str(targets)
    assert not check_folder(folder, LIMITS).passed


def test_records_of_targets_that_were_changed_are_refused(folder, tmp_path):
    copied(folder, tmp_path)
    table = pa.parquet.read_table(tmp_path / TARGETS)
    ranks = table["lira_rank"].to_numpy()[::-1].copy()
    place = table.column_names.index("lira_rank")
    pa.parquet.write_table(
        table.set_column(place, "lira_rank", pa.array(ranks)), tmp_path / TARGETS, row_group_size=len(table) // 2
    )
    with pytest.raises(InputError, match="is not the file that was audited"):
        check_folder(tmp_path, LIMITS)

    def rehash(results: dict[str, Any]) -> None:
        results["files"][TARGETS] = file_sha256(tmp_path / TARGETS)

    edit(tmp_path, rehash)
    with pytest.raises(InputError, match="leave-one-out lira"):
        check_folder(tmp_path, LIMITS)


def test_figures_without_records_are_a_reservation(folder, tmp_path):
    copied(folder, tmp_path)
    (tmp_path / TARGETS).unlink()
    edit(tmp_path, lambda results: results["files"].pop(TARGETS))
    assert [one.passed for one in on_targets(tmp_path)] == [None, None]
    assert "unverified" in [one.name for one in check_folder(tmp_path, LIMITS).reservations]


def test_records_of_other_runs_are_refused(folder, tmp_path):
    copied(folder, tmp_path)
    edit(tmp_path, lambda results: results["runs"].pop())
    with pytest.raises(InputError, match="to be of the results beside it, got more records than"):
        verify(tmp_path)
