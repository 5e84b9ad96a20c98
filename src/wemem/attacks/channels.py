"""Channels: by what an adversary knows a model whose defense alters answers, and the attacks that
fit each.

A defense that postprocesses answers protects the answers alone. An adversary who holds the model's
file computes the answers without it. So such a model is attacked twice: by its altered answers,
with attacks that read what those still show, and by its weights, with the study's attacks on the
unaltered answers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from wemem.attacks.altered_answers import LiraLabels, LiraRank, LiraRepeated
from wemem.attacks.base import Attack
from wemem.attacks.combined import Combined
from wemem.attacks.label_noise import LabelNoise
from wemem.signals import MASKS, WEIGHTS_HELD

#: The most that the adversary of a study has: the model's weights, or its answers alone.
Adversary = Literal["weights", "answers"]


def attacks_on_altered_answers(attacks: Mapping[str, Attack]) -> dict[str, Attack]:
    """A study's attacks, and those that read what altered answers still show.

    Attacks by shadows are joined by ``label_noise``; attacks by reference models by
    ``lira_labels``, ``lira_rank`` and ``lira_repeated``, which become parts of a combined attack
    too. Attacks on the sparsity pattern, which no answer shows, are left to the adversary who holds
    the weights.

    >>> from wemem.attacks.lira import Lira
    >>> list(attacks_on_altered_answers({"lira": Lira()}))
    ['lira', 'lira_labels', 'lira_rank', 'lira_repeated']
    """
    layouts = {attack.layout for attack in attacks.values()}
    shared: tuple[Attack, ...] = (LiraLabels(), LiraRank(), LiraRepeated())
    added = (*((LabelNoise(),) if "disjoint" in layouts else ()), *(shared if "shared" in layouts else ()))
    suite = {
        label: _with_parts(attack, shared) for label, attack in attacks.items() if MASKS not in attack.required_signals
    }
    for attack in added:
        if not any(type(other) is type(attack) for other in attacks.values()):
            suite.setdefault(attack.name, attack)
    return suite


def weights_held(attacks: Mapping[str, Attack]) -> dict[str, Attack]:
    """A study's attacks under the labels that they have for an adversary who holds the weights.

    >>> from wemem.attacks.lira import Lira
    >>> list(weights_held({"lira": Lira()}))
    ['lira (weights held)']
    """
    return {f"{label}{WEIGHTS_HELD}": attack for label, attack in attacks.items()}


def _with_parts(attack: Attack, more: tuple[Attack, ...]) -> Attack:
    if not isinstance(attack, Combined) or attack.weights is not None:
        return attack
    lacking = [one for one in more if not any(type(part) is type(one) for part in attack.parts)]
    return replace(attack, parts=(*attack.parts, *lacking))
