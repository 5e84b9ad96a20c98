"""Coverage of published lists of tests: the EDPB's Opinion 28/2024 and OWASP AISVS, chapter C11.

The tables state facts about an audit. They interpret no law and grant no conformity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wemem.results.arms import Arm

Status = Literal["executed", "not run", "out of scope"]

EDPB = (
    "EDPB Opinion 28/2024 (17 December 2024), paragraph 55: resistance to state-of-the-art attacks, by structured tests"
)
AISVS = "OWASP AISVS 1.0, chapter C11; its numbers may change between versions"


@dataclass(frozen=True)
class Row:
    """One listed test.

    Args:
        source: the list.
        test: the test as the list names it, with its number if it has one.
        status: whether the audit executed it.
        basis: the reason for the status.
    """

    source: str
    test: str
    status: Status
    basis: str


def coverage(rows: Sequence[Arm], facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of both lists for an audit.

    Args:
        rows: the audited arms.
        facts: ``attacks``, the names of the attacks that were run.
    """
    executed = bool(facts["attacks"])
    listed = f"{len(facts['attacks'])} attacks: {', '.join(facts['attacks'])}" if executed else "no attack was run"
    inference: Status = "executed" if executed else "not run"
    absent = "WeMem has no such test"
    private = [arm.label for arm in rows if any("privacy" in run for run in arm.runs)]
    altered = [arm.label for arm in rows if arm.answers_only]
    found = [
        Row(EDPB, "membership inference", inference, listed),
        Row(EDPB, "attribute inference", "not run", absent),
        Row(EDPB, "exfiltration", "not run", absent),
        Row(EDPB, "regurgitation of training data", "out of scope", "a classifier returns scores of classes"),
        Row(EDPB, "model inversion", "not run", absent),
        Row(EDPB, "reconstruction attacks", "not run", absent),
        Row(
            AISVS, "11.3.1 calibrated outputs", "executed" if altered else "not run",
            f"answers are altered by {', '.join(altered)}" if altered else "calibration was not measured",
        ),
        Row(
            AISVS, "11.3.2 differentially private optimization with a documented budget",
            "executed" if private else "not run",
            f"nominal budget for {', '.join(private)}" if private else "no arm was trained with DP-SGD",
        ),
        Row(AISVS, "11.3.3 simulated membership inference attacks", inference, listed),
        Row(AISVS, "11.4 model inversion", "not run", absent),
        Row(AISVS, "11.5 model extraction", "out of scope", "a property of the service, not of the model file"),
        Row(AISVS, "11.1, 11.2, 11.6 to 11.10", "out of scope", "no controls of membership inference"),
    ]  # fmt: skip
    return [asdict(row) for row in found]
