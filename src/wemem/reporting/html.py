"""The report as one page that needs no other file, no script and no network.

Every name comes from a user: it is escaped, its control characters are made visible, and it keeps
its own direction of writing within the line (``bdi``). The page forbids itself to load anything.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from wemem.config.glossary import anchor
from wemem.metrics.intervals import Estimate
from wemem.reporting.captions import Plate
from wemem.reporting.tables import Sheet
from wemem.results.wording import interval, printable
from wemem.signals import WEIGHTS_HELD

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
#: What may stand in the page beside its text: its own styles, and images that are part of it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(
    content: Mapping[str, Any], plates: Sequence[Plate], images: Mapping[str, str], sheets: Sequence[Sheet]
) -> str:
    """The page.

    Args:
        content: the content of ``report.json``.
        plates: the figures, in order.
        images: SVG by the figure's name.
        sheets: the tables.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(name=name, cell=cell, share=share, plain=plain, prose=prose, anchor=anchor)
    environment.filters["linked"] = partial(linked, terms=content["terms"])
    template = environment.from_string(files("wemem.reporting").joinpath("report.html.jinja").read_text("utf-8"))
    drawn = {plate.name: accessible(images[plate.name], plate) for plate in plates}
    text = template.render(content=content, plates=plates, drawn=drawn, sheets=sheets, policy=POLICY)
    # a lone surrogate from a JSON file has no UTF-8
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def accessible(svg: str, plate: Plate) -> Markup:
    """A drawing that can stand in a page: with a title, what it shows, and identifiers that no
    other drawing has.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{plate.name}-{value}")
            elif key == f"{{{XLINK}}}href" and value.startswith("#"):
                element.set(key, f"#{plate.name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, re.sub(r"url\(#", f"url(#{plate.name}-", value))
    for i, (tag, text) in enumerate((("title", plate.title), ("desc", plate.finding))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{plate.name}-{tag}"})
        element.text = text
        root.insert(i, element)
    for size in ("width", "height"):
        del root.attrib[size]
    root.set("role", "img")
    root.set("aria-labelledby", f"{plate.name}-title {plate.name}-desc")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def name(text: object) -> Markup:
    """A name from a user.

    >>> str(name("<b>"))
    '<bdi>&lt;b&gt;</bdi>'
    """
    return Markup("<bdi>{}</bdi>").format(printable(str(text)))


def linked(text: str, terms: Mapping[str, str]) -> Markup:
    """A name or a heading, with a link to the term that it is or begins with.

    >>> str(linked("TPR at 1 % FPR", {"TPR": "..."}))
    '<a href="#term-tpr"><bdi>TPR at 1 % FPR</bdi></a>'
    """
    wanted = text.removesuffix(WEIGHTS_HELD).casefold()
    for term in terms:
        if wanted == term.casefold() or wanted.startswith(f"{term.casefold()} at "):
            return Markup('<a href="#{}">{}</a>').format(anchor(term), name(text))
    return name(text)


def prose(text: str) -> Markup:
    """A sentence with names in it; a number keeps its per cent sign."""
    return escape(printable(text).replace(" %", "\N{NO-BREAK SPACE}%"))


def share(estimate: Mapping[str, Any]) -> str:
    """A share in per cent with its interval, if it has one."""
    if estimate.get("low") is None:
        return f"{100 * estimate['value']:.1f}"
    return interval(Estimate(estimate["value"], estimate["low"], estimate["high"]))


def plain(value: object) -> Markup:
    """A setting or another value of a user, as text."""
    if isinstance(value, Mapping):
        return Markup(", ").join(Markup("{} = {}").format(name(key), plain(item)) for key, item in value.items())
    if isinstance(value, list):
        return Markup(", ").join(plain(item) for item in value)
    if value is None or isinstance(value, bool):
        return escape({None: "none", True: "yes", False: "no"}[value])
    return name(value)


def cell(value: Any, unit: str) -> Markup | str:
    """One cell of a sheet on the page; shares in per cent, gaps in points."""
    match unit, value:
        case _, None:
            return ""
        case "name", _:
            return name(value)
        case "settings", _:
            return plain(value)
        case "count", _:
            return f"{value:,}"
        case "share", Mapping():
            return share(value)
        case "share", _:
            return f"{100 * value:.3g}"
        case "gap", Mapping():
            ends = "" if value["low"] is None else f" [{100 * value['low']:+.1f} to {100 * value['high']:+.1f}]"
            return f"{100 * value['value']:+.1f}{ends}"
        case "time", Mapping():
            return _span(value)
    return escape(value)


def _span(value: Mapping[str, float]) -> str:
    """A mean, and the least and the most where they differ."""
    digits = 0 if value["most"] >= 1000 else 1
    ends = "" if value["least"] == value["most"] else f" [{value['least']:,.{digits}f} to {value['most']:,.{digits}f}]"
    return f"{value['mean']:,.{digits}f}{ends}"
