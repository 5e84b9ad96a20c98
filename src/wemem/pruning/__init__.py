"""Iterative pruning: of single weights by exact masks, or of whole channels, which makes the
network smaller.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from inspect import isabstract
from typing import Any

from wemem.errors import InputError
from wemem.pruning.bn_scale import BatchNormScale
from wemem.pruning.criterion import ChannelCriterion, Criterion, WeightCriterion
from wemem.pruning.erk import Erk
from wemem.pruning.heads_and_neurons import HeadsAndNeurons
from wemem.pruning.iterate import Pruning, Round, iterate
from wemem.pruning.l1_filter import L1Filter
from wemem.pruning.l2_filter import L2Filter
from wemem.pruning.lamp import Lamp
from wemem.pruning.layers import LayerChoice, prunable_weights
from wemem.pruning.magnitude import Magnitude
from wemem.pruning.masks import masks_of_zeros, pruned_share, pruned_share_of_all
from wemem.pruning.n_of_m import NOfM
from wemem.pruning.schedule import Schedule
from wemem.pruning.taylor import Taylor
from wemem.pruning.taylor_filter import TaylorFilter
from wemem.pruning.taylor_heads_and_neurons import TaylorHeadsAndNeurons
from wemem.resolve import did_you_mean, resolve
from wemem.settings import from_table

__all__ = [
    "CRITERIA",
    "BatchNormScale",
    "ChannelCriterion",
    "Criterion",
    "Erk",
    "HeadsAndNeurons",
    "L1Filter",
    "L2Filter",
    "Lamp",
    "LayerChoice",
    "Magnitude",
    "NOfM",
    "Pruning",
    "Round",
    "Schedule",
    "Taylor",
    "TaylorFilter",
    "TaylorHeadsAndNeurons",
    "WeightCriterion",
    "criterion_settings",
    "iterate",
    "make_criterion",
    "masks_of_zeros",
    "prunable_weights",
    "pruned_share",
    "pruned_share_of_all",
]  # fmt: skip

#: The criteria that a study can name as its method; a user's own is named as
#: ``package.module:Class``.
CRITERIA: Mapping[str, type[Criterion]] = {
    "magnitude": Magnitude,
    "lamp": Lamp,
    "erk": Erk,
    "taylor": Taylor,
    "n_of_m": NOfM,
    "l1_filter": L1Filter,
    "l2_filter": L2Filter,
    "taylor_filter": TaylorFilter,
    "bn_scale": BatchNormScale,
    "heads_and_neurons": HeadsAndNeurons,
    "taylor_heads_and_neurons": TaylorHeadsAndNeurons,
}


def make_criterion(method: str | Mapping[str, Any]) -> Criterion:
    """Build a criterion from the ``method`` of a study.

    Args:
        method: a key of :data:`CRITERIA` or ``package.module:Class``; or a table with such a name
            as ``kind``, and the criterion's settings.

    Raises:
        InputError: a kind or setting is unknown, the class is no criterion, or the criterion
            refuses a value.

    >>> make_criterion("l1_filter"), make_criterion({"kind": "n_of_m", "n": 1})
    (L1Filter(), NOfM(n=1, m=4))
    """
    table = {"kind": method} if isinstance(method, str) else dict(method)
    kind = table.pop("kind", None)
    if not isinstance(kind, str):
        raise InputError(f"expected a method by its name or as a table with a kind, got {method!r}")
    criterion: Criterion = from_table(_criterion_class(kind), table, f"method {kind!r}")
    return criterion


def criterion_settings(criterion: Criterion) -> dict[str, Any]:
    """Describe a criterion by the table that builds it: its registered ``kind``, or its class, and
    its settings.

    >>> criterion_settings(NOfM())
    {'kind': 'n_of_m', 'n': 2, 'm': 4}
    """
    cls = type(criterion)
    kind = next((name for name, known in CRITERIA.items() if known is cls), f"{cls.__module__}:{cls.__qualname__}")
    assert is_dataclass(criterion)
    return {"kind": kind, **{f.name: getattr(criterion, f.name) for f in fields(criterion)}}


def _criterion_class(kind: str) -> Any:
    if ":" not in kind:
        if kind not in CRITERIA:
            raise InputError(
                f"expected a method among {', '.join(CRITERIA)} or 'package.module:Class', "
                f"got {kind!r}{did_you_mean(kind, CRITERIA)}"
            )
        return CRITERIA[kind]
    cls = resolve(kind)
    if not (isinstance(cls, type) and issubclass(cls, Criterion) and is_dataclass(cls)):
        raise InputError(f"expected {kind!r} to name a frozen dataclass that is a wemem.pruning.Criterion, got {cls!r}")
    if isabstract(cls):
        raise InputError(f"expected {kind!r} to define {', '.join(sorted(cls.__abstractmethods__))}, got none")
    return cls
