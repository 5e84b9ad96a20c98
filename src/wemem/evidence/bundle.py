"""The bundle: a zip file whose parts are bound by a manifest of hashes.

==================  ==============================================================================
part                content
==================  ==============================================================================
evidence.html       for people
evidence.json       every statement and number, ``wemem.evidence/1``
results.json        the results from which it was made, byte for byte
model_card.md       a model card
attack_results.json the attack results in the form of SACRO-ML
manifest.json       SHA-256 of the other parts
==================  ==============================================================================

Hashes prove that the parts belong together. They do not prove who wrote them: sign the bundle for
that.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from wemem.errors import InputError
from wemem.evidence.content import SCHEMA, evidence_content, from_records, from_results
from wemem.evidence.model_card import model_card
from wemem.files.atomic import write_atomically
from wemem.files.documents import JSON_LIMIT, parse_json
from wemem.files.input_files import open_file, read_bytes
from wemem.files.npz import require_short_directory
from wemem.metrics.registry import METRICS, metrics_for
from wemem.reporting.html import POLICY, name, plain, prose, share
from wemem.reporting.release import contradicts
from wemem.results.folder import RESULTS
from wemem.results.gate import Limits
from wemem.results.read import faults
from wemem.results.verify import Finding

PAGE, CONTENT, CARD, FORM, MANIFEST = (
    "evidence.html", "evidence.json", "model_card.md", "attack_results.json", "manifest.json",
)  # fmt: skip
PARTS = (PAGE, CONTENT, RESULTS, CARD, FORM, MANIFEST)
#: Statements that follow from the records, which are not in the bundle.
FROM_RECORDS = {
    "release": "the answer", "exposed": "the list of exposed records", "subgroups": "the table of groups",
    "disclosure_form": FORM,
}  # fmt: skip
#: Bytes of a part.
PART_LIMIT = JSON_LIMIT
#: The time of every part in the zip file, so that equal evidence has equal bytes.
NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_bundle(folder: Path, out: Path, author: str, written_at: str, limits: Limits | None = None) -> str:
    """Write the evidence on a folder of results.

    Args:
        folder: the ``--out`` folder of a study or an audit.
        out: the zip file to write.
        author: the person or body that hands the evidence over.
        written_at: the time, as text.
        limits: the limits of the answer; a stated profile if None.

    Returns:
        The SHA-256 of the manifest.

    Raises:
        InputError: results that contradict their files, or a file that cannot be written.
    """
    if out.suffix.lower() != ".zip":
        raise InputError(f"expected --out with a file that ends in .zip, got {out.name!r}; name it evidence.zip")
    content = evidence_content(folder, author, written_at, limits)
    results = read_bytes(folder / RESULTS, "results", limit=JSON_LIMIT)
    if sha256(results).hexdigest() != content["results_sha256"]:
        raise InputError(f"expected {folder / RESULTS} to stay as it is, got another file meanwhile; try again")
    parts = {**_derived(content), CONTENT: _json(content), RESULTS: results}
    parts[MANIFEST] = _json(
        {"schema": SCHEMA, "sha256": {part: sha256(parts[part]).hexdigest() for part in sorted(parts)}}
    )
    if (largest := max(map(len, parts.values()))) > PART_LIMIT:
        raise InputError(
            f"expected parts of at most {PART_LIMIT:,} bytes, got {largest:,}; hand over fewer runs in one bundle"
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in PARTS:
            archive.writestr(zipfile.ZipInfo(part, NO_TIME), parts[part], zipfile.ZIP_DEFLATED)
    write_atomically(out, lambda path: path.write_bytes(packed.getvalue()))
    return sha256(parts[MANIFEST]).hexdigest()


def verify_bundle(path: Path, folders: Sequence[Path] = ()) -> tuple[str, list[Finding]]:
    """Verify the hashes of a bundle, and derive again all that follows from its parts.

    Args:
        path: the bundle.
        folders: folders of results. From the records in that of the bundle's results, the answer,
            the exposed records, the groups and the attack results are computed again.

    Returns:
        The SHA-256 of the manifest, and the outcomes.

    Raises:
        InputError: no bundle.
    """
    parts = _read(path)
    manifest = _object(parts[MANIFEST], MANIFEST)
    digest = sha256(parts[MANIFEST]).hexdigest()
    listed = manifest.get("sha256")
    if manifest.get("schema") != SCHEMA or not isinstance(listed, dict) or set(listed) != {*PARTS} - {MANIFEST}:
        raise InputError(f"expected a manifest of {SCHEMA} in {path}, got another one; write the bundle again")
    same = {part: sha256(parts[part]).hexdigest() == listed[part] for part in sorted(listed)}
    findings = [
        Finding("files", passed, f"{part} is {'' if passed else 'not '}the part of the manifest", part)
        for part, passed in same.items()
    ]
    follows = list(_follows(parts))
    whole = all(one.passed for one in [*findings, *follows])
    return digest, [*findings, *follows, *(_recomputed(parts, folders) if whole else ())]


def _follows(parts: Mapping[str, bytes]) -> Iterator[Finding]:
    """The statements of the evidence, derived again from the results in the bundle."""
    content, results = _object(parts[CONTENT], CONTENT), _object(parts[RESULTS], RESULTS)
    bound = content.get("results_sha256") == sha256(parts[RESULTS]).hexdigest()
    yield Finding("study", bound, f"the evidence is {'' if bound else 'not '}of these results")
    wrong = next(faults(results), None)
    if wrong is not None:
        yield Finding("rates", False, f"results.json is broken: {wrong}")
        return
    environment = content.get("environment")
    written_with = environment.get("wemem") if isinstance(environment, dict) else None
    if written_with != version("wemem"):
        yield Finding("rates", None, f"the evidence is of version {str(written_with)[:40]}, which derives other words")
        return
    derived = json.loads(_json(from_results(results)))
    differing = [key for key, value in derived.items() if content.get(key) != value]
    text = f"differ from the results: {', '.join(differing)}" if differing else "follow from the results"
    yield Finding("rates", not differing, f"the statements of evidence.json {text}")
    allowed = not contradicts(content.get("release"), results, _limits(content))
    yield Finding("rates", allowed, f"the answer {'follows' if allowed else 'does not follow'} from the results")
    if differing or not allowed or not _has_numbers(content):
        yield Finding("rates", False, "the documents were not derived again, since evidence.json was changed")
        return
    try:
        documents = _derived(content)
    except Exception as error:  # a changed evidence.json may lack anything
        yield Finding("rates", False, f"evidence.json is not complete: {type(error).__name__}")
        return
    for part, rendered in documents.items():
        passed = parts[part] == rendered
        yield Finding("files", passed, f"{part} {'follows' if passed else 'does not follow'} from evidence.json", part)


def _recomputed(parts: Mapping[str, bytes], folders: Sequence[Path]) -> Iterator[Finding]:
    """The statements that follow from the records, computed again where their folder is given."""
    content = _object(parts[CONTENT], CONTENT)
    for folder in folders:
        if (
            not (folder / RESULTS).is_file()
            or read_bytes(folder / RESULTS, "results", limit=PART_LIMIT) != parts[RESULTS]
        ):
            continue
        derived = json.loads(_json(from_records(folder, _limits(content), str(content["written"]["at"]))))
        for key, value in derived.items():
            same = content.get(key) == value
            words = f"{FROM_RECORDS[key]} {'follows' if same else 'does not follow'} from the records of the folder"
            yield Finding("rates", same, words)


def _limits(content: Mapping[str, Any]) -> Limits | None:
    """The limits of the answer; those of the profile if there are none that can be read."""
    given = content.get("limits")
    try:
        return Limits(**given) if isinstance(given, dict) else None
    except (InputError, TypeError):
        return None


def _has_numbers(content: Mapping[str, Any]) -> bool:
    """True if the groups hold numbers where the page computes with them."""
    try:
        shares = [group["tpr"] for one in content["subgroups"] for group in one["groups"]]
        return all(isinstance(share[end], int | float) for share in shares for end in ("value", "low", "high"))
    except (KeyError, TypeError):
        return False


def _derived(content: Mapping[str, Any]) -> dict[str, bytes]:
    """The parts that are made of ``evidence.json`` alone."""
    return {
        PAGE: _page(content).encode("utf-8", "backslashreplace"),
        CARD: model_card(content).encode("utf-8", "backslashreplace"),
        FORM: _json(content["disclosure_form"]),
    }


def _page(content: Mapping[str, Any]) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(name=name, share=share, plain=plain, prose=prose)
    template = environment.from_string(files("wemem.evidence").joinpath("evidence.html.jinja").read_text("utf-8"))
    labels = {metric.name: metric.label for metric in METRICS.values()}
    shown = {metric.name: f"{metric.label} (%)" for metric in metrics_for("table")}
    return template.render(content=content, labels=labels, shown=shown, policy=POLICY)


def _read(path: Path) -> dict[str, bytes]:
    """The parts, within limits of number and size."""
    try:
        with open_file(path, "a bundle of evidence") as file:
            require_short_directory(file)
            archive = zipfile.ZipFile(file)
            if sorted(archive.namelist()) != sorted(PARTS):
                raise InputError(f"expected {', '.join(PARTS)} in {path}, got other files; write the bundle again")
            return {part: _part(archive, part, path) for part in PARTS}
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: expected a whole bundle, got a damaged one ({reason}); write it again") from error


def _part(archive: zipfile.ZipFile, part: str, path: Path) -> bytes:
    with archive.open(part) as file:
        content = file.read(PART_LIMIT + 1)
    if len(content) > PART_LIMIT:
        raise InputError(f"expected {part} in {path} of at most {PART_LIMIT:,} bytes, got more; write the bundle again")
    return content


def _object(text: bytes, part: str) -> dict[str, Any]:
    value = parse_json(text, f"{part} of a bundle")
    if not isinstance(value, dict):
        raise InputError(f"expected an object in {part} of a bundle, got {type(value).__name__}; write it again")
    return value


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
