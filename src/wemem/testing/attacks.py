"""The conformance check of attacks: a planted leak, a null split, and knowledge that an attack must
not have.
"""

import math
from dataclasses import replace

import numpy as np

from wemem.attacks import ATTACKS
from wemem.attacks.base import Attack, AttackOutput
from wemem.data.split import Role
from wemem.metrics.rates import auc
from wemem.signals import Signals
from wemem.testing import planted

#: Standard errors of the AUC within which a null split must stay.
NULL_ERRORS = 4.0


def check_attack(attack: Attack, *, floor: float = 0.6, seed: int = 3) -> None:
    """Check an attack on planted signals: call it in a test of an attack of your own.

    It must be a value whose repr evaluates to it; give one finite score a record, the same one for
    the same seed; find a planted leak, with a higher score for members; stay at chance where there
    is no leak; and read nothing of which audited records the target was trained on.

    Args:
        attack: the attack to check.
        floor: the AUC that it must reach on the planted leak, where the best attack without
            reference models has 0.877 and the best with them 0.978.
        seed: for attacks that train something.

    Raises:
        AssertionError: a requirement that the attack misses, with the numbers.

    >>> from wemem.attacks import make_attack
    >>> check_attack(make_attack("confidence"), floor=0.8)
    """
    leaking, null = planted_signals(attack, planted.LEAK), planted_signals(attack, 0.0)
    check_value(attack)
    output = attack.predict(leaking, seed=seed)
    _require_scores(attack, leaking, output)
    _require_equal(attack, output, attack.predict(leaking, seed=seed), "when it is run again with the same seed")
    _require_equal(attack, output, attack.predict(_with_false_truth(leaking), seed=seed), "by the target's own roles")
    area = _auc(leaking, output)
    _require(
        area > floor,
        f"expected {attack!r} to reach an AUC above {floor} on a planted leak, got {area:.3f}; "
        + ("turn its sign: a higher score must mean member" if area < 0.5 else "it does not find the leak"),
    )
    check_null(attack, null, seed=seed)


def check_null(attack: Attack, null: Signals, *, seed: int = 3) -> None:
    """Check that an attack stays at chance on signals in which members and non-members are drawn
    alike.

    Raises:
        AssertionError: an AUC farther than four standard errors from one half.
    """
    area, member = _auc(null, attack.predict(null, seed=seed)), null.is_member(0)
    m, n = int(member.sum()), int((~member).sum())
    allowed = NULL_ERRORS * math.sqrt((m + n + 1) / (12 * m * n))
    _require(
        abs(area - 0.5) < allowed,
        f"expected {attack!r} within {allowed:.3f} of an AUC of 0.5 where there is no leak, got {area:.3f}; "
        "it reads something that tells members apart without any leak, such as how many models hold a record",
    )


def check_value(attack: Attack) -> None:
    """Check that an attack is a frozen value whose repr evaluates to an equal one.

    Raises:
        AssertionError: a repr that cannot be evaluated, or that gives another attack.
    """
    names = {cls.__name__: cls for cls in (*ATTACKS.values(), type(attack))}
    try:
        again = eval(repr(attack), {"__builtins__": {}}, names)  # noqa: S307  (the caller's own object)
    except Exception as error:
        raise AssertionError(
            f"expected the repr of an attack to evaluate, got {attack!r}; make it a frozen dataclass"
        ) from error
    _require(again == attack, f"expected repr to give an equal attack, got {again!r} from {attack!r}")


def planted_signals(attack: Attack, leak: float) -> Signals:
    """Planted signals of the layout that an attack works on."""
    return planted.disjoint(leak) if attack.layout == "disjoint" else planted.shared(leak)


def _with_false_truth(signals: Signals) -> Signals:
    """The same signals with every audited member called a non-member and every non-member a member."""
    roles = signals.roles.copy()
    roles[0, signals.audited(0)] = np.where(signals.is_member(0), Role.AUDIT, Role.TRAIN)
    return replace(signals, roles=roles)


def _auc(signals: Signals, output: AttackOutput) -> float:
    member = signals.is_member(0)
    return auc(output.score[member], output.score[~member])


def _require_scores(attack: Attack, signals: Signals, output: AttackOutput) -> None:
    expected = signals.audited(0).shape
    _require(
        output.score.shape == output.threshold.shape == expected and output.score.dtype == np.float64,
        f"expected float64 scores and thresholds of shape {expected} from {attack!r}, got {output.score.dtype} of "
        f"{output.score.shape} and {output.threshold.shape}",
    )
    _require(
        bool(np.isfinite(output.score).all()),
        f"expected finite scores from {attack!r}, got {int((~np.isfinite(output.score)).sum())} that are not",
    )
    if (probability := output.probability) is not None:
        _require(
            bool(((probability >= 0) & (probability <= 1)).all()),
            f"expected probabilities in [0, 1] from {attack!r}, got {probability.min()}..{probability.max()}",
        )


def _require_equal(attack: Attack, first: AttackOutput, second: AttackOutput, why: str) -> None:
    for part in ("score", "threshold", "probability"):
        one, other = getattr(first, part), getattr(second, part)
        same = one is other if one is None or other is None else np.array_equal(one, other)
        _require(same, f"expected the {part} of {attack!r} to stay as it is, got another one {why}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
