"""Content of ``results.json`` from the outcomes of a study."""

import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from wemem.attacks import kind_of
from wemem.auditing.blind import blind_baseline
from wemem.auditing.report import as_json
from wemem.config.study import StudyConfig
from wemem.data.concerns import concerns
from wemem.data.dataset import Dataset
from wemem.data.split import Role
from wemem.exporting.footprint import footprint
from wemem.exporting.shards import weights_path, weights_sha256
from wemem.files.hashing import sha256_of
from wemem.metrics.intervals import proportion
from wemem.metrics.registry import tpr_metric
from wemem.models.table import model_for
from wemem.notes import Note
from wemem.pruning import pruned_share_of_all
from wemem.results.privacy import account
from wemem.signals import UNKNOWN, Signals
from wemem.study.outcome import Outcome
from wemem.study.weak_targets import weak_targets
from wemem.training import choose_device, device_name
from wemem.training.device import CPU

#: The schema of the results that are written.
SCHEMA = "wemem.results/2"
#: Fields of a round that are written to results.
ROUND = ("round", "sparsity", "test_accuracy", "confidence_auc", "dev_accuracy", "epochs")


def study_results(config: StudyConfig, data: Dataset, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The content of ``results.json``; its schema is :func:`wemem.results.schema.results_schema`."""
    plain = {(o.seed, o.sparsity): o for o in outcomes if o.label == "undefended"}
    runs = [_run(outcome, config, data, plain.get((outcome.seed, outcome.sparsity))) for outcome in outcomes]
    attacks = {name: kind_of(attack) for name, attack in config.attacks.items()}
    scores = {o.seed: o.scores for o in outcomes if o.scores is not None}
    splits = {o.seed: o.split for o in outcomes if o.report.results}
    blind = [one for seed, split in splits.items() if (one := blind_baseline(data, split, seed)) is not None]
    return {
        "schema": SCHEMA,
        "study": config.table,
        "study_sha256": sha256_of(config.table),
        "planned": {
            "runs": dict(Counter(outcome.label for outcome in outcomes if outcome.seed == outcomes[0].seed)),
            "seeds": list(dict.fromkeys(outcome.seed for outcome in outcomes)),
            "attacks": attacks,
        },
        "files": {},
        "environment": environment(choose_device(config.device)),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "records": len(data),
            "classes": data.classes,
            "input_shape": list(data.input_shape),
            **({"class_names": list(data.class_names)} if data.class_names else {}),
        },
        "notes": [
            note.as_json()
            for note in (*_notes(config, outcomes), *_weak(outcomes, runs, data), *leaking(blind), *concerns(data))
        ],
        "scores": [
            {
                "seed": seed,
                "party": "defender",
                "models": estimated.models,
                "halves_correlation": _or_none(estimated.halves_correlation),
                "seconds": estimated.seconds,
            }
            for seed, estimated in scores.items()
            if estimated.models
        ],
        **({"blind_baseline": blind} if blind else {}),
        "runs": runs,
    }


def leaking(blind: Sequence[Mapping[str, Any]]) -> list[Note]:
    """A note on each seed in which records alone tell members from non-members."""
    return [
        Note("split_leaks", {"seed": one["seed"], "auc": one["auc"]["value"], "ci": one["auc"]["ci"]})
        for one in blind
        if one["above_chance"]
    ]


def answers_are_constant(signals: Signals) -> bool:
    """True if the audited model gives all audited records the same answer, which no attack can use."""
    answers = signals.logits[0, signals.audited(0)]
    return bool((answers == answers[0]).all())


def _or_none(value: float) -> float | None:
    """A number as JSON has it; None for NaN."""
    return None if math.isnan(value) else value


def environment(device: torch.device = CPU) -> dict[str, Any]:
    """Versions, number of threads and device that results depend on."""
    return {
        "wemem": version("wemem"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "device": device.type,
        "device_name": device_name(device),
    }


def _notes(config: StudyConfig, outcomes: Sequence[Outcome]) -> list[Note]:
    notes = [
        Note("audited_file", {"name": shipped.name, "sha256": shipped.sha256, "runtime": shipped.runtime})
        for shipped in (outcome.victim.shipped for outcome in outcomes)
        if shipped is not None
    ]
    unmatched = {kind: size for outcome in outcomes for kind, size in outcome.unmatched.items()}
    notes += [Note("unmatched_size", {"kind": kind, "records": size}) for kind, size in unmatched.items()]
    if not config.scores.as_victim and any(_scored(outcome) for outcome in outcomes):
        notes.append(Note("scored_otherwise"))
    notes += [
        Note("constant_answers", {"label": outcome.label, "seed": outcome.seed})
        for outcome in outcomes
        if any(answers_are_constant(signals) for signals in outcome.signals.values())
    ]
    if config.canaries and config.victim is not None:
        notes.append(Note("canaries_in_references"))
    if config.victim is not None:
        notes.append(Note("victim_training_unknown"))
    return notes


def _weak(outcomes: Sequence[Outcome], runs: Sequence[Mapping[str, Any]], data: Dataset) -> list[Note]:
    """A note on each arm and seed whose soft targets know the data too little."""
    reached = {run["seed"]: run["accuracy"]["dev"] for run in runs if run["defense"] == "dense"}
    notes = {
        (one.label, one.seed): weak_targets(one.defense, one.victim, reached[one.seed], data, one.label, one.seed)
        for one in outcomes
        if one.defense is not None and one.seed in reached
    }
    return [note for note in notes.values() if note is not None]


def _run(
    outcome: Outcome, config: StudyConfig, data: Dataset, plain: Outcome | None
) -> dict[str, Any]:  # fmt: skip
    stage = outcome.victim
    rounds = list(stage.meta.get("rounds", []))
    dense = outcome.defense is None
    return {
        "defense": outcome.kind,
        "label": outcome.label,
        "settings": {} if outcome.defense is None else outcome.defense.settings,
        "seed": outcome.seed,
        "sparsity": rounds[-1]["sparsity"] if rounds else outcome.sparsity,
        "accuracy": _accuracies(outcome, config, data),
        "seconds": {
            "finetune": stage.seconds,
            "teachers": stage.teachers_seconds,
            "defense_overhead": None
            if dense or outcome.is_control or plain is None
            else stage.seconds + stage.teachers_seconds - plain.victim.seconds,
            "scores": outcome.scores.seconds if _scored(outcome) and outcome.scores else 0.0,
            "attacks": outcome.attack_seconds,
        },
        "records_seen": sum(r["records_seen"] for r in rounds),
        "peak_memory_mib": max(
            (r["peak_memory_mib"] for r in rounds if r["peak_memory_mib"] is not None), default=None
        ),
        "backend": stage.meta["backend"],
        "rounds": [{name: r[name] for name in ROUND} for r in rounds],
        **_privacy(outcome, config, rounds),
        "certificate": certificate(list(outcome.signals.values())),
        "model_file": None,
        "altered_answers": outcome.altered_answers,
        **_model_facts(outcome, config, data),
        **as_json(outcome.report, seed=outcome.seed),
        **({"non_adaptive": as_json(outcome.non_adaptive)["attacks"]} if outcome.non_adaptive else {}),
        **({"leave_one_out": dict(outcome.leave_one_out)} if outcome.leave_one_out else {}),
        **({"canaries": dict(outcome.canaries)} if outcome.canaries else {}),
        **({"reference_accuracy": dict(outcome.reference_accuracy)} if outcome.reference_accuracy else {}),
        **({"auto": {**outcome.tuned.summary, **_audited(outcome, config, data, plain)}} if outcome.tuned else {}),
    }


def _audited(
    outcome: Outcome, config: StudyConfig, data: Dataset, plain: Outcome | None
) -> dict[str, Any]:  # fmt: skip
    """Compare the figures of a run with its budget; its non-members were not used by any search."""
    if outcome.tuned is None or not outcome.report.results:
        return {}
    budget = outcome.tuned.budget
    attack, tpr = outcome.report.worst(tpr_metric(budget.at_fpr))
    both = [_accuracies(one, config, data)["test"] for one in (plain, outcome) if one is not None]
    drop = None if plain is None else both[0] - both[1]
    lost = budget.max_accuracy_drop is not None and drop is not None and drop > budget.max_accuracy_drop
    leaks = budget.max_tpr is not None and tpr.value > budget.max_tpr
    unknown = budget.max_accuracy_drop is not None and drop is None and not leaks
    met = None if unknown else not (lost or leaks)
    return {"audited": {"accuracy_drop": drop, "tpr": tpr.value, "tpr_attack": attack.name, "met": met}}


def _privacy(outcome: Outcome, config: StudyConfig, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The nominal privacy budget, if the study fine-tuned the victim with DP-SGD."""
    if outcome.defense is None or not rounds:
        return {}
    records, steps = len(outcome.split.records(0, Role.TRAIN)), sum(r["steps"] for r in rounds)
    payload = account(outcome.defense, records, config.finetune.batch_size, steps)
    return {} if payload is None else {"privacy": payload}


def _model_facts(outcome: Outcome, config: StudyConfig, data: Dataset) -> dict[str, Any]:
    """The footprint of the victim, if its architecture is known, and the audited file, if one was
    given.
    """
    stage = outcome.victim
    if stage.shipped is not None:
        return {"audited_file": {"name": stage.shipped.name, "sha256": stage.shipped.sha256}}
    whole = {"whole_model_sparsity": pruned_share_of_all(stage.ensemble.select([0]), _dense_parameters(config, data))}
    costs = {"footprint": asdict(footprint(stage.ensemble.module(0), data.input_shape)), **whole}
    if config.victim is None or outcome.rounds[-1].meta.get("rounds"):
        return costs
    weights = weights_path(config.victim.weights)
    return {**costs, "audited_file": {"name": weights.name, "sha256": weights_sha256(weights)}}


def _dense_parameters(config: StudyConfig, data: Dataset) -> int:
    """The number of parameters of the architecture before any pruning."""
    with torch.random.fork_rng(devices=[]):
        module = model_for(config.model, data).build(data.input_shape, data.classes)
    return sum(parameter.numel() for parameter in module.parameters())


def certificate(all_signals: Sequence[Signals]) -> dict[str, Any]:
    """Compare recipe fingerprints: the audit is adaptive if all adversary's models have the
    victim's.
    """
    return {
        "adaptive": bool(all_signals) and all(signals.adaptive for signals in all_signals),
        "victim_recipe_fingerprint": all_signals[0].provenance[0] if all_signals else UNKNOWN,
        "adversary_recipe_fingerprints": sorted(
            {recipe for signals in all_signals for recipe in signals.provenance[1:]}
        ),
        "models": sum(signals.num_models - 1 for signals in all_signals),
    }


def _scored(outcome: Outcome) -> bool:
    return outcome.defense is not None and outcome.defense.needs_scores


def _accuracies(outcome: Outcome, config: StudyConfig, data: Dataset) -> dict[str, Any]:
    """The victim's accuracy on its train, dev and non-member records; the last is the test
    accuracy.
    """
    right = correct_predictions(outcome, config, data)
    train, dev, test = (right[outcome.split.records(0, role)] for role in (Role.TRAIN, Role.DEV, Role.AUDIT))
    share = proportion(int(test.sum()), len(test))
    return {
        "train": float(train.mean()), "dev": float(dev.mean()), "test": share.value,
        "test_ci": [share.low, share.high], "test_records": len(test),
    }  # fmt: skip


def correct_predictions(outcome: Outcome, config: StudyConfig, data: Dataset) -> Bool[np.ndarray, " N"]:
    """True for each train, dev and non-member record whose class the victim predicts; false
    elsewhere.
    """
    right, device = np.zeros(len(data), bool), choose_device(config.device)
    for role in (Role.TRAIN, Role.DEV, Role.AUDIT):
        records = outcome.split.records(0, role)
        for part in data.parts(records):
            right[part] = outcome.victim.first(data.features[part], device).argmax(1) == data.labels[part]
    return right
