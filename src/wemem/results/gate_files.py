"""The outcome of a gate for other programs: JSON, and JUnit XML as continuous integration shows it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from wemem.files.atomic import write_atomically
from wemem.results.gate import Verdict
from wemem.results.reservations import NAMES, Reservation
from wemem.results.wording import printable

SCHEMA = "wemem.gate/1"


def gate_content(verdicts: Sequence[Verdict], waivers: Sequence[str]) -> dict[str, Any]:
    """The outcome as JSON has it."""
    return {
        "schema": SCHEMA,
        "passed": all(verdict.passed for verdict in verdicts),
        "waivers": {name: NAMES[name] for name in waivers},
        "folders": [
            {
                "folder": str(verdict.folder),
                "results_sha256": verdict.results_sha256,
                "passed": verdict.passed,
                "limits": asdict(verdict.limits),
                "checks": [asdict(one) for one in verdict.checks],
                "reservations": [asdict(one) for one in verdict.reservations],
            }
            for verdict in verdicts
        ],
    }


def write_gate_json(path: Path, verdicts: Sequence[Verdict], waivers: Sequence[str]) -> None:
    """Write the outcome as JSON.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(gate_content(verdicts, waivers), indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_junit(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the outcome as JUnit XML: a suite for each folder, a case for each check and reservation.

    A failed limit or reservation is a failure, and a waived reservation is a skipped case.

    Raises:
        InputError: the file cannot be written.
    """
    root = ElementTree.Element("testsuites", name="wemem gate")
    for verdict in verdicts:
        suite = ElementTree.SubElement(root, "testsuite", name=printable(str(verdict.folder)))
        for one in verdict.checks:
            name = printable(f"{one.label}, {100 * one.sparsity:.3g} % sparsity: {one.measure}")
            case = ElementTree.SubElement(suite, "testcase", classname="limit", name=name)
            if not one.passed:
                ElementTree.SubElement(case, "failure", message=str(one))
        for reservation in verdict.reservations:
            _add(suite, reservation)
        cases = suite.findall("testcase")
        suite.set("tests", str(len(cases)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    text = ElementTree.tostring(root, encoding="unicode", xml_declaration=True)
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _add(suite: ElementTree.Element, reservation: Reservation) -> None:
    name = reservation.name if reservation.label is None else f"{reservation.name} ({reservation.label})"
    case = ElementTree.SubElement(suite, "testcase", classname="reservation", name=printable(name))
    tag = "skipped" if reservation.waived else "failure"
    ElementTree.SubElement(case, tag, message=printable(reservation.text))
