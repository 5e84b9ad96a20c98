"""``results.json`` read back, by those who did not write it: checked against the schema before anything is believed."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wemem.errors import InputError
from wemem.study.schema import results_schema

#: Bytes; a study of 100 runs under ten attacks takes under one million.
MOST = 64 * 2**20

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip


def read_results(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``results.json``.

    Raises:
        InputError: no such file, over 64 MiB, not JSON, not of the schema, or at odds with itself: an interval with its
            ends swapped, a strongest attack that was not run, one run twice.
    """
    path = folder / "results.json"
    remedy = "give the --out folder of a study or an audit"
    try:
        if not path.is_file():
            raise InputError(f"expected a file {path}, got none; {remedy}")
        with path.open("rb") as file:
            text = file.read(MOST + 1)
        if len(text) > MOST:
            raise InputError(f"expected {path} of at most {MOST >> 20} MiB, got more; {remedy}")
        found = json.loads(text, parse_constant=_number, parse_float=_number)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected JSON in {path}, got a broken file ({error}); {remedy}") from error
    wrong = next(faults(found), None)
    if wrong is not None:
        raise InputError(f"expected results of schema wemem.results/1 in {path}, got a file where {wrong}; {remedy}")
    return dict(found)


def faults(results: object) -> Iterator[str]:
    """What in a value is not as the schema of results has it, or contradicts itself; nothing if all is well.

    >>> next(faults({"schema": "wemem.results/2"}))
    "results lacks 'study'"
    """
    schema = results_schema()
    yield from (wrong := list(_faults(results, schema, schema["$defs"], "results")))
    if not wrong and isinstance(results, dict):
        yield from _contradictions(results["runs"])


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _faults(value: Any, schema: Mapping[str, Any], defs: Mapping[str, Any], where: str) -> Iterator[str]:
    """By the keywords that the schema of results uses; all of a JSON schema is more than that."""
    if "$ref" in schema:
        yield from _faults(value, defs[schema["$ref"].removeprefix("#/$defs/")], defs, where)
    if "anyOf" in schema and all(any(True for _ in _faults(value, one, defs, where)) for one in schema["anyOf"]):
        yield f"{where} is none of what it may be"
    allowed = [schema["const"]] if "const" in schema else schema.get("enum", [value])
    if value not in allowed:
        yield f"{where} is not {' or '.join(map(repr, allowed))}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        yield f"{where} is no {' or '.join(kinds)}"
        return
    if isinstance(value, dict):
        yield from _object_faults(value, schema, defs, where)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf):
            yield f"{where} has {len(value)} items"
        for i, item in enumerate(value):
            yield from _faults(item, schema.get("items", {}), defs, f"{where}[{i}]")
    elif not _in_range(value, schema):
        yield f"{where} is empty, out of range or not of the right form"


def _object_faults(
    value: Mapping[str, Any], schema: Mapping[str, Any], defs: Mapping[str, Any], where: str
) -> Iterator[str]:
    known, more = schema.get("properties", {}), schema.get("additionalProperties", {})
    yield from (f"{where} lacks {name!r}" for name in schema.get("required", ()) if name not in value)
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", math.inf):
        yield f"{where} has {len(value)} entries"
    for name, child in value.items():
        yield from _faults(name, schema.get("propertyNames", {}), defs, f"a name in {where}")
        if name in known:
            yield from _faults(child, known[name], defs, f"{where}.{name}")
        elif more is False:
            yield f"{where} has an unknown {name!r}"
        else:
            yield from _faults(child, more, defs, f"{where}.{name}")
    if "if" in schema:
        holds = not any(True for _ in _faults(value, schema["if"], defs, where))
        yield from _faults(value, schema.get("then" if holds else "else", {}), defs, where)


def _in_range(value: str | float | None, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, str):
        return len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))
    if value is None or isinstance(value, bool):
        return True
    return bool(schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf))


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    whole = isinstance(value, float) and value.is_integer()
    return isinstance(value, _TYPES[kind]) or (kind == "integer" and whole)


def _contradictions(runs: list[dict[str, Any]]) -> Iterator[str]:
    """What no schema can say."""
    seen = set()
    for i, run in enumerate(runs):
        where, key = f"runs[{i}]", (run["label"], round(run["sparsity"], 3), run["seed"])
        if key in seen:
            yield f"{where} has the label, sparsity and seed of another"
        seen.add(key)
        for metric, worst in run["worst"].items():
            if worst["attack"] not in run["attacks"]:
                yield f"{where}.worst.{metric} names an attack that was not run"
        ends = [run["accuracy"]["test_ci"], *(worst["ci"] for worst in run["worst"].values())]
        for audit in run["attacks"].values():
            ends += [audit["balanced_accuracy_ci"], audit["auc_ci"], *audit["tpr_at_fpr_ci"].values()]
        if any(low > high for low, high in ends):
            yield f"{where} has an interval whose low end is above its high end"
