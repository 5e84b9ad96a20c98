"""A model card in Markdown with the metadata that Hugging Face reads."""

import json
import re
from collections.abc import Mapping
from typing import Any

from wemem.metrics.registry import METRICS
from wemem.results.wording import per_cent, printable

#: Characters that mean something in Markdown or HTML.
MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~=&$@-])")


def model_card(content: Mapping[str, Any]) -> str:
    """The card; names from users are escaped.

    Args:
        content: the content of ``evidence.json``.
    """
    lines = ["---", *_metadata(content), "---", "", f"# {plain(content['study']['name'] or 'Audited model')}", ""]
    lines += [f"**{content['statement']}**", ""]
    if content["release"] is not None:
        lines += [
            "## May it ship?",
            "",
            plain(content["release"]["answer"]),
            "",
            plain(content["release"]["limits"]),
            "",
        ]
        lines += [*(f"- {plain(one)}" for one in content["release"]["reservations"]), ""]
    lines += [
        "## Leakage",
        "",
        "| model | test accuracy (%) | measure | strongest attack | value (%) | by chance (%) |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    for arm in content["arms"]:
        for name, one in arm["strongest"].items():
            cells = (
                plain(arm["label"]), _share(arm["accuracy"]), METRICS[name].label, plain(one["attack"]), _share(one),
                f"{100 * one['chance']:.1f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Not tested", ""]
    lines += [f"- {plain(row['test'])}: {row['status']}, {plain(row['basis'])}" for row in content["coverage"]
              if row["status"] != "executed"]  # fmt: skip
    lines += ["", "## Data and training", ""]
    data = content["data"]
    lines += [
        f"{plain(data['name'])}: {data['records']:,} records, {data['classes']} classes.",
        "",
        plain(content["power"]),
    ]
    return "\n".join(lines) + "\n"


def plain(text: object) -> str:
    r"""A text of one line in which Markdown and HTML mean nothing.

    >>> print(plain("<b>|x"))
    \<b\>\|x
    """
    return MARKUP.sub(r"\\\1", printable(str(text)))


def _metadata(content: Mapping[str, Any]) -> list[str]:
    """The lines of YAML; every text is a JSON string, which YAML reads."""
    lines = ["library_name: pytorch", "pipeline_tag: other", "tags:", "- privacy", "- membership-inference", "- wemem"]
    lines += ["metrics:", "- accuracy", "model-index:"]
    for arm in content["arms"]:
        lines += [f"- name: {_quoted(arm['label'] + ' at ' + per_cent(arm['sparsity']) + ' sparsity')}", "  results:"]
        lines += ["  - task:", "      type: other", "      name: Classification", "    dataset:"]
        lines += ["      type: other", f"      name: {_quoted(content['data']['name'])}", "    metrics:"]
        lines += ["    - type: accuracy", "      name: Test accuracy", f"      value: {arm['accuracy']['value']:.6g}"]
        for name, one in arm["strongest"].items():
            lines += [f"    - type: {_quoted('membership_inference_' + name)}"]
            lines += [f"      name: {_quoted(METRICS[name].label + ' of the strongest attack')}"]
            lines += [f"      value: {one['value']:.6g}"]
    return lines


def _quoted(text: str) -> str:
    return json.dumps(printable(text), ensure_ascii=False)


def _share(estimate: Mapping[str, Any]) -> str:
    return f"{100 * estimate['value']:.1f} ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"
