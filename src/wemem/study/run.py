"""A study from data to results, on one screen.

For every seed: who has which records (:class:`~wemem.pipeline.parties.Parties`), dense models, then for every sparsity
and defense the pruned models, what an adversary sees of them, and what every attack makes of that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from wemem.attacks.base import Attack, AttackOutput
from wemem.audit.leave_one_out import leave_one_out
from wemem.audit.report import AttackResult, AuditReport, attack_result
from wemem.config.study import StudyConfig
from wemem.data.batches import Group
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.teachers import Teachers, held_out
from wemem.defenses import Auto, Defense, Distillation, TrainingRecords, Undefended
from wemem.errors import InputError
from wemem.metrics.registry import METRICS
from wemem.pipeline.artifacts import Scores, Stage
from wemem.pipeline.parties import Parties
from wemem.pipeline.progress import Progress
from wemem.pipeline.query import disjoint_signals, required_signals, shared_signals, uses
from wemem.pipeline.stages import CHUNK, USUAL_EPOCHS, Stages
from wemem.pipeline.victim import is_onnx
from wemem.pruning import Pruning, prune_channels
from wemem.signals import SignalLayout, Signals
from wemem.store.fingerprint import identity
from wemem.store.keys import Key, key
from wemem.store.store import Store
from wemem.tuning.search import Found, find_defense, proposer, search_work, steered


@dataclass(frozen=True, eq=False)
class Outcome:
    """One defense at one sparsity and seed; ``dense`` is the original model.

    Args:
        label: of the defense in the study.
        defense: the defense; None for the original model.
        seed, sparsity: of this run; the sparsity is the target.
        split: of the victim and its shadows; records that a search has looked at are the victim's no longer.
        rounds: the stored rounds, the last one being the result; for ``dense`` the dense models.
        signals: by layout, what the attacks saw.
        report: what they made of it.
        scores: the defender's memorization scores, where some defense of the study needs them.
        attack_seconds: wall time of querying and attacking when it was computed.
        non_adaptive: the same attacks by an adversary whose shadows were pruned without the defense.
        in_turn: by attack, every member of the reference ensemble attacked in turn, as results tell it.
        found: how the defense was found, where the study gave a budget for one.
    """

    label: str
    defense: Defense | None
    seed: int
    sparsity: float
    split: Split
    rounds: Sequence[Stage]
    signals: Mapping[SignalLayout, Signals]
    report: AuditReport
    scores: Scores | None
    attack_seconds: float
    non_adaptive: AuditReport | None = None
    in_turn: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    found: Found | None = None

    @property
    def memorization(self) -> Float64[np.ndarray, " N"] | None:
        """The defender's scores by record, NaN for records that are not its own."""
        return None if self.scores is None else self.scores.memorization.score

    @property
    def victim(self) -> Stage:
        """The models at the end: member 0 is the victim."""
        return self.rounds[-1]


def run_study(config: StudyConfig, store: Store, progress: Progress, data: Dataset | None = None) -> Iterator[Outcome]:
    """Run a study and yield every outcome as soon as it is there.

    Args:
        config: what to do; settings are selected from its grids already
            (:func:`~wemem.study.grid_search.select_settings`).
        store: where stages are looked up and kept.
        progress: hears of every stage.
        data: the data set, if it is loaded already.

    Raises:
        InputError: anything in the study or the data that cannot be used.
    """
    if config.grids:
        raise InputError(
            f"expected chosen settings, got grids of {', '.join(config.grids)}; use select_settings() first"
        )
    require_known_start(config)
    data = config.data.load() if data is None else data
    stages = Stages(config, data, store, progress)
    require_feasible_seeds(config, data, stages)
    progress.plan(expected_work(config, len(data), list(config.defenses)))
    for seed in config.seeds:
        parties = Parties.of(config, data, stages, seed)
        yield attack_dense(parties)
        for sparsity in config.pruning.sparsities:
            for label in config.defenses:
                yield defend_and_attack(parties, label, sparsity)


def require_known_start(config: StudyConfig) -> None:
    """Refuse to prune a model that is known by its answers alone, or to rewind a given one.

    Raises:
        InputError: it is an ONNX file, or its weights before any training are not known.
    """
    if is_onnx(config):
        raise InputError(
            "expected a model's weights (.safetensors) to prune, got an ONNX file; wemem audit --onnx attacks one"
        )
    if config.victim is not None and config.pruning.rewind == "initial":
        raise InputError(
            "expected a model trained by the study for pruning.rewind = 'initial', got a given one, whose initial "
            "weights are not known; set pruning.rewind = 'none'"
        )


