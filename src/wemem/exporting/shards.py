"""The file or files of a model's weights: where they are, and their hash. No tensor is read here."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from wemem.errors import InputError
from wemem.files.documents import read_json
from wemem.files.hashing import file_sha256
from wemem.files.input_files import exists, is_folder, shown, user_path

#: Files that a folder of weights may have, the first that exists counts: those of this package, and
#: those of Hugging Face.
IN_FOLDER = ("weights.safetensors", "model.safetensors", "model.safetensors.index.json")
#: The largest number of files of one model.
MOST_SHARDS = 1_000


def weights_path(path: str | Path) -> Path:
    """The path of a model's file, or of the index of its files, which a folder may stand for.

    Raises:
        InputError: a path that cannot be looked at.
    """
    place = user_path(path)
    if not is_folder(place, "weights"):
        return place
    return next((place / name for name in IN_FOLDER if exists(place / name, "weights")), place / IN_FOLDER[0])


def weights_sha256(path: str | Path) -> str:
    """SHA-256 of a model's file; of an index, the hash of its own hash and those of its files."""
    file = weights_path(path)
    if file.suffix.lower() != ".json":
        return file_sha256(file)
    parts = [file_sha256(part) for part in (file, *dict.fromkeys(shards_of(file).values()))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def shards_of(index: Path) -> dict[str, Path]:
    """The file of each tensor, as an index lists them; all lie beside the index.

    Raises:
        InputError: the index cannot be read, or names a file elsewhere.
    """
    content = read_json(index, "an index of weights")
    places = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(places, Mapping) or not places:
        raise InputError(f"expected a weight_map in {shown(index)}, got none; give the index of a sharded model")
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors") or "\\" in name:
            raise InputError(f"expected files beside {shown(index)} in its weight_map, got {str(name)[:80]!r}")
    if len(set(places.values())) > MOST_SHARDS:
        raise InputError(f"expected at most {MOST_SHARDS:,} files in {shown(index)}, got more; save it in fewer")
    return {str(name): index.with_name(file) for name, file in places.items()}
