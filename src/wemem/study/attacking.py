"""Attacks on the models of one arm: query them as the adversary would, and run every attack on the
outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wemem.attacks.base import Attack, AttackOutput
from wemem.attacks.channels import attacks_on_altered_answers, weights_held
from wemem.auditing.canaries import CanaryRecords
from wemem.auditing.leave_one_out import TargetRecords, leave_one_out
from wemem.auditing.report import AttackResult, AuditReport, attack_result
from wemem.config.study import StudyConfig
from wemem.defenses import Defense, OutputPostprocessing
from wemem.metrics.over_targets import metrics_over_targets, reference_accuracy
from wemem.pipeline.artifacts import CollectedSignals, TrainedModels
from wemem.pipeline.cache import Computed
from wemem.pipeline.matching import unmatched_sizes
from wemem.pipeline.parties import Parties
from wemem.pipeline.query import Releases, canary_signals, disjoint_signals, required_signals, shared_signals
from wemem.pipeline.stage import Derived, Effort, Stage
from wemem.signals import SignalLayout
from wemem.store.entry import Entry
from wemem.store.keys import AttackKey, CanaryKey, LeaveOneOutKey
from wemem.study.outcome import Outcome

#: The output of an attack on the victim, and the wall time that it took when it was computed.
Prediction = tuple[AttackOutput, float]


@dataclass(frozen=True, eq=False)
class AttackedModels:
    """The models of one arm that are attacked.

    Args:
        label: the label of the arm.
        defense: the defense under which the models were pruned; None if they were not pruned.
        sparsity: the sparsity to which the models were pruned.
        rounds: the victim and its shadows after each stored round; the attacks use those of the
            last round.
        references: the releases of the reference models, chunk by chunk, for attacks that use them.
        count: the number of reference models.
        unaware: the victim and the shadows of an adversary who does not know the defense; None
            without such an adversary.
        is_file: True if the victim is a file, whose outputs an audit does not alter.
        canary_references: reference models that were trained with canaries, where those of
            ``references`` were not.
    """

    label: str
    defense: Defense | None
    sparsity: float
    rounds: Sequence[Stage[TrainedModels]]
    references: Sequence[Releases] = ()
    count: int = 0
    unaware: Stage[TrainedModels] | None = None
    is_file: bool = False
    canary_references: Sequence[Releases] = ()

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


def attack_models(parties: Parties, models: AttackedModels) -> Stage[Outcome]:
    """Plan to query the models as the adversary would, and to run every attack on the outputs."""
    config = parties.config
    channels = [_attacked(parties, models, channel) for channel in channels_of(config, models)]
    outputs = channels[0].signals
    unaware = None if models.unaware is None else _attacked_unaware(parties, models, models.unaware)
    scores = parties.defender_scores() if config.needs_scores else None

    def outcome() -> Outcome:
        results = [result for one in channels for result in one.results()]
        return Outcome(
            models.label, models.defense, parties.seed, models.sparsity, parties.evaluation_split,
            [one.read() for one in models.rounds],
            {layout: collected.read().signals for layout, collected in outputs.items()},
            AuditReport(tuple(result for result, _ in results)),
            None if scores is None else scores.read(),
            sum(one.seconds for one in channels) + sum(seconds for _, seconds in results),
            non_adaptive=None if unaware is None else AuditReport(tuple(result for result, _ in unaware.results())),
            altered_answers=models.altered_answers, is_control=models.label in config.controls,
            unmatched=dict(unmatched_sizes(parties)), **_over_targets(parties, channels),
            **_on_canaries(parties, channels),
        )  # fmt: skip

    parts = [stage for one in (*channels, unaware) if one is not None for stage in one.stages]
    required: list[Stage[Any]] = [*models.rounds, *([] if scores is None else [scores]), *parts]
    return Derived(parts[-1].key, required, outcome)


@dataclass(frozen=True, eq=False)
class AttackedChannel:
    """The attacks through one channel.

    Args:
        signals: the signals that the attacks use, by layout.
        predictions: the output of each attack on the victim, by name.
        attacks: the attacks, by name.
        leave_one_out: each attack on every model of the reference ensemble, by name.
        canaries: each attack on the canaries of every model, by name.
        canary_signals: the signals of the canaries; None without canaries.
    """

    signals: Mapping[SignalLayout, Stage[CollectedSignals]]
    predictions: Mapping[str, Stage[Prediction]]
    attacks: Mapping[str, Attack]
    leave_one_out: Mapping[str, Stage[Entry]] = field(default_factory=dict)
    canaries: Mapping[str, Stage[Entry]] = field(default_factory=dict)
    canary_signals: Stage[CollectedSignals] | None = None

    @property
    def stages(self) -> list[Stage[Any]]:
        """Everything that is computed through the channel."""
        attacks = (self.predictions, self.leave_one_out, self.canaries)
        return [*self.signals.values(), *(stage for stages in attacks for stage in stages.values())]

    @property
    def seconds(self) -> float:
        """The wall time that the queries took when they were computed."""
        return sum(collected.read().seconds for collected in self.signals.values())

    def results(self) -> list[tuple[AttackResult, float]]:
        """The result of every attack on the victim, and the wall time that it took."""
        return [
            (attack_result(name, self.signals[self.attacks[name].layout].read().signals, 0, output), seconds)
            for name, (output, seconds) in ((name, stage.read()) for name, stage in self.predictions.items())
        ]


def _over_targets(parties: Parties, channels: Sequence[AttackedChannel]) -> dict[str, Any]:
    """The fields of an outcome that a leave-one-out audit of the reference models fills."""
    entries = {name: stage.read() for one in channels for name, stage in one.leave_one_out.items()}
    if not parties.config.leave_one_out or "shared" not in channels[0].signals:
        return {}
    signals = channels[0].signals["shared"].read().signals
    targets = TargetRecords.of(signals, {name: entry.arrays for name, entry in entries.items()})
    accuracy = reference_accuracy(targets.correct, targets.membership, seed=parties.seed)
    return {
        "leave_one_out": {
            name: {metric: value for metric, value in entry.meta.items() if metric != "seconds"}
            for name, entry in entries.items()
        },
        "reference_accuracy": {"targets": accuracy.targets, **accuracy.as_comparable_json()},
        "targets": targets,
    }


def _on_canaries(parties: Parties, channels: Sequence[AttackedChannel]) -> dict[str, Any]:
    """The fields of an outcome that attacks on canaries fill."""
    collected, planted = channels[0].canary_signals, parties.with_canaries.planted if parties.config.canaries else None
    if collected is None or planted is None:
        return {}
    entries = {name: stage.read() for one in channels for name, stage in one.canaries.items()}
    scores = {name: entry.arrays["score"] for name, entry in entries.items()}
    return {
        "canaries": {name: {kind: entry.meta[kind] for kind in planted.canaries} for name, entry in entries.items()},
        "canary_records": CanaryRecords.of(collected.read().signals, planted.canaries, scores),
    }


def _attacked(parties: Parties, models: AttackedModels, channel: Channel) -> AttackedChannel:
    """Plan all attacks through one channel."""
    signals, config = _query(parties, models, channel), parties.config
    summaries: dict[str, Stage[Entry]] = {}
    if config.leave_one_out and "shared" in signals:
        summaries = {
            name: _leave_one_out(parties, name, attack, signals["shared"], models)
            for name, attack in channel.attacks.items()
            if attack.layout == "shared"
        }
    predictions = {
        name: _predict(parties, name, attack, signals[attack.layout], models.label)
        for name, attack in channel.attacks.items()
    }
    if not config.canaries:
        return AttackedChannel(signals, predictions, channel.attacks, summaries)
    collected, canaries = _attack_canaries(parties, models, channel)
    return AttackedChannel(signals, predictions, channel.attacks, summaries, canaries, collected)


def _query(parties: Parties, models: AttackedModels, channel: Channel) -> dict[SignalLayout, Stage[CollectedSignals]]:
    """The signals of every layout that the attacks of a channel use."""
    layouts, attacks = {attack.layout for attack in channel.attacks.values()}, channel.attacks
    signals: dict[SignalLayout, Stage[CollectedSignals]] = {}
    if "disjoint" in layouts:
        signals["disjoint"] = disjoint_signals(parties, models.label, models.rounds, attacks, channel.defense)
    if "shared" in layouts:
        signals["shared"] = shared_signals(
            parties, models.label, _releases(parties, models, attacks), models.references, models.count, attacks,
            channel.defense,
        )  # fmt: skip
    return signals


def _releases(parties: Parties, models: AttackedModels, attacks: Mapping[str, Attack]) -> Releases:
    """The releases of the victim that the attacks read."""
    if "releases" not in required_signals(attacks, "shared"):
        return models.rounds[-1:]
    return models.rounds if models.defense is None else [parties.dense(), *models.rounds]


def _attacked_unaware(parties: Parties, models: AttackedModels, unaware: Stage[TrainedModels]) -> AttackedChannel:
    """Plan the attacks that learn from shadows, with shadows pruned without the defense."""
    title = f"{models.label}, non-adaptive"
    channel = channels_of(parties.config, models)[0]
    chosen = {
        name: attack
        for name, attack in channel.attacks.items()
        if attack.layout == "disjoint" and "trajectory" not in attack.required_signals
    }
    collected = disjoint_signals(parties, title, [unaware], chosen, channel.defense)
    predictions = {name: _predict(parties, name, attack, collected, title) for name, attack in chosen.items()}
    return AttackedChannel({"disjoint": collected}, predictions, chosen)


def _leave_one_out(
    parties: Parties, name: str, attack: Attack, collected: Stage[CollectedSignals], models: AttackedModels
) -> Stage[Entry]:
    """One attack that uses reference signals on every model of the reference ensemble
    (leave-one-out): the scores, and the summary of the metrics.
    """
    metrics = metrics_over_targets()

    def compute() -> Computed:
        targets = leave_one_out(collected.read().signals, {attack.name: attack}, seed=parties.seed)[attack.name]
        return {"score": targets.scores}, targets.summary(metrics)

    key = LeaveOneOutKey(collected.key, attack, parties.seed, tuple(metric.name for metric in metrics)).key()
    title = parties.title(f"{name} on {models.label}, leave-one-out")
    effort = Effort(f"leave-one-out {attack.name}", float(models.count) ** 2 * len(parties.split.audited(0)))
    return parties.pipeline.cache.stage(title, key, (collected,), compute, lambda entry: entry, effort)


def _attack_canaries(
    parties: Parties, models: AttackedModels, channel: Channel
) -> tuple[Stage[CollectedSignals], dict[str, Stage[Entry]]]:
    """The signals of the canaries of every model that was trained with some, and each attack on
    them that uses reference signals.
    """
    planted = parties.with_canaries
    assert planted.planted is not None  # the study has canaries
    victim = _releases(parties, models, channel.attacks) if parties.planted is not None else None
    references = models.canary_references or models.references
    chosen = {name: attack for name, attack in channel.attacks.items() if attack.layout == "shared"}
    collected = canary_signals(planted, models.label, victim, references, models.count, chosen, channel.defense)
    metrics = metrics_over_targets()
    kinds = planted.planted.canaries

    def compute(attack: Attack) -> Computed:
        signals = collected.read().signals
        result = leave_one_out(signals, {attack.name: attack}, seed=parties.seed)[attack.name]
        canaries = CanaryRecords.of(signals, kinds, {attack.name: result.scores})
        return {"score": result.scores}, canaries.rates(attack.name, metrics, seed=parties.seed)

    stages: dict[str, Stage[Entry]] = {}
    for name, attack in chosen.items():
        key = CanaryKey(collected.key, attack, parties.seed, tuple(metric.name for metric in metrics)).key()
        title = parties.title(f"{name} on canaries of {models.label}")
        records = float(models.count) ** 2 * len(planted.planted.all_canaries)
        effort = Effort(f"leave-one-out {attack.name}", records)
        stages[name] = parties.pipeline.cache.stage(
            title, key, (collected,), partial(compute, attack), lambda entry: entry, effort
        )  # fmt: skip
    return collected, stages


def _predict(
    parties: Parties, name: str, attack: Attack, collected: Stage[CollectedSignals], label: str
) -> Stage[Prediction]:
    """The output of one attack on the victim, and the wall time that the attack took."""

    def compute() -> Computed:
        output = attack.predict(collected.read().signals, 0, seed=parties.seed)
        arrays = {"score": output.score, "threshold": output.threshold}
        return arrays if output.probability is None else {**arrays, "probability": output.probability}, {}

    def read(entry: Entry) -> Prediction:
        output = AttackOutput(entry.arrays["score"], entry.arrays["threshold"], entry.arrays.get("probability"))
        return output, float(entry.meta["seconds"])

    key = AttackKey(collected.key, attack, parties.seed).key()
    answers = sum(one.effort.amount for one in collected.needs)
    title, effort = parties.title(f"{name} on {label}"), Effort(f"attack {attack.name}", answers)
    return parties.pipeline.cache.stage(title, key, (collected,), compute, read, effort)
