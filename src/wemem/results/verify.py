"""Verification of a folder of results: file hashes, and rates recomputed from the records.

Hashes prove that the files are those that ``results.json`` was written with. They do not prove who
wrote it, since anyone who can change the folder can change the hashes too. That takes a signature
over ``results.json`` that is kept outside of the folder.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wemem.errors import InputError
from wemem.files.hashing import file_sha256, sha256_of
from wemem.files.input_files import exists
from wemem.metrics.intervals import Estimate, proportion
from wemem.metrics.registry import METRICS, ScoredRecords
from wemem.metrics.strongest import strongest
from wemem.results.canary_records import canary_differences, read_canaries
from wemem.results.content_hash import CONTENT_SHA256
from wemem.results.folder import CANARIES, RECORDS, RESULTS, SAMPLES, TARGETS, is_inside
from wemem.results.per_record import RunScores, read_scores, recorded_audits
from wemem.results.read import read_results
from wemem.results.target_records import read_targets
from wemem.results.verify_targets import EVERY_FIGURE, target_differences
from wemem.signals import WEIGHTS_HELD

#: Largest difference between a stored and a recomputed number that is attributed to rounding.
ROUNDING = 1e-9

#: Subjects whose failure is a change of the results.
FORGEABLE = ("study", "rates", "targets", "canaries")

Subject = Literal["study", "files", "runs", "rates", "targets", "canaries"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one verification.

    Args:
        subject: the statement that is verified. ``study``: the settings have the stored hash, and
            a hash binds the content of ``results.json``.
            ``files``: a file exists and has the stored hash. ``runs``: all planned runs and attacks
            exist. ``rates``: the stored rates follow from the records. ``targets``: so do the
            figures of leave-one-out audits. ``canaries``: so do the rates on canaries.
        passed: whether the statement holds; None if it cannot be verified.
        text: the outcome as a phrase.
        file: the path of the file in the folder, for the subject ``files``.
    """

    subject: Subject
    passed: bool | None
    text: str
    file: str | None = None


@dataclass(frozen=True, eq=False)
class Verified:
    """Results with the outcome of their verification.

    Args:
        folder: the folder of results.
        results: the content of ``results.json``.
        sha256: the SHA-256 of ``results.json``, for a signature outside of the folder.
        findings: the outcomes of all verifications.
    """

    folder: Path
    results: Mapping[str, Any]
    sha256: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """True if every statement was verified and holds."""
        return all(one.passed for one in self.findings)

    @property
    def forged(self) -> list[Finding]:
        """Failures that cannot be waived: changed settings or records, and rates that contradict
        the records.
        """
        wrong = [one for one in self.findings if one.passed is False]
        return [one for one in wrong if one.subject in FORGEABLE or one.file in RECORDS]

    @property
    def recomputed(self) -> bool:
        """True if every rate was recomputed from the records and agrees."""
        rates = [one.passed for one in self.findings if one.subject == "rates"]
        return bool(rates) and all(rates)


def verify(folder: Path, over_targets: Collection[str] = EVERY_FIGURE) -> Verified:
    """Read a folder of results and compare them with its files and records.

    Args:
        folder: the output directory of a study or an audit.
        over_targets: the names of the leave-one-out figures to recompute, of
            :data:`~wemem.results.verify_targets.EVERY_FIGURE`.

    Raises:
        InputError: the results cannot be read or have contradictions, or the table has other
            records.
    """
    results = read_results(folder)
    findings = [
        *_study(results), *_files(folder, results), *_runs(folder, results), *_rates(folder, results),
        *_targets(folder, results, over_targets), *_canaries(folder, results["runs"]),
    ]  # fmt: skip
    return Verified(folder, results, file_sha256(folder / RESULTS), tuple(findings))


