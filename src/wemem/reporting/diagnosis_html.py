"""A diagnosis on one page, which needs no other file and no network."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from wemem.files.atomic import write_atomically
from wemem.reporting.diagnosis import DECISIONS, EFFECTS, LIMITS, diagnosis_sentences, estimate, points
from wemem.reporting.diagnosis_figures import write_figures

CAPTIONS = {
    "effects": "The three effects that name the scenario.",
    "rounds": "Fresh against reused records at equal records and epochs a round, memorable against typical ones. A "
    "fresh record has been shown once, whatever the round; a reused one as often as rounds have passed.",
    "exposures": "Number of exposures against leakage, within one and the same model.",
    "ordinary": "The ordinary way, all records every round: pruned iteratively, at once, or not at all, for as long.",
}
TEMPLATE = Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Diagnosis of {{ name }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.5rem } img { max-width: 100% } pre { background: #f3f3f3; padding: .8rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left }
tr { border-bottom: 1px solid #ddd }
figure { margin: 1.5rem 0 } figcaption, footer { font-size: .85rem; color: #555 }
</style></head><body>
<h1>Diagnosis of {{ name }}: {{ sentences[0] }}</h1>
<table><tr><th>Effect on leakage</th><th>Points</th><th></th></tr>
{% for effect in effects %}
<tr><td>{{ effect.title }}</td><td>{{ effect.points }}</td><td>{{ effect.decision }}</td></tr>
{% endfor %}</table>
{% for line in sentences[1:] %}<p>{{ line }}</p>
{% endfor %}{% if snippet %}<pre>{{ snippet }}</pre>{% endif %}
{% for figure in figures %}<figure><img alt="{{ figure.caption }}" src="data:image/svg+xml;base64,{{ figure.data }}">
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}<p>{{ limits }}</p>
<footer>{{ data.name }}, {{ data.records }} records, {{ data.classes }} classes. Each of {{ design.models }} models
trains on {{ design.records }} of {{ design.pool }} records. In the controlled arms {{ design.base }} of them train the
dense model and each round shows {{ design.part }} others; {{ design.rounds }} rounds of {{ design.epochs }} epochs to
sparsity {{ design.sparsity }}.</footer>
</body></html>
"""
)


def write_diagnosis(diagnosis: Mapping[str, Any], folder: Path) -> Path:
    """Write the page, and its figures in the folder ``figures`` beside it.

    Args:
        diagnosis: the content of ``diagnosis.json``.
        folder: the output directory, created if missing.

    Returns:
        The page, ``diagnosis.html``.
    """
    page, text = folder / "diagnosis.html", _page(diagnosis, write_figures(diagnosis, folder / "figures"))
    write_atomically(page, lambda part: part.write_text(text, encoding="utf-8"))
    return page


def _page(diagnosis: Mapping[str, Any], figures: Sequence[Path]) -> str:
    effects = [
        {"title": EFFECTS[e["name"]], "points": points(estimate(e)), "decision": DECISIONS[e["decision"]]}
        for e in diagnosis["scenario"]["effects"]
    ]
    shown = [{"caption": CAPTIONS[path.stem], "data": b64encode(path.read_bytes()).decode()} for path in figures]
    return TEMPLATE.render(
        name=diagnosis["study"]["name"], sentences=diagnosis_sentences(diagnosis), effects=effects, figures=shown,
        snippet=diagnosis["scenario"]["snippet"], limits=LIMITS, data=diagnosis["data"], design=diagnosis["design"],
    )  # fmt: skip
