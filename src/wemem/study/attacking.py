"""Attacks on the models of one arm: query them as the adversary would, and run every attack on the
outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wemem.attacks.base import Attack, AttackOutput
from wemem.attacks.channels import attacks_on_altered_answers, weights_held
from wemem.auditing.canaries import attack_canaries, canary_rates
from wemem.auditing.leave_one_out import TargetRecords, leave_one_out
from wemem.auditing.report import AttackResult, AuditReport, attack_result
from wemem.config.study import StudyConfig
from wemem.defenses import Defense, OutputPostprocessing
from wemem.metrics.over_targets import metrics_over_targets, reference_accuracy
from wemem.pipeline.artifacts import CollectedSignals, TrainedModels
from wemem.pipeline.cache import Computed
from wemem.pipeline.matching import unmatched_sizes
from wemem.pipeline.parties import Parties
from wemem.pipeline.query import canary_signals, disjoint_signals, shared_signals
from wemem.signals import SignalLayout
from wemem.store.entry import Entry
from wemem.store.keys import AttackKey, CanaryKey, LeaveOneOutKey
from wemem.study.outcome import Outcome


@dataclass(frozen=True, eq=False)
class AttackedModels:
    """The models of one arm that are attacked.

    Args:
        label: the label of the arm.
        defense: the defense under which the models were pruned; None if they were not pruned.
        sparsity: the sparsity to which the models were pruned.
        rounds: the victim and its shadows after each stored round; the attacks use those of the
            last round.
        references: the reference models, for attacks that use them.
        unaware: the victim and the shadows of an adversary who does not know the defense; None
            without such an adversary.
        is_file: True if the victim is a file, whose outputs an audit does not alter.
        canary_references: reference models that were trained with canaries, where those of
            ``references`` were not.
    """

    label: str
    defense: Defense | None
    sparsity: float
    rounds: Sequence[TrainedModels]
    references: Sequence[TrainedModels]
    unaware: TrainedModels | None = None
    is_file: bool = False
    canary_references: Sequence[TrainedModels] = ()

    @property
    def altered_answers(self) -> bool:
        """True if the defense of the models alters their outputs."""
        defense = None if self.is_file else self.defense
        return defense is not None and defense.capability(OutputPostprocessing) is not None


@dataclass(frozen=True, eq=False)
class Channel:
    """One form of access that an adversary has to the models.

    Args:
        attacks: the attacks that use this access, by label.
        defense: the defense that alters the outputs; None if the outputs are unaltered.
    """

    attacks: Mapping[str, Attack]
    defense: Defense | None


def channels_of(config: StudyConfig, models: AttackedModels) -> list[Channel]:
    """List the channels of the study's adversary: the outputs, and the weights where a defense
    alters the outputs.
    """
    if not models.altered_answers:
        return [Channel(config.attacks, None)]
    answers = Channel(attacks_on_altered_answers(config.attacks), models.defense)
    return [answers, *([Channel(weights_held(config.attacks), None)] if config.adversary == "weights" else [])]


def attack_models(parties: Parties, models: AttackedModels) -> Outcome:
    """Query the models as the adversary would, and run every attack on the outputs."""
    config = parties.config
    channels = [(channel, _query(parties, models, channel)) for channel in channels_of(config, models)]
    results = [
        _predict(parties, name, attack, signals[attack.layout], models.label)
        for channel, signals in channels
        for name, attack in channel.attacks.items()
    ]
    _, outputs = channels[0]
    over_targets = (
        _over_targets(parties, models.label, channels) if config.leave_one_out and "shared" in outputs else {}
    )
    return Outcome(
        models.label, models.defense, parties.seed, models.sparsity, parties.evaluation_split, models.rounds,
        {layout: collected.signals for layout, collected in outputs.items()},
        AuditReport(tuple(result for result, _ in results)),
        parties.score_defender() if config.needs_scores else None,
        sum(collected.seconds for _, signals in channels for collected in signals.values())
        + sum(seconds for _, seconds in results),
        non_adaptive=None if models.unaware is None else _attack_unaware(parties, models, models.unaware),
        canaries={
            name: rates
            for channel, _ in channels
            if config.canaries
            for name, rates in _attack_canaries(parties, models, channel).items()
        },
        altered_answers=models.altered_answers,
        is_control=models.label in config.controls, unmatched=dict(unmatched_sizes(parties)),
        **over_targets,
    )  # fmt: skip


def _over_targets(
    parties: Parties, label: str, channels: Sequence[tuple[Channel, Mapping[SignalLayout, CollectedSignals]]]
) -> dict[str, Any]:
    """The fields of an outcome that a leave-one-out audit of the reference models fills."""
    entries = {
        name: entry
        for channel, signals in channels
        if "shared" in signals
        for name, entry in _attack_references(parties, label, channel, signals["shared"]).items()
    }
    _, outputs = channels[0]
    targets = TargetRecords.of(outputs["shared"].signals, {name: entry.arrays for name, entry in entries.items()})
    accuracy = reference_accuracy(targets.correct, targets.membership, seed=parties.seed)
    return {
        "leave_one_out": {
            name: {metric: value for metric, value in entry.meta.items() if metric != "seconds"}
            for name, entry in entries.items()
        },
        "reference_accuracy": {"targets": accuracy.targets, **accuracy.as_comparable_json()},
        "targets": targets,
    }


def _query(parties: Parties, models: AttackedModels, channel: Channel) -> dict[SignalLayout, CollectedSignals]:
    """Query the models through a channel, for the signals of every layout that its attacks use."""
    layouts, attacks = {attack.layout for attack in channel.attacks.values()}, channel.attacks
    signals: dict[SignalLayout, CollectedSignals] = {}
    if "disjoint" in layouts:
        signals["disjoint"] = disjoint_signals(parties, models.label, models.rounds, attacks, channel.defense)
    if "shared" in layouts:
        victim = models.rounds[-1]
        signals["shared"] = shared_signals(parties, models.label, victim, models.references, attacks, channel.defense)
    return signals


def _attack_unaware(parties: Parties, models: AttackedModels, unaware: TrainedModels) -> AuditReport:
    """Run the attacks that learn from shadows, with shadows pruned without the defense."""
    title = f"{models.label}, non-adaptive"
    channel = channels_of(parties.config, models)[0]
    chosen = {
        name: attack
        for name, attack in channel.attacks.items()
        if attack.layout == "disjoint" and "trajectory" not in attack.required_signals
    }
    collected = disjoint_signals(parties, title, [unaware], chosen, channel.defense)
    return AuditReport(tuple(_predict(parties, name, attack, collected, title)[0] for name, attack in chosen.items()))


def _attack_references(parties: Parties, label: str, channel: Channel, collected: CollectedSignals) -> dict[str, Entry]:
    """Run each attack that uses reference signals on every model of the reference ensemble
    (leave-one-out).

    Returns:
        The entry of each attack in the store: the scores, and the summary of the metrics.
    """
    metrics = metrics_over_targets()

    def attacked(attack: Attack) -> Computed:
        targets = leave_one_out(collected.signals, {attack.name: attack}, seed=parties.seed)[attack.name]
        return {"score": targets.scores}, targets.summary(metrics)

    results: dict[str, Entry] = {}
    shared = {name: attack for name, attack in channel.attacks.items() if attack.layout == "shared"}
    for name, attack in shared.items():
        key = LeaveOneOutKey(collected.key, attack, parties.seed, tuple(metric.name for metric in metrics)).key()
        title = parties.title(f"{name} on {label}, leave-one-out")
        results[name] = parties.pipeline.cache.remember(title, key, partial(attacked, attack))
    return results


def _attack_canaries(parties: Parties, models: AttackedModels, channel: Channel) -> dict[str, dict[str, Any]]:
    """Run each attack that uses reference signals on the canaries of every model that was trained
    with some.
    """
    planted = parties.with_canaries
    assert planted.planted is not None  # the study has canaries
    victim = models.rounds[-1] if parties.planted is not None else None
    references = models.canary_references or models.references
    chosen = {name: attack for name, attack in channel.attacks.items() if attack.layout == "shared"}
    collected = canary_signals(planted, models.label, victim, references, chosen, channel.defense)
    metrics = metrics_over_targets()
    kinds = planted.planted.canaries

    def attacked(attack: Attack) -> Computed:
        result = attack_canaries(collected.signals, attack, seed=parties.seed)
        return {"score": result.scores}, canary_rates(collected.signals, result, kinds, metrics)

    rates: dict[str, dict[str, Any]] = {}
    for name, attack in chosen.items():
        key = CanaryKey(collected.key, attack, parties.seed, tuple(metric.name for metric in metrics)).key()
        title = parties.title(f"{name} on canaries of {models.label}")
        meta = parties.pipeline.cache.remember(title, key, partial(attacked, attack)).meta
        rates[name] = {kind: meta[kind] for kind in kinds}
    return rates


def _predict(
    parties: Parties, name: str, attack: Attack, collected: CollectedSignals, label: str
) -> tuple[AttackResult, float]:
    """Run one attack on the victim, or look up the stored output for the same signals.

    Returns:
        The result, and the wall time that the attack took when it was computed.
    """

    def compute() -> Computed:
        output = attack.predict(collected.signals, 0, seed=parties.seed)
        arrays = {"score": output.score, "threshold": output.threshold}
        return arrays if output.probability is None else {**arrays, "probability": output.probability}, {}

    key = AttackKey(collected.key, attack, parties.seed).key()
    entry = parties.pipeline.cache.remember(parties.title(f"{name} on {label}"), key, compute)
    output = AttackOutput(entry.arrays["score"], entry.arrays["threshold"], entry.arrays.get("probability"))
    return attack_result(name, collected.signals, 0, output), float(entry.meta["seconds"])
