"""Reservations: reasons why a correctly computed leak may underestimate the true one.

A gate fails on each reservation unless it is waived by name.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.files.input_files import shown
from wemem.resolve import did_you_mean
from wemem.results.arms import Arm
from wemem.results.blind import leaking_splits
from wemem.results.folder import RECORDS
from wemem.results.verify import Verified
from wemem.results.wording import per_cent, printable
from wemem.signals import WEIGHTS_HELD

#: Smallest number of reference models for LiRA and RMIA, and of members and non-members.
FEWEST_REFERENCES, FEWEST_RECORDS = 16, 100
#: Kinds of attacks that a gate requires; each is the strongest on some models.
EXPECTED_KINDS = ("lira", "rmia")

#: Reasons that one reservation lists.
SHOWN = 3
#: Names of the reservations for waivers, with their meanings.
NAMES = {
    "non-adaptive": "the adversary's models were not trained and pruned as the audited model was",
    "missing-attacks": f"one of {' and '.join(EXPECTED_KINDS)} was not run",
    "few-references": f"fewer than {FEWEST_REFERENCES} reference models",
    "few-records": f"fewer than {FEWEST_RECORDS} members or non-members",
    "unsupported-fpr": "too few non-members for the false positive rate of the limit",
    "altered-answers": "the defense alters answers; the weights leak more than the answers do",
    "constant-answers": "the audited model gives every record the same answer, as a broken one does",
    "split-leaks": "records alone tell members from non-members, so that figures mean little",
    "other-file": "a model file is missing, or is not the one that was audited",
    "partial": "runs or attacks that were planned are missing",
    "unverified": "the rates cannot be recomputed from records that are bound to the results",
}


@dataclass(frozen=True)
class Reservation:
    """One reason why a measured leak may be too small.

    Args:
        name: the name of the reservation, a key of :data:`NAMES`.
        text: the reason as a phrase, with its figures.
        label: the label of the arm; None for all arms.
        waived: whether the user accepted the reservation.
        waivable: whether it can be accepted by its name.
    """

    name: str
    text: str
    label: str | None = None
    waived: bool = False
    waivable: bool = True

    def __str__(self) -> str:
        arm = "" if self.label is None else f"{printable(self.label)}: "
        if self.waived:
            return f"waived: {arm}{printable(self.text)} ({self.name})"
        remedy = f"accept it by --waive {self.name}" if self.waivable else f"{self.name}, no waiver helps"
        return f"failed: {arm}{printable(self.text)} ({remedy})"


def require_known(waivers: Sequence[str]) -> None:
    """Refuse a waiver with an unknown name.

    Raises:
        InputError: a name is unknown; the message suggests the most similar one.
    """
    for name in waivers:
        if name not in NAMES:
            raise InputError(
                f"expected --waive with one of {', '.join(NAMES)}, got {name!r}{did_you_mean(name, NAMES)}"
            )


def reservations(verified: Verified, chosen: Sequence[Arm], fpr: float | None) -> Iterator[Reservation]:
    """Find all reservations about the results of a folder and the arms that a gate checks.

    Args:
        verified: the verified results.
        chosen: the arms that are checked.
        fpr: the false positive rate of a limit on TPR; None without such a limit.
    """
    for one in verified.findings:
        if one.subject == "runs" and one.passed is False:
            yield Reservation("partial", one.text)
        elif one.file not in (None, *RECORDS) and not one.passed:
            yield Reservation("other-file", one.text)
    if (unverified := _unverified(verified)) is not None:
        yield Reservation("unverified", unverified)
    for entry in leaking_splits(verified.results):
        text = f"seed {entry['seed']}: records alone, without any model, tell members from non-members"
        yield Reservation("split-leaks", f"{text}, AUC {100 * entry['auc']['value']:.1f} %")
    kinds = verified.results.get("planned", {}).get("attacks", {})
    constant = {
        (str(note.get("label")), int(note.get("seed", 0)))
        for note in verified.results["notes"]
        if isinstance(note, Mapping) and note["code"] == "constant_answers"
    }
    for arm in chosen:
        yield from _of_arm(arm, kinds, fpr, constant)


def other_file(arm: Arm, shipped: Path) -> Reservation:
    """A reservation about a file to be released that is no audited model of an arm.

    The user named the file, so a waiver for a missing model file does not accept it.
    """
    text = f"the file {shown(shipped)} is not a model of {arm.label!r} that was audited"
    return Reservation("other-file", text, arm.label, waivable=False)


def arm_of_file(arm: Arm, digest: str, results: Mapping[str, Any]) -> Arm | None:
    """The runs of an arm whose audited model is the file of that SHA-256; None if there are none."""
    runs = tuple(run for run in arm.runs if digest in _digests(run, results))
    return replace(arm, runs=runs) if runs else None


def _unverified(verified: Verified) -> str | None:
    """Phrases on rates that cannot be recomputed, and on content or records that no hash binds to
    the results.
    """
    rates = [one for one in verified.findings if one.subject == "rates"]
    others = [one for one in verified.findings if one.subject in ("targets", "canaries", "study")]
    bound = [one for one in verified.findings if one.subject == "files" and one.file in (None, *RECORDS)]
    texts = ["no rates to verify"] if not rates else []
    texts += [one.text for one in [*rates, *others, *bound] if not one.passed]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more if texts else None


def _digests(run: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    """SHA-256 of the files that were audited as the model of a run."""
    files = results.get("files", {})
    written = [files[run["model_file"]]] if run.get("model_file") in files else []
    return [*written, *([run["audited_file"]["sha256"]] if "audited_file" in run else [])]


def _of_arm(
    arm: Arm, kinds: Mapping[str, str], fpr: float | None, constant: Collection[tuple[str, int]]
) -> Iterator[Reservation]:
    audits = [audit for run in arm.runs for audit in run["attacks"].values()]
    if not all(run["certificate"]["adaptive"] for run in arm.runs) or not all(audit["adaptive"] for audit in audits):
        yield Reservation("non-adaptive", NAMES["non-adaptive"], arm.label)
    ran = [{kinds.get(name, name) for name in run["attacks"]} for run in arm.runs]
    missing = [kind for kind in EXPECTED_KINDS if not all(kind in names for names in ran)]
    if missing:
        yield Reservation("missing-attacks", f"not run on every model: {' and '.join(missing)}", arm.label)
    references = min(
        (audit["reference_models"] for run in arm.runs for name, audit in run["attacks"].items()
         if kinds.get(name, name) in EXPECTED_KINDS), default=FEWEST_REFERENCES,
    )  # fmt: skip
    if references < FEWEST_REFERENCES:
        text = f"{references} reference models, expected at least {FEWEST_REFERENCES}"
        yield Reservation("few-references", text, arm.label)
    members, others = (min(audit[side] for audit in audits) for side in ("members", "nonmembers"))
    if min(members, others) < FEWEST_RECORDS:
        text = f"{members} members and {others} non-members, expected at least {FEWEST_RECORDS} of each"
        yield Reservation("few-records", text, arm.label)
    smallest = max(audit["smallest_fpr"] for audit in audits)
    if fpr is not None and smallest > fpr:
        text = f"{others} non-members support no FPR below {per_cent(smallest)}, the limit is at {per_cent(fpr)}"
        yield Reservation("unsupported-fpr", text, arm.label)
    if any((arm.label, run["seed"]) in constant for run in arm.runs):
        yield Reservation("constant-answers", NAMES["constant-answers"], arm.label)
    if any(_alters(run) for run in arm.runs):
        yield Reservation("altered-answers", NAMES["altered-answers"], arm.label)


def _alters(run: Mapping[str, Any]) -> bool:
    """True if the defense of a run alters answers and its weights were not attacked.

    Results of version 1 lack the field; the name of the defense decides.
    """
    altered = run.get("altered_answers")
    if not ("hamp" in run["defense"].split("+") if altered is None else altered):
        return False
    return not any(name.endswith(WEIGHTS_HELD) for name in run["attacks"])
