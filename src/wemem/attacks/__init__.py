"""Membership inference attacks: values that score how likely each audited record is a member,
higher = member.
"""

from collections.abc import Mapping
from typing import Any

from wemem.attacks.altered_answers import LiraLabels, LiraRank, LiraRepeated
from wemem.attacks.base import Attack, AttackOutput
from wemem.attacks.bavaria import Bavaria
from wemem.attacks.combined import Combined
from wemem.attacks.dense_and_pruned import DenseAndPruned
from wemem.attacks.label_noise import LabelNoise
from wemem.attacks.lira import Lira, LiraOffline
from wemem.attacks.neural import NeuralNet, NeuralNetClass, NeuralNetTop3
from wemem.attacks.population import AttackP
from wemem.attacks.quantile import QuantileRegression
from wemem.attacks.releases import LiraReleases
from wemem.attacks.rmia import Rmia, RmiaOffline
from wemem.attacks.samia import Samia
from wemem.attacks.sparsity_pattern import SparsityPattern
from wemem.attacks.threshold import Confidence, Correctness, Entropy, ModifiedEntropy, TopConfidence
from wemem.attacks.trajectory import PruningTrajectory
from wemem.errors import InputError
from wemem.resolve import did_you_mean, resolve
from wemem.settings import from_table

__all__ = [
    "ATTACKS",
    "FULL",
    "PRESETS",
    "QUICK",
    "TEN",
    "THRESHOLD",
    "Attack",
    "AttackOutput",
    "kind_of",
    "make_attack",
]

#: The attacks that a study can name; ``package.module:Class`` is a user's own.
ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        Confidence, Entropy, ModifiedEntropy, TopConfidence, NeuralNet, NeuralNetTop3, NeuralNetClass, Samia,
        Lira, Rmia, Correctness, LiraOffline, RmiaOffline, AttackP, QuantileRegression, LabelNoise,
        PruningTrajectory, DenseAndPruned, Bavaria, LiraLabels, LiraRank, LiraRepeated, Combined,
        SparsityPattern, LiraReleases,
    )
}  # fmt: skip

#: One number of the target's output each: seconds for any audit.
THRESHOLD = ("confidence", "entropy", "modified_entropy", "top_confidence")
#: And the one by reference models that does with few of them.
QUICK = (*THRESHOLD, "rmia")
#: The ten by which a defense is judged.
TEN = (*THRESHOLD, "nn", "nn_top3", "nn_class", "samia", "lira", "rmia")

#: The ten, and those that find more with the same reference models.
FULL = (*TEN, "bavaria", "combined")

#: Names for several attacks.
PRESETS: dict[str, tuple[str, ...]] = {
    "ten": TEN, "full": FULL, "quick": QUICK, "threshold": THRESHOLD, "all": tuple(ATTACKS)
}  # fmt: skip


def make_attack(kind: str, settings: Mapping[str, Any] | None = None) -> Attack:
    """An attack from its kind and settings, as they stand in a study.

    Args:
        kind: a key of :data:`ATTACKS`, or ``package.module:Class`` for a user's own.
        settings: hyperparameters, the fields of the attack's class.

    Raises:
        InputError: an unknown kind or setting, a value that the attack refuses, or a class that is
            no attack.

    >>> make_attack("rmia", {"gamma": 2.0}).gamma
    2.0
    >>> make_attack("rmai")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected an attack among ..., got 'rmai'; did you mean 'rmia'?
    """
    return from_table(_attack_class(kind), dict(settings or {}), f"attack {kind!r}")


def kind_of(attack: Attack) -> str:
    """The kind that a study names an attack by: its key in :data:`ATTACKS`, or
    ``package.module:Class``.

    >>> kind_of(make_attack("rmia"))
    'rmia'
    """
    cls = type(attack)
    return attack.name if ATTACKS.get(attack.name) is cls else f"{cls.__module__}:{cls.__qualname__}"


def _attack_class(kind: str) -> type[Attack]:
    if ":" in kind:
        cls = resolve(kind)
        if not (isinstance(cls, type) and issubclass(cls, Attack)):
            raise InputError(f"expected {kind!r} to name a subclass of wemem.attacks.Attack, got {cls!r}")
        lacking = [part for part in ("name", "layout") if not hasattr(cls, part)] + sorted(cls.__abstractmethods__)
        if lacking:
            raise InputError(
                f"expected the attack {kind!r} to define {lacking[0]!r}, got none; see wemem.attacks.Attack"
            )
        return cls
    if kind not in ATTACKS:
        raise InputError(
            f"expected an attack among {', '.join(ATTACKS)} or 'package.module:Class', "
            f"got {kind!r}{did_you_mean(kind, [*PRESETS, *ATTACKS])}"
        )
    return ATTACKS[kind]
