"""The promise that ``results.json`` keeps to those who read it."""

import json
from importlib.resources import files
from typing import Any


def results_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of ``results.json``.

    JSON has no NaN and no infinity, and a schema cannot refuse what Python's parser lets through: write results
    with ``allow_nan=False``.

    >>> results_schema()["properties"]["schema"]
    {'const': 'wemem.results/1'}
    """
    schema: dict[str, Any] = json.loads(files("wemem.results").joinpath("results.schema.json").read_text("utf-8"))
    return schema