def audited_splits(parties: Parties) -> list[Split]:
    """Of the victim and its shadows, and of the reference models where an attack uses them."""
    return [parties.split, *([parties.reference_split] if uses(parties.config.attacks, "shared") else [])]


def require_feasible_seeds(config: StudyConfig, data: Dataset, stages: Stages) -> None:
    """As :func:`require_feasible`, for every seed of a study."""
    for seed in config.seeds:
        parties = Parties.of(config, data, stages, seed)
        require_feasible(parties, audited_splits(parties))


def require_feasible(parties: Parties, splits: Sequence[Split]) -> None:
    """Refuse before any training what would fail after it: pruning or a defense that does not fit model or records.

    Raises:
        InputError: as the model's channels, the defense's plan or incompatibility reason, or the split of the teachers
            or reference models say; or a search without what proposes settings.
    """
    labels, blank = parties.data.labels, parties.stages.blank([0])
    model, method = blank.template, parties.config.pruning.method
    if method != "magnitude":
        prune_channels(
            blank, max(parties.config.pruning.sparsities), method, torch.from_numpy(parties.data.features[:2])
        )
    for given in parties.config.every_defense:
        defense = given.controller() if isinstance(given, Auto) else given
        if isinstance(given, Auto) and given.searches:
            proposer()
        if (reason := defense.incompatibility_reason(model)) is not None:
            raise InputError(reason)
        for split in splits:
            for k in range(split.num_models):
                train = split.records(k, Role.TRAIN)
                defense.plan(0, (Group(train),), TrainingRecords(train, labels, np.zeros(len(labels)), seed=0))
    distillations = dict.fromkeys(defense.capability(Distillation) for defense in parties.config.every_defense)
    for distillation, split in product(distillations, splits):
        if distillation is not None and isinstance(distillation.source, Teachers):
            held_out(split, distillation.source, range(split.num_models), parties.data.features)


def attack_dense(parties: Parties) -> Outcome:
    """Attack the original models, by as many reference models as any arm is attacked by."""
    references = parties.dense_references_of("dense") if uses(parties.config.attacks, "shared") else []
    return attack_models(parties, "dense", None, 0.0, [parties.dense], references)


def defend_and_attack(parties: Parties, label: str, sparsity: float) -> Outcome:
    """Prune the victim, its shadows and the reference models under one defense of the study, and attack."""
    defense, pruning = parties.config.defenses[label], parties.config.pruning.to(sparsity, parties.config.finetune)
    if not isinstance(defense, Auto):
        return _prune_and_attack(parties, label, defense, sparsity, pruning)
    found = find_defense(parties, defense, pruning, parties.dense)
    outcome = _prune_and_attack(parties, label, found.defense, sparsity, pruning)
    return replace(outcome, found=steered(found, outcome.victim))


def _prune_and_attack(parties: Parties, label: str, defense: Defense, sparsity: float, pruning: Pruning) -> Outcome:
    attacks = parties.config.attacks
    what = f"prune under {label}" + (f" to {sparsity}" if len(parties.config.pruning.sparsities) > 1 else "")
    keep = "trajectory" in required_signals(attacks, "disjoint")
    rounds = parties.pruned_members(what, defense, pruning, keep_rounds=keep)
    references = parties.pruned_references(label, defense, pruning) if uses(attacks, "shared") else []
    weaker: list[Stage] = []
    if parties.config.non_adaptive and defense != Undefended():
        plain = parties.pruned_members(f"{what}: shadows without it", Undefended(), pruning)
        weaker = [parties.swap_victim(rounds[-1], plain[-1])]
    return attack_models(parties, label, defense, sparsity, rounds, references, weaker)


def attack_models(
    parties: Parties, label: str, defense: Defense | None, sparsity: float, rounds: Sequence[Stage],
    references: Sequence[Stage], weaker: Sequence[Stage] = (),
) -> Outcome:  # fmt: skip
    """Query the models as the adversary would, and run every attack on what came back.

    Args:
        parties: the seed of the study.
        label: of what is attacked.
        defense: under which it was pruned; None if it was not.
        sparsity: to which it was pruned.
        rounds: victim and shadows after each stored round; the last ones are attacked.
        references: the reference models, for attacks that use them.
        weaker: victim and shadows of the adversary who does not know the defense, for the gap to the adaptive one.
    """
    attacks, before = parties.config.attacks, parties.stages.seconds
    signals: dict[SignalLayout, tuple[Key, Signals]] = {}
    if uses(attacks, "disjoint"):
        signals["disjoint"] = disjoint_signals(parties, label, rounds, defense)
    if references:
        signals["shared"] = shared_signals(parties, label, rounds[-1], references, defense)
    report = AuditReport(tuple(_predict(parties, attack, *signals[attack.layout], label) for attack in attacks))
    seconds = parties.stages.seconds - before
    in_turn = parties.config.leave_one_out and "shared" in signals
    plain: dict[SignalLayout, Signals] = {layout: found for layout, (_, found) in signals.items()}
    return Outcome(
        label, defense, parties.seed, sparsity, parties.evaluation_split, rounds, plain, report,
        parties.defender_scores if parties.needs_scores else None, seconds,
        non_adaptive=_attack_unknowing(parties, label, weaker, defense) if weaker else None,
        in_turn=_attack_in_turn(parties, label, *signals["shared"]) if in_turn else {},
    )  # fmt: skip


