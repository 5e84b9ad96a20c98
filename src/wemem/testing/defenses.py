"""The conformance check of defenses: value, plan, loss, and pruning on small data."""

import json
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wemem.data.batches import Group
from wemem.defenses import (
    DEFENSES,
    AdversarialTraining,
    Batch,
    Chain,
    Defense,
    Distillation,
    OutputPostprocessing,
    RecordRisk,
    Undefended,
    make_defense,
)
from wemem.settings import ADDED, from_table
from wemem.store.fingerprint import spelled
from wemem.testing.trials import CLASSES, Trial, known_records, largest_difference

#: Epochs whose plans are checked.
EPOCHS = (0, 1, 2, 7, 30)
#: Largest difference between parameters of models that should be equal up to rounding.
TOLERANCE = 1e-3


def check_defense(defense: Defense, *, limit: Defense | None = None, seed: int = 0) -> None:
    """Check a defense on small data: call it in a test of a defense of your own.

    It must be a frozen value that its repr and its settings make again, with the same fingerprint.
    Its plan must show training records only, each at most once in an epoch, and depend on nothing
    of any other record. Its loss must not depend on padding or on other models. Pruning under it
    must give the same bytes again, whatever other records hold and whatever the state of global
    generators; the same models on both backends; and the same bytes in a chain with a defense that
    does nothing. At its limit it must be plain fine-tuning.

    Args:
        defense: the defense to check.
        limit: the same defense with the settings at which it should be plain fine-tuning; None
            skips that check, for a defense that has no such settings.
        seed: seed of data, roles and models.

    Raises:
        AssertionError: a requirement that the defense misses, with the numbers.
        InputError: the defense refuses the small data or the small model.

    >>> from wemem.defenses import LabelSmoothing
    >>> check_defense(LabelSmoothing(0.2), limit=LabelSmoothing(0.0))
    """
    check_value(defense)
    check_plan(defense, seed=seed)
    check_loss(defense, seed=seed)
    check_outputs(defense, seed=seed)
    check_pruning(defense, seed=seed)
    if limit is not None:
        check_limit(limit, seed=seed)


def check_value(defense: Defense) -> None:
    """Check that repr and settings of a defense make it again, with the same fingerprint.

    Raises:
        AssertionError: it is not.
    """
    _require(
        type(defense).__hash__ is not None,
        f"expected a frozen dataclass, got {type(defense).__name__}; decorate it with @dataclass(frozen=True)",
    )
    parts = defense.parts if isinstance(defense, Chain) else (defense,)
    names = {cls.__name__: cls for cls in (Chain, *map(type, parts))}
    try:
        again = eval(repr(defense), {"__builtins__": {}}, names)  # noqa: S307  (the caller's own object)
    except Exception as error:
        raise AssertionError(
            f"expected the repr of a defense to evaluate, got {defense!r}; let the dataclass make it"
        ) from error
    _require(again == defense, f"expected the repr to give an equal defense, got {again!r} from {defense!r}")
    _require(
        bool(defense.name) and not set(defense.name) & set(" /\\"),
        f"expected a name without blanks and slashes, got {defense.name!r}",
    )
    _check_settings(defense)
    _check_fingerprint(defense)


def _check_settings(defense: Defense) -> None:
    settings = defense.settings
    parts = defense.parts if isinstance(defense, Chain) else (defense,)
    unknown = set(settings) - {field.name for part in parts for field in fields(part)}
    _require(not unknown, f"expected the settings of {defense!r} to be its fields, got {sorted(unknown)} as well")
    given = {name: value for name, value in json.loads(json.dumps(settings)).items() if value is not None}
    if all(type(part) in DEFENSES.values() for part in parts):
        again = make_defense(defense.name, given)
    elif isinstance(defense, Chain):
        return
    else:
        again = from_table(type(defense), given, repr(defense.name))
    _require(again == defense, f"expected the settings {given} to make {defense!r}, got {again!r}")


def _check_fingerprint(defense: Defense) -> None:
    fingerprint = spelled(defense)
    json.dumps(fingerprint, allow_nan=False)
    added = {field.name for field in fields(defense) if field.metadata == ADDED}
    required = {field.name for field in fields(defense)} - {
        name for name in added if getattr(defense, name) == getattr(type(defense), name)
    }
    missing = sorted(required - set(fingerprint))
    _require(not missing, f"expected every field of {defense!r} in its fingerprint, got none of {missing}")
    _require(
        fingerprint == spelled(replace(defense)),
        f"expected equal defenses to have equal fingerprints, got others for {defense!r}",
    )


def check_plan(defense: Defense, *, seed: int = 0) -> None:
    """Check that a plan shows training records only, each at most once, and reads no other.

    Raises:
        AssertionError: it shows another record, shows one twice, or depends on records that are not
            trained on.
    """
    records, altered = known_records(seed, other=False), known_records(seed, other=True)
    for epoch in EPOCHS:
        groups, again, unseen = (
            defense.plan(epoch, (Group(known.train),), known) for known in (records, records, altered)
        )
        shown = np.concatenate([group.records for group in groups])
        outside = np.setdiff1d(shown, records.train)
        _require(
            not len(outside),
            f"expected {defense!r} to show training records, got record {outside[:1]} in epoch {epoch}",
        )
        _require(
            len(np.unique(shown)) == len(shown),
            f"expected {defense!r} to show a record at most once in an epoch, got {len(shown)} of "
            f"{len(np.unique(shown))} different ones in epoch {epoch}",
        )
        _require(len({g.key for g in groups}) == len(groups), f"expected groups with different keys from {defense!r}")
        _require(_same_plan(groups, again), f"expected {defense!r} to plan the same again, got another epoch {epoch}")
        _require(
            _same_plan(groups, unseen),
            f"expected the plan of {defense!r} to depend on training records alone, got another epoch {epoch} for "
            "other labels and scores of other records",
        )
    risk = defense.capability(RecordRisk)
    if risk is not None:
        own, other = (risk.of(known)[known.train] for known in (records, altered))
        _require(
            bool(np.isfinite(own).all()) and np.array_equal(own, other),
            f"expected a finite risk of every training record from {defense!r}, by training records alone",
        )


