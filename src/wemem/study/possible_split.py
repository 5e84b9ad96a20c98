"""A split that is possible where the split of a study is not."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from wemem.config.study import StudyConfig
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.metrics.rates import smallest_fpr
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline

#: Shares of training and dev records that are tried, numbers of reference models, and shares of
#: training records on which a subset model trains.
TRAIN, DEV = (0.3, 0.4, 0.5, 0.6, 0.7), (0.1, 0.15, 0.2, 0.25, 0.3)
REFERENCES, FRACTIONS = (4, 6, 8, 10, 12, 16, 24, 32), (0.7, 0.9)
#: Roles of records that are drawn in search of a split, over all splits that are tried.
DRAWN = 2**24
#: Records of a class that every split needs: to train, to stop early and to audit, for the victim
#: and for the adversary.
LEAST = 6


def possible_split(pipeline: Pipeline, seed: int, check: Callable[[Parties], object]) -> str:
    """A sentence with the split nearest to the study's that its records allow, and what it can
    measure.

    Args:
        pipeline: the study, whose own split is not possible.
        seed: the seed of the split.
        check: draws the records of all models, and refuses if they do not suffice.
    """
    config, data = pipeline.workspace.config, pipeline.workspace.data
    counts = np.bincount(data.labels, minlength=data.classes)
    rarest = int(counts.argmin())
    name = data.class_names[rarest] if data.class_names else str(rarest)
    few = f"class {name!r} has {counts[rarest]} of {len(data):,} records"
    if counts[rarest] < LEAST and config.victim is None:
        return (
            f"No split is possible: {few}, and each class needs at least {LEAST}, to train, to stop early and to "
            "audit, for the victim and for the adversary; drop the class or bring more of it"
        )
    for changed in _nearby(config, len(data)):
        try:
            parties = Parties.of(pipeline.under(changed), seed)
            check(parties)
        except InputError:
            continue
        others = len(parties.split.records(0, Role.AUDIT))
        return (
            f"A split that is possible: {_settings(config, changed)}. The victim then trains on "
            f"{len(parties.split.records(0, Role.TRAIN)):,} records and is audited on {others:,} others, which measure "
            f"an FPR of {100 * smallest_fpr(others):.2g} % or more"
        )
    return f"No split near this one is possible: {few}; bring more of it, or drop the class"


def _nearby(config: StudyConfig, records: int) -> Iterator[StudyConfig]:
    """Studies that differ in the split alone, the nearest first; as many as are drawn in seconds."""
    split, scores = config.split, config.scores
    tries = max(8, DRAWN // (records * (1 + split.shadows + config.reference_models)))
    shares = {(split.train, split.dev), *((train, dev) for train in TRAIN for dev in DEV if train + dev <= 0.8)}
    references = [split.references, *(count for count in REFERENCES if count > config.reference_models)]
    fractions = [scores.fraction, *(share for share in FRACTIONS if share > scores.fraction)]
    changes = [
        (abs(train - split.train) + abs(dev - split.dev) + 0.1 * i + 0.05 * j, train, dev, count, fraction)
        for train, dev in shares
        for i, count in enumerate(references)
        for j, fraction in enumerate(fractions)
    ]
    for _, train, dev, count, fraction in sorted(changes)[1:][:tries]:
        yield replace(
            config,
            split=replace(split, train=train, dev=dev, references=count),
            scores=replace(scores, fraction=fraction),
        )


def _settings(config: StudyConfig, changed: StudyConfig) -> str:
    """The settings that differ, as the command line takes them."""
    return " ".join(
        f"--set {table}.{key}={value}"
        for table in ("split", "scores")
        for key, value in vars(getattr(changed, table)).items()
        if value != getattr(getattr(config, table), key)
    )
