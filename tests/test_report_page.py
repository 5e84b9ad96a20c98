"""The report as its readers meet it: a page that opens offline and says in words what its figures show, files that come
out the same every time, and names from users that stay names.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from report_example import make_folder, write
from wemem import cli
from wemem.reporting.report import write_report

pytestmark = pytest.mark.slow

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
FORMULA = "=cmd|' /c calc'!A1"
MATH = r"$\alpha_{$"
TURNED = "a\u202egnp.exe"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Page(HTMLParser):
    """Elements, texts and identifiers of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study in which every name that a user may choose is hostile."""
    path = tmp_path_factory.mktemp("page") / "<b>out"
    results = make_folder(path, (0, 1), (IMAGE, MATH))
    labels = {"undefended": SCRIPT, "rsw": FORMULA, "dense": "_dense"}
    for run in results["runs"]:
        run["label"] = labels[run["label"]]
        run["settings"] = {TURNED: SCRIPT}
        if run["defense"] == "rsw":
            run["defense"] = MATH
    results["data"]["name"] = SCRIPT
    results["study"]["name"] = TURNED
    results["notes"] = [IMAGE]
    results["environment"]["platform"] = SCRIPT
    results["runs"][1]["accuracy"]["test"] += 0.01
    write(path, results)
    write_report([path], path)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def test_names_stay_text(folder, page):
    assert not page.of("script")
    assert not page.of("img")
    assert not page.of("b")
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    text = " ".join(page.texts)
    for name in (SCRIPT, IMAGE, FORMULA, MATH, r"a\u202egnp.exe"):
        assert name in text
    assert "\u202e" not in (folder / "report.html").read_text("utf-8")


def test_figures_say_what_they_show(folder, page):
    drawings = page.of("svg")
    names = [figure["name"] for figure in json.loads((folder / "report.json").read_text())["figures"]]
    assert len(drawings) == len(names) == len(page.of("figcaption")) >= 7
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    for name, drawing in zip(names, drawings, strict=True):
        assert drawing["role"] == "img"
        assert drawing["aria-labelledby"] == f"{name}-title {name}-desc"
        assert {f"{name}-title", f"{name}-desc"} <= set(identifiers)


def test_the_page_needs_nothing_else(folder, page):
    policy = next(meta for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    links = [v for _, attributes in page.tags for k, v in attributes.items() if k in ("href", "src", "xlink:href")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "@import" not in (folder / "report.html").read_text("utf-8")


def test_references_within_a_drawing_lead_somewhere(page):
    identifiers = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    used = [v for _, attributes in page.tags for k, v in attributes.items() if k.endswith("href") and v.startswith("#")]
    used += [f"#{name}" for _, a in page.tags for v in a.values() if v for name in re.findall(r"url\(#(.*?)\)", v)]
    assert len(used) > 50
    assert {name[1:] for name in used} <= identifiers


def test_figures_are_files_for_a_paper(folder):
    names = [figure["name"] for figure in json.loads((folder / "report.json").read_text())["figures"]]
    for name in names:
        root = ElementTree.fromstring((folder / "figures" / f"{name}.svg").read_bytes())
        assert root.tag.endswith("svg")
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    drawn = (folder / "figures" / "plane-tpr_at_0.01.svg").read_text("utf-8")
    assert "&lt;script&gt;" in drawn
    assert "<script" not in drawn


def test_tables_hold_the_numbers_of_the_page_and_no_formula(folder):
    content = json.loads((folder / "report.json").read_text())
    with (folder / "tables" / "headline.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["tpr_at_0.01"]) for row in rows] == [arm["tpr_at_0.01"]["value"] for arm in content["headline"]]
    assert [float(row["accuracy_low"]) for row in rows] == [arm["accuracy"]["low"] for arm in content["headline"]]
    assert rows[2]["label"] == f"'{FORMULA}"
    with (folder / "tables" / "roc.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(len(arm["points"]) for arm in content["roc"])
    for path in (folder / "tables").iterdir():
        with path.open(encoding="utf-8", newline="") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell.startswith("=")]


def test_the_command_renders_what_is_stored_to_the_same_bytes(folder, tmp_path, capsys, monkeypatch):
    new = tmp_path / "new"
    monkeypatch.setattr(sys, "argv", ["wemem", "report", str(folder), "--out", str(new)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert "report.html" in capsys.readouterr().out
    made = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
    assert len(made) > 30
    assert [path for path in made if (new / path).read_bytes() != (folder / path).read_bytes()] == []


def opened(page: Path, folder: Path) -> tuple[Page, str, set[str]]:
    """What a browser makes of a page, what it complains of, and the addresses that the page made it ask for.

    The browser asks for things of its own; what a page asks for is filed under the page's origin.
    """
    log = folder / "net.json"
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-extensions",
        f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
        f"--log-net-log={log}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    complaints = "\n".join(line for line in shown.stderr.splitlines() if "CONSOLE" in line)
    return Page(shown.stdout), complaints, set(re.findall(r'file://[^"]* (\w+://[^" ]*)"', log.read_text("utf-8")))


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_a_browser_opens_the_page_without_a_request_or_a_complaint(folder, tmp_path):
    page, complaints, requests = opened(folder / "report.html", tmp_path)
    assert complaints == ""
    assert requests == set()
    assert len(page.of("svg")) == len(json.loads((folder / "report.json").read_text())["figures"])
    assert not page.of("script")
    assert not page.of("img")


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_a_page_that_asks_and_complains_is_noticed(tmp_path):
    page = tmp_path / "asks.html"
    page.write_text('<!doctype html><img src="http://example.invalid/x.png"><script>console.error("oh")</script>')
    _, complaints, requests = opened(page, tmp_path)
    assert "oh" in complaints
    assert "http://example.invalid/x.png" in requests


def test_a_folder_without_a_study_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["wemem", "report", str(tmp_path), "--out", str(tmp_path / "new")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "results.json" in lines[0]
    assert not (tmp_path / "new").exists()
