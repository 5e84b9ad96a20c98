"""An entry of a store, and places in its folder, that the tests of stores share."""

import json
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from wemem.store.key import Key

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "masks": np.array([True, False, True]),
    "roles": np.array([[-1, 2]], dtype=np.int8),
}
META = {"seconds": 1.5, "history": [{"epochs": 3}], "note": "größer", "trust": None}


@dataclass(frozen=True)
class Window:
    width: float = 0.5
    order: str = "random"


def key(stage, /, **determinants):
    return Key.of(stage, determinants)


class Role(IntEnum):
    TRAIN = 1


def same(entry, arrays=ARRAYS, meta=META):
    """Equal to the bit, types and shapes included."""
    return (
        set(entry.arrays) == set(arrays)
        and all(entry.arrays[n].dtype == a.dtype and entry.arrays[n].shape == a.shape for n, a in arrays.items())
        and all(entry.arrays[n].tobytes() == a.tobytes() for n, a in arrays.items())
        and json.dumps(entry.meta) == json.dumps(meta)
    )


def root_of(store):
    return Path(store.backend.place)


def folder_of(store, own):
    (folder,) = root_of(store).glob(f"*/*/{own}")
    return folder


def leftovers(store):
    return list(root_of(store).glob("tmp/*"))