def _attack_unknowing(parties: Parties, label: str, weaker: Sequence[Stage], defense: Defense | None) -> AuditReport:
    """The attacks that learn from shadows, with shadows pruned without the defense."""
    title = f"{label}, non-adaptive"
    own, signals = disjoint_signals(parties, title, weaker, defense)
    chosen = [
        attack
        for attack in parties.config.attacks
        if attack.layout == "disjoint" and "trajectory" not in attack.required_signals
    ]
    return AuditReport(tuple(_predict(parties, attack, own, signals, title) for attack in chosen))


def _attack_in_turn(parties: Parties, label: str, signals_key: Key, signals: Signals) -> dict[str, Mapping[str, Any]]:
    """Every member attacked in turn by each attack that compares models, with the intervals that take the time."""
    metrics = [metric for metric in METRICS.values() if not metric.needs_threshold]

    def attacked(attack: Attack) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        targets = leave_one_out(signals, [attack], seed=parties.seed)[attack.name]
        measures = {metric.name: targets.measure(metric) for metric in metrics}
        told = {metric: {"value": e.value, "ci": [e.low, e.high]} for metric, e in measures.items()}
        return {"score": targets.scores}, {"targets": len(targets.scores), "records": targets.scores.shape[1], **told}

    found: dict[str, Mapping[str, Any]] = {}
    for attack in (attack for attack in parties.config.attacks if attack.layout == "shared"):
        own = key(
            "in_turn", signals=signals_key, attack=identity(attack), seed=parties.seed,
            metrics=[metric.name for metric in metrics],
        )  # fmt: skip
        title = parties.title(f"{attack.name} on {label}, all models in turn")
        meta = parties.stages.remember(title, own, partial(attacked, attack)).meta
        found[attack.name] = {name: value for name, value in meta.items() if name != "seconds"}
    return found


def _predict(parties: Parties, attack: Attack, signals_key: Key, signals: Signals, label: str) -> AttackResult:
    """One attack on the victim, from the store if it was run on these very signals before."""

    def compute() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        output = attack.predict(signals, 0, seed=parties.seed)
        arrays = {"score": output.score, "threshold": output.threshold}
        return arrays if output.probability is None else {**arrays, "probability": output.probability}, {}

    own = key("attack", signals=signals_key, attack=identity(attack), seed=parties.seed)
    arrays = parties.stages.remember(parties.title(f"{attack.name} on {label}"), own, compute).arrays
    output = AttackOutput(arrays["score"], arrays["threshold"], arrays.get("probability"))
    return attack_result(attack, signals, 0, output)


def expected_work(config: StudyConfig, records: int, labels: Sequence[str]) -> float:
    """Records times models times epochs of everything a study trains, if early stopping strikes as it usually does.

    Args:
        config: the study.
        records: in the data set.
        labels: of the defenses that are pruned under.
    """
    shown, shared = config.split.train * (records // 2), uses(config.attacks, "shared")
    models, most = 1 + config.split.shadows, config.references_of("dense") if shared else 0
    scored = any(defense.needs_scores for defense in config.every_defense)
    subset = 2 * config.scores.models * config.scores.fraction if scored else 0
    whole_chunks = CHUNK * -(-config.scores.models // CHUNK)
    dense = models + subset + (max(most, whole_chunks) if most and scored else most)
    arms = {label: models + (config.references_of(label) if shared else 0) for label in labels}
    shows = sum(arms[label] * config.defenses[label].passes_per_epoch for label in labels)
    pruned = config.pruning.rounds * shows * len(config.pruning.sparsities)
    dense += sum(arms[label] * config.defenses[label].teacher_trainings for label in labels)
    epochs = [min(recipe.epochs, USUAL_EPOCHS) for recipe in (config.training, config.finetune)]
    trained = shown * (dense * epochs[0] + pruned * epochs[1])
    return len(config.seeds) * (trained + search_work(config, shown, labels))