def _study(results: Mapping[str, Any]) -> Iterator[Finding]:
    if "study_sha256" not in results:
        yield Finding("study", None, "results of version 1 have no SHA-256 of the study; run it again")
    else:
        passed = sha256_of(results["study"]) == results["study_sha256"]
        yield Finding("study", passed, f"the study's settings {'have' if passed else 'do not have'} the stored SHA-256")
        if CONTENT_SHA256 not in results:
            yield Finding("study", None, "no SHA-256 binds the content of results.json; run the study again")


def _files(folder: Path, results: Mapping[str, Any]) -> Iterator[Finding]:
    files = results.get("files", {})
    if "files" not in results:
        yield Finding("files", None, "results of version 1 have no SHA-256 of files; run the study again")
    for name in _unbound(folder, results) if "files" in results else ():
        yield Finding("files", None, f"no SHA-256 binds {name} to the results; run the study again", name)
    for name, digest in files.items():
        path = folder / name
        if not is_inside(name):
            yield Finding("files", False, f"{name} is outside of the folder", name)
            continue
        try:
            same = file_sha256(path) == digest
        except InputError:
            yield Finding("files", None, f"{name} is missing or cannot be read", name)
            continue
        text = f"{name} is unchanged" if same else f"{name} is not the file that was audited"
        yield Finding("files", same, text, name)


def _unbound(folder: Path, results: Mapping[str, Any]) -> Iterator[str]:
    """Files of records that no hash binds to the results."""
    if SAMPLES not in results["files"]:
        yield SAMPLES
    for name in (TARGETS, CANARIES):
        if name not in results["files"] and exists(folder / name, "the records of an audit"):
            yield name


