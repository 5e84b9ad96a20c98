"""The blind baseline: membership predicted from records alone, without any model.

Members and non-members of a fair audit are drawn from one population, so that nothing but a model
can tell them apart. If a classifier of the features and labels succeeds, the two differ in
themselves, as where they come from other files or other years. Attacks then measure that difference
besides any leak (Das, Zhang, Tramèr 2024, "Blind baselines beat membership inference attacks for
foundation models").

The classifier is gradient-boosted trees (:class:`~sklearn.ensemble.HistGradientBoostingClassifier`)
on the features and the label. They are fitted on a random half of each side and score the other
half. Given the trees, the scored records are independent, so the intervals of the metrics hold.
Cross-validation would score every record, but the errors of its folds depend on each other: with
200 records of each side its AUC varied 1.2 times as much as its interval says. A classifier that
fails is no proof that the two sides are alike.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.utils.extmath import randomized_svd

from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.metrics.registry import METRICS, ScoredRecords
from wemem.randomness import generator

#: The fewest and most records of each side, and the most columns that are used.
FEWEST_RECORDS, MOST_RECORDS, MOST_COLUMNS = 20, 4000, 256
#: The most features of all records together, 128 MiB; large records are fewer.
MOST_FEATURES = 2**25
#: The confidence level at which the AUC must exclude one half before the split is said to leak.
LEVEL = 0.999


def blind_baseline(data: Dataset, split: Split, seed: int) -> dict[str, Any] | None:
    """Measure how well the records alone tell the victim's members from non-members.

    Args:
        data: the data set.
        split: the roles of the audit; model 0 is the victim.
        seed: the seed of the study.

    Returns:
        The entry of one seed in ``results.json``, where members and non-members are those that were
        scored; None if fewer than :data:`FEWEST_RECORDS` of a side can be used.
    """
    rng = generator(seed, "blind baseline")
    most = min(MOST_RECORDS, MOST_FEATURES // (2 * math.prod(data.input_shape)))
    sides = [rng.permutation(split.records(0, role))[:most] for role in (Role.TRAIN, Role.AUDIT)]
    if min(map(len, sides)) < FEWEST_RECORDS:
        return None
    halves = [np.array_split(side, 2) for side in sides]
    records = np.concatenate([side[half] for half in (0, 1) for side in halves])
    member = np.concatenate([np.full(len(halves[s][half]), s == 0) for half in (0, 1) for s in (0, 1)])
    fitted = np.arange(len(records)) < sum(len(side[0]) for side in halves)
    score = blind_scores(data.features[records], data.labels[records], member, fitted)
    scored = ScoredRecords(score, member[~fitted])
    entry: dict[str, Any] = {"seed": seed, "members": len(scored.members), "nonmembers": len(scored.nonmembers)}
    for metric in METRICS.values():
        if not metric.needs_threshold:
            estimate = metric.interval(scored, 0.95)
            entry[metric.name] = {"value": estimate.value, "ci": [estimate.low, estimate.high]}
    return {**entry, "above_chance": METRICS["auc"].interval(scored, LEVEL).low > 0.5}


def blind_scores(
    features: np.ndarray,
    labels: Int64[np.ndarray, " n"],
    member: Bool[np.ndarray, " n"],
    fitted: Bool[np.ndarray, " n"],
) -> Float64[np.ndarray, " m"]:
    """Score the records that the trees are not fitted on, in their order, higher = member.

    Args:
        features: the features of the records, shape ``(n, ...)``; NaN where missing.
        labels: the class of each record.
        member: the true side of each record; that of scored records is not read.
        fitted: true for the records that the trees are fitted on.
    """
    columns = np.column_stack([_columns(features), labels])
    trees = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, early_stopping=False, random_state=0
    )
    return np.asarray(trees.fit(columns[fitted], member[fitted]).decision_function(columns[~fitted]))


def _columns(features: np.ndarray) -> np.ndarray:
    """The features as columns; of many, their first principal components."""
    flat = features.reshape(len(features), -1).astype(np.float32)
    if flat.shape[1] <= MOST_COLUMNS:
        return flat
    flat = np.nan_to_num(flat - np.nanmean(flat, axis=0))
    scale = flat.std(axis=0)
    flat = flat / np.where(scale > 0, scale, 1)
    u, s, _ = randomized_svd(flat, min(MOST_COLUMNS, len(flat)), n_iter=2, random_state=0)
    return np.asarray(u * s)
