"""Short forms of the campaigns; ``WEMEM_CAMPAIGN=N`` makes each of them N times as long."""

import csv
import io
import json
import os
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from faulty_files import FORBIDDEN, FULL, failing_at
from injection_corpus import FORMULAS, MARKUP
from kill_campaign import campaign, content
from report_example import make_folder
from results_example import make_results
from small_study import table, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.errors import InputError
from wemem.reporting.csv_tables import write_runs_csv
from wemem.reporting.report import write_report
from wemem.results.verify import verify

pytestmark = pytest.mark.slow

LENGTH = int(os.environ.get("WEMEM_CAMPAIGN", "1"))
SMALL: dict[str, Any] = {
    "training": {"epochs": 1, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2}, "attacks": ["confidence"], "defenses": ["undefended"], "controls": [],
}  # fmt: skip


def test_killed_commands_leave_no_wrong_result_and_the_next_run_ends_as_an_undisturbed_one(tmp_path):
    assert campaign(tmp_path, trials=LENGTH, seed=5 + LENGTH) == []


@pytest.mark.parametrize("code", [FULL, FORBIDDEN])
def test_a_failing_file_operation_is_one_line_and_leaves_no_wrong_result(code, tmp_path):
    config = parse_study(table(write_data(tmp_path), **SMALL))
    with failing_at(0, code) as counted:
        api.run(config, tmp_path / "whole/out")
    expected = content(tmp_path / "whole/out")
    everything = np.arange(1, counted.count + 1)
    chosen = np.random.default_rng(code).permutation(everything)[: 2 * LENGTH]
    for at in sorted({*chosen.tolist(), counted.count}):  # the last one is that of results.json
        out = tmp_path / f"{at}/out"
        with failing_at(int(at), code) as faults, pytest.raises(InputError) as refused:
            api.run(config, out)
        assert faults.last, f"operation {at} was not reached"
        assert len(str(refused.value).splitlines()) == 1
        assert not (out / "results.json").exists()
        api.run(config, out)
        assert verify(out).passed
        assert content(out) == expected, f"after {faults.last}, operation {at}"


class Tags(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_markup_in_names_stays_text_in_a_report(tmp_path):
    payloads = MARKUP if LENGTH > 1 else MARKUP[:6]
    for start in range(0, len(payloads), 3):
        arms = tuple((name, 0.6, 0.7, 0.2) for name in payloads[start : start + 3])
        folder = tmp_path / str(start)
        results = make_folder(folder, (0,), ("confidence", "lira"), (("dense", 0.6, 0.7, 0.4), *arms))
        results["data"]["name"] = results["study"]["name"] = payloads[start]
        results["notes"] = list(payloads)
        (folder / "results.json").write_text(json.dumps(results))
        write_report([folder], folder)
        page = Tags((folder / "report.html").read_text("utf-8"))
        for tag, attributes in page.tags:
            assert tag not in ("script", "xss", "iframe", "img")
            assert not [name for name in attributes if name.startswith("on")]
            assert not str(attributes.get("href", "")).lower().startswith("javascript:")


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_a_table_is_computed_by_a_spreadsheet(formula, tmp_path):
    results = make_results(attacks=("confidence", formula))
    for run in results["runs"]:
        run["label"] = formula
    write_runs_csv(results, tmp_path / "runs.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "runs.csv").read_text("utf-8"), newline="")))
    for cell in (cell for row in rows for cell in row):
        shown = cell.strip().lstrip("\ufeff\u200b\u00a0").strip()
        number = cell.replace(".", "", 1).replace("e-", "", 1).lstrip("-").isdigit()
        assert number or shown[:1] not in tuple("=+-@\uff1d\uff0b\uff0d\uff20"), cell


def test_the_campaign_notices_what_it_looks_for(tmp_path):
    """The null of the campaigns: a folder with results beside files of another run does not verify."""
    config = parse_study(table(write_data(tmp_path), **SMALL))
    api.run(config, tmp_path / "out")
    before = content(tmp_path / "out")
    model = next((tmp_path / "out/models").glob("*.safetensors"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    assert content(tmp_path / "out") != before
    assert not verify(tmp_path / "out").passed
