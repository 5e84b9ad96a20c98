"""Reader of ``results.json``, which validates the schema and rejects contradictions."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from wemem.errors import InputError
from wemem.files.documents import read_json
from wemem.results.contradictions import contradictions
from wemem.results.schema import results_schema

#: Version numbers by the value of ``schema`` in the file.
VERSIONS = {"wemem.results/1": 1, "wemem.results/2": 2}
#: Fields of the certificate in version 1, with their names in version 2.
RENAMED = {
    "victim_made_as": "victim_recipe_fingerprint",
    "adversary_made_as": "adversary_recipe_fingerprints",
}


def read_results(folder: Path) -> dict[str, Any]:
    """Read ``results.json`` from a folder, with the field names of version 2.

    Results of version 1 keep their ``schema``. They have no hashes, so nothing binds them to models
    or records.

    Args:
        folder: the ``--out`` folder of a study or an audit.

    Raises:
        InputError: the file is missing, exceeds 16 MiB, is not JSON, has an unknown schema, or has
            contradictions (:func:`~wemem.results.contradictions.contradictions`).
    """
    path = folder / "results.json"
    remedy = "give the --out folder of a study or an audit"
    try:
        content = read_json(path, "results")
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from error
    wrong = next(faults(content), None)
    if wrong is not None:
        raise InputError(f"expected results of schema {' or '.join(VERSIONS)} in {path}, got: {wrong}; {remedy}")
    return _with_current_names(content)


def faults(results: object) -> Iterator[str]:
    """Find violations of the schema of results and, if there are none, contradictions.

    >>> next(faults([]))
    "$: [] is not of type 'object'"
    """
    version = VERSIONS.get(str(results.get("schema")), 2) if isinstance(results, dict) else 2
    wrong = False
    for error in _validator(1 if version == 1 else 2).iter_errors(results):
        wrong = True
        # a message can contain the whole invalid value
        yield f"{error.json_path}: {error.message[:100]}"
    if not wrong and isinstance(results, dict):
        yield from (f"contradiction: {one}" for one in contradictions(results))


def _items(validator: Any, items: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """The keyword ``items``, which passes over lists of plain numbers: leave-one-out audits have
    tens of thousands.
    """
    plain = items == {"type": "number"} and isinstance(instance, list) and {*map(type, instance)} <= {int, float}
    if not plain:
        yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance, schema) or ()


@cache
def _validator(version: Literal[1, 2]) -> Any:
    """The validator of a schema; a reference is looked up in its definitions, which is faster than
    resolving it as a URL.
    """
    schema = results_schema(version)
    definitions = {f"#/$defs/{name}": definition for name, definition in schema["$defs"].items()}

    def reference(validator: Any, name: str, instance: Any, schema: Any) -> Iterator[Any]:
        yield from validator.descend(instance, definitions[name])

    return extend(Draft202012Validator, {"items": _items, "$ref": reference})(schema)


def _with_current_names(results: Mapping[str, Any]) -> dict[str, Any]:
    runs = [{**run, "certificate": _renamed(run["certificate"])} for run in results["runs"]]
    return {**results, "runs": runs}


def _renamed(certificate: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(name, name): value for name, value in certificate.items()}
