"""Files with the outcome of a gate: JSON, and JUnit XML for continuous integration."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from wemem.errors import InputError
from wemem.files.atomic import write_atomically
from wemem.files.input_files import shown
from wemem.results.folder import require_elsewhere
from wemem.results.gate import FolderGate
from wemem.results.reservations import NAMES, Reservation
from wemem.results.wording import printable

SCHEMA = "wemem.gate/1"


def gate_content(gated: Sequence[FolderGate], waivers: Sequence[str]) -> dict[str, Any]:
    """The outcome as the content of a JSON file."""
    return {
        "schema": SCHEMA,
        "passed": all(result.passed for result in gated),
        "waivers": {name: NAMES[name] for name in waivers},
        "folders": [
            {
                "folder": str(result.folder),
                "results_sha256": result.results_sha256,
                "passed": result.passed,
                "limits": asdict(result.limits),
                "checks": [asdict(one) for one in result.checks],
                "reservations": [asdict(one) for one in result.reservations],
            }
            for result in gated
        ],
    }


def remove_old_outcome(path: Path, folders: Sequence[Path]) -> None:
    """Remove the file of an earlier gate, so that it never stands for one that fails before it
    writes its own.

    Args:
        path: the file that the gate is to write.
        folders: the folders of results that it checks.

    Raises:
        InputError: the path is that of a file of the results, or the file cannot be removed.
    """
    for folder in folders:
        require_elsewhere(folder, path)
    try:
        if path.is_file():
            path.unlink()
    except OSError as error:
        raise InputError(f"cannot remove {shown(path)}: {error.strerror}; remove it by hand") from error


def write_gate_json(path: Path, gated: Sequence[FolderGate], waivers: Sequence[str]) -> None:
    """Write the outcome as JSON.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(gate_content(gated, waivers), indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_junit(path: Path, gated: Sequence[FolderGate]) -> None:
    """Write the outcome as JUnit XML: a suite for each folder, a case for each check and
    reservation.

    A failed limit or reservation is a failure, and a waived reservation is a skipped case.

    Raises:
        InputError: the file cannot be written.
    """
    root = ElementTree.Element("testsuites", name="wemem gate")
    for result in gated:
        suite = ElementTree.SubElement(root, "testsuite", name=printable(str(result.folder)))
        for one in result.checks:
            name = printable(f"{one.label}, {100 * one.sparsity:.3g} % sparsity: {one.measure}")
            case = ElementTree.SubElement(suite, "testcase", classname="limit", name=name)
            if not one.passed:
                ElementTree.SubElement(case, "failure", message=str(one))
        for reservation in result.reservations:
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
