"""Settings that a search may try, as short ordered lists: settings recur and are stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)
STRIDE = (0.0, 0.0125, 0.025, 0.0375, 0.05)
ORDER = ("low_first", "high_first", "random")
TOP = (0.06, 0.1, 0.18, 0.27, 0.4, 0.55, 0.7)
DECAY = (0.003, 0.01, 0.03, 0.1, 0.3)

#: By defense the values of each setting; numbers are ordered, so that neighbours are similar.
SPACE: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "rsw": {"width": WIDTH, "stride": STRIDE, "order": ORDER},
    "rmr": {"top": TOP, "decay": DECAY},
    "swmr": {"width": WIDTH, "stride": STRIDE, "order": ORDER, "top": TOP, "decay": DECAY},
    # another number of teachers, or of those held out, would need other teachers for every model
    "oosd": {
        "discount": (0.0, 0.3, 0.7, 1.2),
        "start": ("fresh", "dense"),
        "views": (0, 3, 12),
        "temperature": (0.5, 0.7, 1.0, 1.4, 2.0),
        "hard": (0.0, 0.1, 0.2, 0.35, 0.5),
    },
}

#: Usual settings of each defense, which are tried first.
STARTS: Mapping[str, Mapping[str, Any]] = {
    "rsw": {"width": 0.3, "stride": 0.025, "order": "low_first"},
    "rmr": {"top": 0.27, "decay": 0.1},
    "swmr": {"width": 0.25, "stride": 0.0375, "order": "low_first", "top": 0.27, "decay": 0.1},
    "oosd": {"discount": 0.7, "start": "fresh", "views": 12, "temperature": 1.4, "hard": 0.0},
}


@dataclass(frozen=True)
class Tried:
    """A finished trial, with two objectives to be minimized.

    Args:
        kind: kind of the defense.
        settings: settings of the defense.
        drop: loss of accuracy from undefended pruning.
        leakage: AUC of the strongest attack.
    """

    kind: str
    settings: Mapping[str, Any]
    drop: float
    leakage: float