def _same_plan(one: tuple[Group, ...], other: tuple[Group, ...]) -> bool:
    return [(g.records.tolist(), g.key, g.weight_decay) for g in one] == [
        (g.records.tolist(), g.key, g.weight_decay) for g in other
    ]


def check_loss(defense: Defense, *, seed: int = 0) -> None:
    """Check that a loss is finite, and does not depend on padding or on other models.

    Raises:
        AssertionError: it is not, or they do.
    """
    rng = np.random.default_rng(seed)
    for epoch in (0, 1):
        whole = _batch(defense, rng, epoch)
        loss = defense.loss(whole)
        _require(
            loss.shape == (2,) and bool(torch.isfinite(loss).all()),
            f"expected one finite loss for each of 2 models from {defense!r}, got {loss}",
        )
        cut, first = _part(whole, slice(None), slice(0, 6)), _part(whole, slice(0, 1), slice(None))
        for what, part in (("padding", defense.loss(cut)), ("other models", defense.loss(first))):
            _require(
                torch.allclose(part, loss[: len(part)], rtol=1e-5, atol=1e-6),
                f"expected the loss of {defense!r} not to depend on {what}, got {loss.tolist()} and {part.tolist()}; "
                "use batch.mean, which leaves the padding out",
            )


def _batch(defense: Defense, rng: np.random.Generator, epoch: int) -> Batch:
    """Outputs of two models on eight records, of which the last two are padding."""
    logits = torch.tensor(rng.normal(size=(2, 8, CLASSES)), dtype=torch.float32, requires_grad=True)
    labels = torch.tensor(rng.integers(0, CLASSES, (2, 8)))
    weights = torch.tensor([[1.0] * 6 + [0.0] * 2] * 2)
    drawn = torch.tensor(rng.random((2, 8)), dtype=torch.float32)
    teachers = torch.tensor(np.log(rng.dirichlet(np.ones(CLASSES), (2, 8))), dtype=torch.float32)
    return Batch(
        logits, labels, weights, epoch,
        teacher_log_probs=teachers if defense.capability(Distillation) else None,
        risk=drawn if defense.capability(RecordRisk) else None,
        membership_log_probability=drawn.log() if defense.capability(AdversarialTraining) else None,
    )  # fmt: skip


def _part(batch: Batch, models: slice, records: slice) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    cut: dict[str, Any] = {n: v[models, records] for n, v in values.items() if isinstance(v, torch.Tensor)}
    return replace(batch, **cut)


def check_outputs(defense: Defense, *, seed: int = 0) -> None:
    """Check that altered answers are finite, of the same shape, and drawn from the generator.

    Raises:
        AssertionError: they do not.
    """
    postprocessing = defense.capability(OutputPostprocessing)
    if postprocessing is None:
        return
    logits = np.random.default_rng(seed).normal(size=(20, CLASSES)).astype(np.float32)
    kept = logits.copy()
    one = postprocessing(logits, np.random.default_rng(seed))
    _require(np.array_equal(kept, logits), f"expected {defense!r} to return new answers, got the logits changed")
    again = postprocessing(logits, np.random.default_rng(seed))
    _require(
        one.shape == logits.shape and one.dtype == np.float32 and bool(np.isfinite(one).all()),
        f"expected finite float32 answers of shape {logits.shape} from {defense!r}, got {one.dtype} of {one.shape}",
    )
    _require(np.array_equal(one, again), f"expected {defense!r} to draw its answers from the generator alone")


def check_pruning(defense: Defense, *, seed: int = 0) -> None:
    """Check that pruning is repeatable, alike on both backends, and the same in a chain.

    Raises:
        AssertionError: the models differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), seed)
        models = trial.prune(defense)
        state = torch.get_rng_state()
        torch.manual_seed(seed + 1)
        again = trial.altered.prune(defense)
        torch.set_rng_state(state)
        _require(
            largest_difference(models, again) == 0,
            f"expected pruning under {defense!r} to depend on seeds and on the records of a model alone, got other "
            "models with other contents of the records that no model uses and other states of global generators",
        )
        sequential = largest_difference(models, trial.on("sequential").prune(defense))
        _require(
            sequential < TOLERANCE,
            f"expected the same models from both backends under {defense!r}, got parameters {sequential:.2g} apart",
        )
        for chained in (Chain((_Nothing(), defense)), Chain((defense, _Nothing()))):
            _require(
                largest_difference(models, trial.prune(chained)) == 0,
                f"expected {defense!r} in a chain with a defense that does nothing to be itself, got other models",
            )


def check_limit(limit: Defense, *, seed: int = 0) -> None:
    """Check that a defense is plain fine-tuning at its limit.

    Raises:
        AssertionError: the models differ from those of plain fine-tuning.
    """
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), seed)
        apart = largest_difference(trial.prune(limit), trial.prune(Undefended()))
    _require(
        apart < TOLERANCE,
        f"expected {limit!r} to be plain fine-tuning, got parameters {apart:.2g} apart from it",
    )


@dataclass(frozen=True)
class _Nothing(Defense):
    """A defense without settings that changes nothing."""

    @property
    def name(self) -> str:
        return "nothing"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
