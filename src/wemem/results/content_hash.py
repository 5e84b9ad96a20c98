"""The SHA-256 of ``results.json`` over its own content, which shows that it was edited."""

from collections.abc import Mapping
from typing import Any

from wemem.files.hashing import sha256_of

#: The field that holds the hash.
CONTENT_SHA256 = "content_sha256"
#: Fields that differ from run to run. Without them, equal runs have equal hashes.
MEASURED_ANEW = frozenset({"seconds", "peak_memory_mib"})


def content_sha256(results: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of ``results.json`` without this hash itself, times and memory.

    >>> written = {"runs": [], CONTENT_SHA256: content_sha256({"runs": []})}
    >>> content_sha256(written) == written[CONTENT_SHA256]
    True
    >>> content_sha256({"runs": [{"seed": 0, "seconds": 1.5}]}) == content_sha256({"runs": [{"seed": 0}]})
    True
    """
    return sha256_of(_lasting({name: value for name, value in results.items() if name != CONTENT_SHA256}))


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _lasting(part) for name, part in value.items() if name not in MEASURED_ANEW}
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping | list | tuple) for part in value):
        return [_lasting(part) for part in value]
    return value
