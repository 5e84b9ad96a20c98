"""JSON schemas of ``results.json``."""

import json
from importlib.resources import files
from typing import Any, Literal

#: The version that is written; version 1 is read too.
CURRENT: Literal[2] = 2
SCHEMAS = {1: "results.schema.1.json", 2: "results.schema.json"}


def results_schema(version: Literal[1, 2] = CURRENT) -> dict[str, Any]:
    """The JSON schema (2020-12) of ``results.json``.

    A schema cannot refuse NaN and infinity, which Python's JSON parser accepts. Write results with
    ``allow_nan=False``.

    Args:
        version: the version number at the end of the file's ``schema``.

    >>> results_schema()["properties"]["schema"]
    {'const': 'wemem.results/2'}
    """
    schema: dict[str, Any] = json.loads(files("wemem.results").joinpath(SCHEMAS[version]).read_text("utf-8"))
    return schema
