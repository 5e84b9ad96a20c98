"""Black-box audits: every attack that a file of logits, labels and roles allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wemem.attacks.base import Attack
from wemem.auditing.report import AuditReport, run_attacks
from wemem.auditing.signal_file import read_signals
from wemem.errors import InputError
from wemem.notes import Note
from wemem.signals import SignalLayout, Signals

OUTPUTS_ALONE = Note("outputs_alone")


@dataclass(frozen=True, eq=False)
class BlackBoxAudit:
    """The result of a black-box audit.

    Args:
        report: the results of the attacks.
        signals: the outputs that the attacks used, by layout.
        left_out: a note on each attack that could not run on these outputs, with the reason.
        attacks: the attacks that ran, by label.
        remarks: notes on the models that attacked.
        blind: the blind baseline; empty where the records are not known.
        adaptivity: the note on whether the attacks are adaptive, and why not.
    """

    report: AuditReport
    signals: Mapping[SignalLayout, Signals]
    left_out: tuple[Note, ...]
    attacks: Mapping[str, Attack]
    remarks: tuple[Note, ...] = ()
    blind: tuple[Mapping[str, Any], ...] = ()
    adaptivity: Note = OUTPUTS_ALONE

    @property
    def outputs(self) -> Signals:
        """The outputs of the first layout; all layouts have the same audited records."""
        return next(iter(self.signals.values()))


def audit_signals(path: Path, attacks: Mapping[str, Attack], *, seed: int) -> BlackBoxAudit:
    """Run every attack that needs no more than the outputs in a file.

    Args:
        path: a file that :func:`~wemem.auditing.signal_file.read_signals` accepts. Models that share
            no record with model 0 are shadows; other models are reference models, trained on random
            halves of the same records.
        attacks: the attacks by label. An attack that needs a missing signal or another layout does
            not run and is listed in the result.
        seed: the seed of attacks that train a model.

    Raises:
        InputError: the file cannot be read or is inconsistent, or no attack can use the outputs.
    """
    signals = read_signals(path)
    return run_possible_attacks({signals.layout: signals}, attacks, seed)


def run_possible_attacks(
    signals: Mapping[SignalLayout, Signals], attacks: Mapping[str, Attack], seed: int
) -> BlackBoxAudit:  # fmt: skip
    """Run every attack that the outputs allow, and list the others.

    Raises:
        InputError: the outputs allow no attack.
    """

    def is_possible(attack: Attack) -> bool:
        return attack.layout in signals and attack.required_signals <= signals[attack.layout].collected

    possible = {name: attack for name, attack in attacks.items() if is_possible(attack)}
    left_out = [
        Note(
            "attack_left_out",
            {"attack": name, "layout": attack.layout, "signals": sorted(attack.required_signals)},
        )
        for name, attack in attacks.items()
        if name not in possible
    ]
    if not possible:
        raise InputError(
            f"expected an attack that works on {' and '.join(signals)} outputs, got none; "
            + "; ".join(map(str, left_out))
        )
    return BlackBoxAudit(run_attacks(signals, possible, seed=seed), signals, tuple(left_out), possible)
