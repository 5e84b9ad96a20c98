"""The ``attacks`` of a study: a preset, or a list of attacks by name or by kind and settings, each
under a label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wemem.attacks import ATTACKS, PRESETS, kind_of, make_attack
from wemem.attacks.base import Attack
from wemem.errors import InputError
from wemem.resolve import did_you_mean
from wemem.signals import WEIGHTS_HELD

#: Keys of an entry that are no settings of its attack.
OWN_KEYS = ("kind", "label")


@dataclass(frozen=True)
class AttackEntry:
    """One entry of ``attacks``.

    Args:
        label: the attack's name in results; unique in the study.
        attack: the attack itself.
        table: the entry as the study gives it, with its settings spelled out where it gave a table.
    """

    label: str
    attack: Attack
    table: str | Mapping[str, Any]


def read_attack_entries(spec: object) -> list[AttackEntry]:
    """The attacks of a study, labelled by name, and by settings too where a kind occurs more than
    once.

    Args:
        spec: a key of :data:`~wemem.attacks.PRESETS`; the kind of one attack (a key of
            :data:`~wemem.attacks.ATTACKS`, or ``package.module:Class``); or a list of kinds and of
            tables with a kind, an optional label and settings.

    Raises:
        InputError: no attack at all, an unknown kind or setting, two attacks with one label, or a
            label with the reserved ending :data:`~wemem.signals.WEIGHTS_HELD`.

    >>> entries = read_attack_entries(["confidence", {"kind": "lira", "variance": "record"}])
    >>> [entry.label for entry in entries], entries[1].attack.variance
    (['confidence', 'lira'], 'record')
    """
    if isinstance(spec, str):
        if spec not in PRESETS and spec not in ATTACKS and ":" not in spec:
            known = [*PRESETS, *ATTACKS]
            raise InputError(
                f"expected an attack among {', '.join(known)} or 'package.module:Class', "
                f"got {spec!r}{did_you_mean(spec, known)}"
            )
        spec = PRESETS.get(spec, (spec,))
    if not isinstance(spec, Sequence):
        raise InputError(f"expected attacks to be a name, or a list of names and tables, got {spec!r}")
    if not spec:
        raise InputError(f"expected at least one attack, got none; {', '.join(PRESETS)} name several")
    tables = [{"kind": entry} if isinstance(entry, str) else entry for entry in spec]
    kinds = [_kind(entry) for entry in tables]
    entries = [
        _entry(given, table, kind, repeated=kinds.count(kind) > 1)
        for given, table, kind in zip(spec, tables, kinds, strict=True)
    ]
    labels = [entry.label for entry in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f"expected attacks with different labels, got {label!r} {labels.count(label)} times; name each attack "
                'once, or give each a label of its own: { kind = "lira", variance = "record", label = "lira_record" }'
            )
    return entries


def make_attacks(spec: object) -> dict[str, Attack]:
    """Attacks by label, as a study names them (:func:`read_attack_entries`).

    >>> list(make_attacks("quick"))
    ['confidence', 'entropy', 'modified_entropy', 'top_confidence', 'rmia']
    """
    return {entry.label: entry.attack for entry in read_attack_entries(spec)}


def _kind(entry: object) -> str:
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if not isinstance(kind, str):
        raise InputError(
            f"expected every attack to be a name or a table with a kind, got {entry!r}; write "
            '"lira" or { kind = "lira", variance = "record" }'
        )
    return kind


def _entry(given: object, table: Mapping[str, Any], kind: str, *, repeated: bool) -> AttackEntry:
    settings = {key: value for key, value in table.items() if key not in OWN_KEYS}
    attack = make_attack(kind, _with_parts(settings))
    spelled = " ".join([attack.name, *(f"{key}={value}" for key, value in settings.items())])
    label = table.get("label", spelled if repeated else attack.name)
    if not isinstance(label, str) or not label:
        raise InputError(f"expected the label of the attack {kind!r} to be a string, got {label!r}")
    if label.endswith(WEIGHTS_HELD):
        raise InputError(
            f"expected the label of the attack {kind!r} not to end with {WEIGHTS_HELD!r}, got {label!r}; WeMem gives "
            "that ending to attacks on the weights of a model whose defense alters its answers"
        )
    return AttackEntry(label, attack, given if isinstance(given, str) else table_of_attack(label, kind, attack))


def _with_parts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the attacks that ``parts`` names, for an attack made of others."""
    if not isinstance(settings.get("parts"), list | tuple):
        return dict(settings)
    return {**settings, "parts": tuple(entry.attack for entry in read_attack_entries(settings["parts"]))}


def table_of_attack(label: str, kind: str, attack: Attack) -> dict[str, Any]:
    """Return the entry of a study that gives an attack, with its settings spelled out."""
    table = {
        "kind": kind,
        "label": label,
        **{name: value for name, value in attack.settings.items() if value is not None},
    }
    if isinstance(parts := table.get("parts"), tuple) and all(isinstance(part, Attack) for part in parts):
        table["parts"] = [table_of_attack(part.name, kind_of(part), part) for part in parts]
    return table
