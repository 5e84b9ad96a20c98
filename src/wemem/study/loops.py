"""Adaptivity of audits by functions: whether the user's train function runs the loop that made the
audited model.

An attack counts as adaptive only if all of this was seen. In the call for each of the adversary's
models exactly one loop of :class:`~wemem.blocks.PruningEngine` began and ran to its end; the module
that answers has the very weights with which it ended; the recipes of all loops equal that of the
audited model, which is known by its weights or by the certificate beside its file; the scores that
a loop read were estimated in the same call; and no two calls trained on the same records or ended
with the same weights. Otherwise the first reason stands in the results.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from wemem.blocks import RecordModel
from wemem.blocks.observation import FinishedLoop, Observation, finished_loop, state_fingerprint
from wemem.blocks.wrapped import plain_module
from wemem.data.given_victim import matched_counts
from wemem.exporting.checkpoint import certified_loop
from wemem.notes import Note
from wemem.signals import UNKNOWN

#: Fewer models of the adversary cannot show that the train function uses the records that it gets.
FEWEST = 2


@dataclass(frozen=True, eq=False)
class NumberedPredict:
    """A predict function of record numbers as one of the features that stand for them.

    Args:
        predict: the user's function.
        numbers: features to record numbers.
    """

    predict: Callable[..., Any]
    numbers: Callable[[np.ndarray], np.ndarray]

    def __call__(self, features: np.ndarray) -> Any:
        return self.predict(self.numbers(features))


@dataclass(frozen=True, eq=False)
class ModelLoop:
    """The loop that made one of the models of an audit.

    Args:
        model: the name of the model in messages.
        loop: the loop, if it is known.
        reason: the reason why it is not known, or does not count.
    """

    model: str
    loop: FinishedLoop | None = None
    reason: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The form in which the store keeps it."""
        return {"loop": None if self.loop is None else asdict(self.loop), "reason": dict(self.reason)}

    @classmethod
    def from_json(cls, model: str, content: Mapping[str, Any]) -> "ModelLoop":
        """Read what :meth:`as_json` made."""
        return cls(model, None if content["loop"] is None else FinishedLoop(**content["loop"]), content["reason"])


def trained_loop(model: str, seen: Observation, predict: object, records: int) -> ModelLoop:
    """The loop of a model that the train function just trained.

    Args:
        model: the name of the model.
        seen: what was observed in the call.
        predict: what the call returned.
        records: the number of records that the call got.
    """
    if (seen.begun, len(seen.finished)) != (1, 1):
        return ModelLoop(model, None, _because("loops_in_call", begun=seen.begun, ended=len(seen.finished)))
    (loop,) = seen.finished
    module = answering_module(predict)
    if module is None:
        return ModelLoop(model, loop, _because("weights_unseen"))
    if state_fingerprint(module) != loop.state:
        return ModelLoop(model, loop, _because("other_weights"))
    return ModelLoop(model, loop, _problem_of(loop, records))


def audited_loop(predict: object, file: Path | None, records: int) -> ModelLoop:
    """The loop of the audited model: one of this process that ended with its weights, or that of
    the certificate beside its file.

    Args:
        predict: the predict function of the audited model, or the module.
        file: the file of the model, if it is known.
        records: the number of members.
    """
    model, module = "the audited model", answering_module(predict)
    if module is None:
        return ModelLoop(model, None, _because("weights_unseen"))
    loop = finished_loop(module) or (None if file is None else _certified(file, state_fingerprint(module)))
    return ModelLoop(model, loop, _because("no_certificate") if loop is None else _problem_of(loop, records))


def answering_module(predict: object) -> nn.Module | None:
    """The module whose weights answer, or None where they are not seen."""
    if isinstance(predict, NumberedPredict):
        return answering_module(predict.predict)
    if isinstance(predict, RecordModel):
        predict = predict.module
    return plain_module(predict) if isinstance(predict, nn.Module) else None


def compared(audited: ModelLoop, others: Sequence[ModelLoop]) -> tuple[tuple[str, ...], Note]:
    """Compare the loops of all models.

    Returns:
        The recipe fingerprint of each model, the audited one first, ``unknown`` for those that do
        not count; and a note on whether the attacks are adaptive, with the first reason if not.
    """
    reasons = [audited.reason, *(_unlike(audited, other) for other in others)]
    repeated = dict(_repeated([audited, *others]))
    every = [reasons[k] or repeated.get(k, {}) for k in range(len(reasons))]
    recipe = UNKNOWN if audited.loop is None else audited.loop.fingerprint
    recipes = tuple(UNKNOWN if reason else recipe for reason in every)
    first = next(((one.model, why) for one, why in zip([audited, *others], every, strict=True) if why), None)
    if first is None and len(others) < FEWEST:
        first, recipes = (others[0].model, _because("too_few")), (UNKNOWN,) * len(recipes)
    if first is None:
        return recipes, Note("loops_equal", {"models": len(others)})
    return recipes, Note("loops_unlike", {"model": first[0], **first[1]})


def _unlike(audited: ModelLoop, other: ModelLoop) -> Mapping[str, Any]:
    """The reason why a model was not made by the loop of the audited model; empty if it was."""
    if other.reason or other.loop is None or audited.loop is None:
        return other.reason
    own, theirs = audited.loop.recipe, other.loop.recipe
    for part in ("scores", "targets"):
        if UNKNOWN in (own.get(part), theirs.get(part)):
            return _because("scored_otherwise", part=part)
    other_parts = [part for part in (*own, *theirs) if part != "records" and own.get(part) != theirs.get(part)]
    if not _matched(own.get("records", {}), theirs.get("records", {})):
        other_parts.append("records")
    return _because("other_recipe", part=other_parts[0]) if other_parts else {}


def _matched(own: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """True if two loops had as many records of each class, up to what random draws leave."""
    classes = sorted({*own, *other})
    counts = [np.array([records.get(label, 0) for label in classes], np.int64) for records in (own, other)]
    return bool(own and other) and matched_counts(*counts)


def _repeated(loops: Sequence[ModelLoop]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The places of models that have the weights of one before them, or whose records are the same."""
    states, data = set[str](), set[str]()
    for k, one in enumerate(loops):
        if one.loop is None:
            continue
        if one.loop.state in states or (k and one.loop.data in data):
            yield k, _because("same_as_another", what="weights" if one.loop.state in states else "records")
        states.add(one.loop.state)
        if k:  # the records of the audited model were not observed
            data.add(one.loop.data)


def _problem_of(loop: FinishedLoop, records: int) -> Mapping[str, Any]:
    if loop.problem is not None:
        return _because("incomplete", problem=loop.problem)
    return _because("more_records", loop=loop.records, given=records) if loop.records > records else {}


def _certified(file: Path, state: str) -> FinishedLoop | None:
    """The loop of a certificate that fits the file and the weights."""
    try:
        loop = FinishedLoop(**certified_loop(file))
        return loop if loop.state == state and isinstance(loop.recipe, Mapping) else None
    except TypeError:  # no certificate of a loop
        return None


def _because(reason: str, **values: Any) -> dict[str, Any]:
    return {"reason": reason, **values}