def _runs(folder: Path, results: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _unlisted(folder, results["runs"])
    planned = results.get("planned")
    if planned is None:
        yield Finding("runs", None, "results of version 1 have no list of planned runs; run the study again")
        return
    counts: dict[tuple[str, int], int] = {}
    for run in results["runs"]:
        arm = run["label"], run["seed"]
        counts[arm] = counts.get(arm, 0) + 1
        # attacks on the weights alone have the label of that channel where answers are altered
        ran = {*run["attacks"], *(name.removesuffix(WEIGHTS_HELD) for name in run["attacks"])}
        missing = [name for name in planned["attacks"] if ran and name not in ran]
        if missing:
            yield Finding("runs", False, f"{arm[0]!r}, seed {arm[1]}, lacks the planned attack {', '.join(missing)}")
    for label, count in planned["runs"].items():
        for seed in planned["seeds"]:
            if (got := counts.get((label, seed), 0)) != count:
                yield Finding("runs", False, f"{label!r}, seed {seed}, has {got} of {count} planned runs")
    yield Finding("runs", True, f"{len(results['runs'])} runs exist")


def _unlisted(folder: Path, runs: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Audits that left records, and that the results no longer name."""
    recorded = recorded_audits(folder)
    for label, seed in sorted(recorded.runs - {(run["label"], run["seed"]) for run in runs}):
        yield Finding("runs", False, f"{label!r}, seed {seed}, has records and is not among the results")
    for name in sorted(recorded.attacks - {name for run in runs for name in run["attacks"]}):
        yield Finding("runs", False, f"the attack {name} has scores and is not among the results")


def _rates(folder: Path, results: Mapping[str, Any]) -> Iterator[Finding]:
    for run, scores in zip(results["runs"], read_scores(folder, results["runs"]), strict=True):
        if not run["attacks"]:
            continue
        name = _name(run)
        if scores is None:
            yield Finding("rates", None, f"{name}: no per_sample.parquet to recompute the rates from")
            continue
        wrong = list(differences(run, scores))
        yield from (Finding("rates", False, f"{name}: {one}") for one in wrong)
        missing = unrecorded(run, scores)
        if missing:
            yield Finding("rates", None, f"{name}: the records lack {', '.join(missing)}")
        if not wrong and not missing:
            yield Finding("rates", True, f"{name}: every rate follows from {len(scores.member):,} records")


def _targets(folder: Path, results: Mapping[str, Any], figures: Collection[str]) -> Iterator[Finding]:
    runs = results["runs"]
    audited = {i for i, run in enumerate(runs) if run.get("leave_one_out")}
    if not figures or not (audited or exists(folder / TARGETS, "the records of leave-one-out audits")):
        return
    for i, targets in read_targets(folder, runs):
        audited.discard(i)
        name, wrong = _name(runs[i]), list(target_differences(runs[i], targets, figures))
        yield from (Finding("targets", False, f"{name}: {one}") for one in wrong)
        if not wrong:
            text = f"{name}: every leave-one-out figure follows from {len(targets.member)} targets"
            yield Finding("targets", True, text)
    for i in sorted(audited):
        yield Finding("targets", None, f"{_name(runs[i])}: no {TARGETS} to recompute the leave-one-out figures from")


def _canaries(folder: Path, runs: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    without = {i for i, run in enumerate(runs) if run.get("canaries")}
    for i, canaries in read_canaries(folder, runs):
        without.discard(i)
        name, wrong = _name(runs[i]), list(canary_differences(runs[i], canaries))
        yield from (Finding("canaries", False, f"{name}: {one}") for one in wrong)
        if not wrong:
            text = f"{name}: every rate on canaries follows from {canaries.membership.size:,} attacked records"
            yield Finding("canaries", True, text)
    for i in sorted(without):
        yield Finding("canaries", None, f"{_name(runs[i])}: no {CANARIES} to recompute the rates on canaries from")


def _name(run: Mapping[str, Any]) -> str:
    return f"{run['label']!r}, {100 * run['sparsity']:.3g} % sparsity, seed {run['seed']}"


def unrecorded(run: Mapping[str, Any], scores: RunScores) -> list[str]:
    """Numbers of a run that cannot be recomputed, because the records lack their columns."""
    missing = [name for name in run["attacks"] if name not in scores.scores or name not in scores.called]
    return missing if scores.correct is not None else [*missing, "test accuracy"]


def differences(run: Mapping[str, Any], scores: RunScores) -> Iterator[str]:
    """Find numbers of a run that differ from those recomputed from its records."""
    attacks = {
        name: ScoredRecords(scores.scores[name], scores.member, scores.called[name])
        for name in run["attacks"]
        if name in scores.scores and name in scores.called
    }
    for metric in METRICS.values():
        measured = {name: metric.interval(records, 0.95) for name, records in attacks.items()}
        for name, estimate in measured.items():
            stored = metric.read(run["attacks"][name])
            if stored is not None:
                yield from _compare(f"{name} {metric.phrase}", stored, estimate)
        if metric.name in run["worst"] and attacks.keys() == run["attacks"].keys():
            worst = run["worst"][metric.name]
            _, estimate = strongest(attacks, measured, metric)
            yield from _compare(f"worst {metric.phrase}", Estimate(worst["value"], *worst["ci"]), estimate)
    if scores.correct is not None:
        right = scores.correct[~scores.member]
        accuracy = run["accuracy"]
        stored = Estimate(accuracy["test"], *accuracy["test_ci"])
        if len(right) == accuracy["test_records"]:
            yield from _compare("test accuracy", stored, proportion(int(right.sum()), len(right)))
        else:
            yield f"test accuracy is of {accuracy['test_records']} records, the table has {len(right)} non-members"


def _compare(what: str, stored: Estimate, computed: Estimate) -> Iterator[str]:
    ends: Sequence[tuple[str, float, float]] = (
        ("is", stored.value, computed.value),
        ("has the lower end", stored.low, computed.low),
        ("has the upper end", stored.high, computed.high),
    )
    for verb, value, recomputed in ends:
        if abs(value - recomputed) > ROUNDING:
            yield f"{what} {verb} {value:.6g}, its records give {recomputed:.6g}"
            return
