"""The schemas of ``results.json``."""

import json
from importlib.resources import files
from typing import Any, Literal

#: The version that is written; the one before is still read.
CURRENT: Literal[2] = 2
SCHEMAS = {1: "results.schema.1.json", 2: "results.schema.json"}


def results_schema(version: Literal[1, 2] = CURRENT) -> dict[str, Any]:
    """The JSON schema (2020-12) of ``results.json``.

    JSON has no NaN and no infinity, and a schema cannot refuse what Python's parser lets through: write results
    with ``allow_nan=False``.

    Args:
        version: the number in the file's ``schema``.

    >>> results_schema()["properties"]["schema"]
    {'const': 'wemem.results/2'}
    """
    schema: dict[str, Any] = json.loads(files("wemem.results").joinpath(SCHEMAS[version]).read_text("utf-8"))
    return schema
