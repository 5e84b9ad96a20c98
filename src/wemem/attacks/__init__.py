"""Membership inference attacks: values that score how likely each audited record is a member, higher = member."""

from collections.abc import Sequence

from wemem.attacks.base import Attack, AttackOutput
from wemem.attacks.dense_and_pruned import DenseAndPruned
from wemem.attacks.label_noise import LabelNoise
from wemem.attacks.lira import Lira, LiraOffline
from wemem.attacks.neural import NeuralNet, NeuralNetClass, NeuralNetTop3
from wemem.attacks.population import AttackP
from wemem.attacks.quantile import QuantileRegression
from wemem.attacks.rmia import Rmia, RmiaOffline
from wemem.attacks.samia import Samia
from wemem.attacks.threshold import Confidence, Correctness, Entropy, ModifiedEntropy, TopConfidence
from wemem.attacks.trajectory import PruningTrajectory
from wemem.errors import InputError
from wemem.resolve import did_you_mean, resolve

__all__ = ["ATTACKS", "PRESETS", "QUICK", "TEN", "THRESHOLD", "Attack", "AttackOutput", "make_attacks"]

#: The attacks that a study can name; ``package.module:Class`` is a user's own.
ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        Confidence, Entropy, ModifiedEntropy, TopConfidence, NeuralNet, NeuralNetTop3, NeuralNetClass, Samia,
        Lira, Rmia, Correctness, LiraOffline, RmiaOffline, AttackP, QuantileRegression, LabelNoise,
        PruningTrajectory, DenseAndPruned,
    )
}  # fmt: skip

#: One number of the target's output each: seconds for any audit.
THRESHOLD = ("confidence", "entropy", "modified_entropy", "top_confidence")
#: And the one by reference models that does with few of them.
QUICK = (*THRESHOLD, "rmia")
#: The ten by which a defense is judged.
TEN = (*THRESHOLD, "nn", "nn_top3", "nn_class", "samia", "lira", "rmia")

#: Names for several attacks.
PRESETS: dict[str, tuple[str, ...]] = {"ten": TEN, "quick": QUICK, "threshold": THRESHOLD, "all": tuple(ATTACKS)}


def make_attacks(spec: str | Sequence[str]) -> list[Attack]:
    """Attacks from their names, as they stand in a study.

    Args:
        spec: a key of :data:`PRESETS`, a key of :data:`ATTACKS`, ``package.module:Class``, or a list of the latter two.

    Raises:
        InputError: an unknown name, none at all, two attacks of one name, or a class that is no attack.

    >>> [attack.name for attack in make_attacks("quick")]
    ['confidence', 'entropy', 'modified_entropy', 'top_confidence', 'rmia']
    >>> make_attacks(["lira"])
    [Lira(variance='auto', augmented=True)]
    >>> make_attacks("rmai")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected an attack among ..., got 'rmai'; did you mean 'rmia'?
    """
    if isinstance(spec, str):
        names: Sequence[str] = PRESETS.get(spec, (spec,))
        known = [*PRESETS, *ATTACKS]
    else:
        names, known = spec, list(ATTACKS)
    if not names:
        raise InputError(f"expected at least one attack, got none; {', '.join(PRESETS)} name several")
    attacks = [_attack_class(name, known)() for name in names]
    made = [attack.name for attack in attacks]
    for name in made:
        if made.count(name) > 1:
            raise InputError(
                f"expected attacks of different names, got {name!r} {made.count(name)} times; name each once"
            )
    return attacks


def _attack_class(name: str, known: list[str]) -> type[Attack]:
    if not isinstance(name, str):
        raise InputError(f"expected names of attacks, got {name!r}")
    if ":" in name:
        cls = resolve(name)
        if not (isinstance(cls, type) and issubclass(cls, Attack)):
            raise InputError(f"expected {name!r} to name a subclass of wemem.attacks.Attack, got {cls!r}")
        lacking = [part for part in ("name", "layout") if not hasattr(cls, part)] + sorted(cls.__abstractmethods__)
        if lacking:
            raise InputError(
                f"expected the attack {name!r} to define {lacking[0]!r}, got none; see wemem.attacks.Attack"
            )
        return cls
    if name not in ATTACKS:
        raise InputError(
            f"expected an attack among {', '.join(known)} or 'package.module:Class', "
            f"got {name!r}{did_you_mean(name, known)}"
        )
    return ATTACKS[name]
