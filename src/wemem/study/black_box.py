"""Audits by outputs alone: every attack that a file of logits, labels and roles allows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wemem.attacks.base import Attack
from wemem.audit.report import AuditReport, run_attacks
from wemem.audit.signal_file import read_signals
from wemem.errors import InputError
from wemem.signals import SignalLayout, Signals


@dataclass(frozen=True, eq=False)
class BlackBoxAudit:
    """The result of an audit by outputs.

    Args:
        report: the results of the attacks.
        signals: the outputs that they saw, by layout.
        left_out: a sentence for each attack that could not run on these outputs, with the reason.
        attacks: the attacks that ran, by label.
    """

    report: AuditReport
    signals: Mapping[SignalLayout, Signals]
    left_out: tuple[str, ...]
    attacks: Mapping[str, Attack]

    @property
    def outputs(self) -> Signals:
        """The outputs of the first layout; all layouts have the same audited records."""
        return next(iter(self.signals.values()))


def audit_signals(path: Path, attacks: Mapping[str, Attack], *, seed: int) -> BlackBoxAudit:
    """Run every attack that needs no more than the outputs in a file.

    Args:
        path: a file that :func:`~wemem.audit.signal_file.read_signals` takes. Models that share no record with model 0
            are shadows; others are reference models, trained on random halves of the same records.
        attacks: by label; those that a missing signal or the other layout rules out are left out, and named.
        seed: for attacks that train something.

    Raises:
        InputError: a file that cannot be read or does not fit, or outputs that no attack can use.
    """
    signals = read_signals(path)
    return audit_what_fits({signals.layout: signals}, attacks, seed)


def audit_what_fits(
    signals: Mapping[SignalLayout, Signals], attacks: Mapping[str, Attack], seed: int
) -> BlackBoxAudit:  # fmt: skip
    """Run every attack that the outputs allow, and name the others.

    Raises:
        InputError: the outputs allow no attack at all.
    """

    def able(attack: Attack) -> bool:
        return attack.layout in signals and attack.required_signals <= set(signals[attack.layout].extras)

    fits = {name: attack for name, attack in attacks.items() if able(attack)}
    left_out = [
        f"{name} was not run: it needs {a.layout} signals"
        + (f" with {', '.join(sorted(a.required_signals))}" if a.required_signals else "")
        for name, a in attacks.items()
        if name not in fits
    ]
    if not fits:
        raise InputError(
            f"expected an attack that works on {' and '.join(signals)} outputs, got none; {'; '.join(left_out)}"
        )
    return BlackBoxAudit(run_attacks(signals, fits, seed=seed), signals, tuple(left_out), fits)
