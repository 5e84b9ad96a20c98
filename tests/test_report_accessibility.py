"""The pages for people with low vision, without colours, or without a mouse: contrast by WCAG 2.2, headings, tables."""

import re
import zipfile
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from report_example import make_folder
from results_example import ARMS
from wemem.evidence.bundle import PAGE, write_bundle
from wemem.reporting.figure_style import COLOURS, GREY, INK
from wemem.reporting.html import SVG
from wemem.reporting.report import write_report

TEMPLATES = ("reporting/report.html.jinja", "evidence/evidence.html.jinja")
#: Contrast of text with its ground, and of what must be seen and is no text (WCAG 2.2, 1.4.3 and 1.4.11).
TEXT, GRAPHIC = 4.5, 3.0


def luminance(colour: str) -> float:
    """Relative luminance of ``#rgb`` or ``#rrggbb``."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def style_of(template: str) -> str:
    text = files("wemem").joinpath(template).read_text("utf-8")
    return text.split("<style>")[1].split("</style>")[0]


def palettes(style: str) -> dict[str, dict[str, str]]:
    light, dark = (dict(re.findall(r"--(\w[\w-]*): (#\w+);", part)) for part in re.findall(r":root \{(.*?)\}", style))
    return {"light": light, "dark": light | dark}


@pytest.mark.parametrize(("one", "other", "expected"), [("#000", "#fff", 21.0), ("#777777", "#ffffff", 4.48)])
def test_contrast_is_that_of_the_standard(one, other, expected):
    assert contrast(one, other) == pytest.approx(expected, abs=0.005)
    assert contrast(one, one) == 1


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_edges_of_a_page_stand_out_from_every_ground(template, scheme):
    style = style_of(template)
    colours = palettes(style)[scheme]
    used = {
        kind: set(re.findall(rf"(?<![\w-]){kind}:[^;]*var\(--([\w-]+)\)", style))
        for kind in ("color", "background", "border", "border-color", "outline")
    }
    assert "ink" in used["color"]
    assert "paper" in used["background"]
    grounds = [colours[name] for name in used["background"]]
    low = [n for n in used["color"] if min(contrast(colours[n], ground) for ground in grounds) < TEXT]
    edges = (used["border"] | used["border-color"] | used["outline"]) - {
        "line"
    }  # between rows, where space parts them too
    low += [n for n in edges if min(contrast(colours[n], ground) for ground in grounds) < GRAPHIC]
    assert low == []


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_colour_stands_outside_of_the_palette(template):
    rest = re.sub(r":root \{.*?\}", "", style_of(template))
    assert set(re.findall(r"#[0-9a-fA-F]{3,6}\b", rest)) <= {"#fff"}  # the ground of figures, which are drawn on white
    assert "focus-visible" in rest
    assert "outline: none" not in rest


def test_marks_of_figures_stand_out_from_white_and_differ():
    assert [colour for colour in (*COLOURS, INK, GREY) if contrast(colour, "#fff") < GRAPHIC] == []
    assert len(set(COLOURS)) == len(COLOURS) == 16

    def apart(one: str, other: str) -> float:
        return max(abs(int(one[i : i + 2], 16) - int(other[i : i + 2], 16)) for i in (1, 3, 5))

    assert min(apart(*pair) for pair in combinations(COLOURS, 2)) >= 30


class Outline(HTMLParser):
    """Levels of headings, and elements with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.levels: list[int] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a model that leaks and on defenses, and the evidence on it."""
    path = tmp_path_factory.mktemp("leaks")
    make_folder(path, (0, 1), arms=ARMS)
    write_report([path], path)
    write_bundle(path, path / "evidence.zip", "us", "now")
    return path


@pytest.fixture(scope="module", params=["report", "evidence"])
def page(request: pytest.FixtureRequest, folder: Path) -> Outline:
    if request.param == "report":
        return Outline((folder / "report.html").read_text("utf-8"))
    with zipfile.ZipFile(folder / "evidence.zip") as bundle:
        return Outline(bundle.read(PAGE).decode())


@pytest.mark.slow
def test_headings_of_a_page_nest_and_begin_with_its_only_title(page):
    assert page.levels.count(1) == 1
    assert page.levels[0] == 1
    assert all(below <= above + 1 for above, below in pairwise(page.levels))


@pytest.mark.slow
def test_every_heading_of_a_table_has_its_scope_and_every_box_that_scrolls_a_name_and_a_place_for_keys(page):
    assert page.of("table")
    assert {one.get("scope") for one in page.of("th")} == {"col", "row"}
    scrolling = [one for _, one in page.found if one.get("class") in ("scroll", "drawing")]
    assert len(scrolling) >= len(page.of("table"))
    assert all(one.get("tabindex") == "0" and one.get("aria-label") and one.get("role") for one in scrolling)


@pytest.mark.slow
def test_every_drawing_has_a_text_in_its_place_and_texts_that_can_be_read(folder):
    drawings = sorted((folder / "figures").glob("*.svg"))
    assert len(drawings) >= 7
    for path in drawings:
        texts = ElementTree.fromstring(path.read_bytes()).iter(f"{{{SVG}}}text")
        styles = [style for text in texts for style in [text.get("style") or ""]]
        fills = {found for style in styles for found in re.findall(r"fill: (#\w+)", style)}
        assert [fill for fill in fills if contrast(fill, "#fff") < TEXT] == [], path.name
    page = Outline((folder / "report.html").read_text("utf-8"))
    assert [one for one in page.of("svg") if one.get("role") != "img" or not one.get("aria-labelledby")] == []


@pytest.mark.slow
def test_tables_lead_to_the_terms_at_the_end_of_the_report(folder):
    page = Outline((folder / "report.html").read_text("utf-8"))
    terms = {one["id"] for one in page.of("dt") if "id" in one}
    links = {str(one.get("href"))[1:] for one in page.of("a")}
    assert {"term-tpr", "term-auc", "term-balanced-accuracy", "term-lira", "term-rsw", "term-dense"} <= links & terms
