"""Padded batches for models that train side by side.

A defense groups the records of each model (:class:`Group`), and :func:`plan_steps` turns the groups
of all models into steps of ``(K, B)`` record indices and weights. The layout is computed once for
the whole ensemble, so that every backend sees the same batches, also the one that trains the models
one after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Int64

from wemem.errors import InputError
from wemem.randomness import generator


@dataclass(frozen=True, eq=False)
class Group:
    """Records that share batches, an optimizer state and a weight decay.

    Args:
        records: int64, shape ``(n,)``, indices into the data set.
        key: the name of the optimizer state for these records.
        weight_decay: the L2 decay of their steps; None means that of the recipe.
    """

    records: Int64[np.ndarray, " n"]
    key: str = "all"
    weight_decay: float | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One optimizer step of all models. A model whose weights are all 0 takes no part in it."""

    records: Int64[np.ndarray, "K B"]
    weights: Float32[np.ndarray, "K B"]
    key: str
    weight_decay: float | None


def batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Bounds of batches of ``batch_size``; a rest of one record joins its neighbour, because
    BatchNorm needs two.

    >>> batch_bounds(5, 2), batch_bounds(6, 4)
    ([(0, 2), (2, 5)], [(0, 4), (4, 6)])
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(pairwise([*starts, n]))


def join_single_records(groups: Sequence[Group]) -> list[Group]:
    """Let each group of one record join the group after it, or the one before it if it is last.

    A step needs two records under BatchNorm. The record is then stepped on with the decay and the
    optimizer state of the group that it joins. The only group of a model stays as it is; a single
    record is then padded by itself, with weight 0.

    >>> calm, risky = Group(np.arange(3)), Group(np.array([7]), "risky", 0.1)
    >>> [(group.key, group.records.tolist()) for group in join_single_records([calm, risky])]
    [('all', [0, 1, 2, 7])]
    """
    joined = [group for group in groups if len(group.records)]
    while len(joined) > 1 and (i := next((i for i, g in enumerate(joined) if len(g.records) == 1), None)) is not None:
        single = joined.pop(i)
        i = min(i, len(joined) - 1)
        joined[i] = replace(joined[i], records=np.concatenate([joined[i].records, single.records]))
    return joined


def plan_steps(groups: Sequence[Sequence[Group]], batch_size: int, seeds: Sequence[int], epoch: int) -> list[Step]:
    """Plan the steps of one epoch: each model's groups, shuffled and cut into batches, in random
    order.

    Args:
        groups: the groups of each of the K models, with different keys; models that share a key
            agree on its weight decay.
        batch_size: the number of records in a batch.
        seeds: one seed for each model, on which alone its order of records depends.
        epoch: the number of the epoch; each has another order.

    Raises:
        InputError: a model with two groups of one key, or models that disagree on a key's weight
            decay.
    """
    groups = [join_single_records(own) for own in groups]
    keys = dict.fromkeys(group.key for own in groups for group in own)
    for key in keys:
        _require_agreement(key, groups)
    steps = [step for key in keys for step in _steps_of(key, groups, batch_size, seeds, epoch)]
    order = generator(epoch, "order of steps").permutation(len(steps))
    return [steps[i] for i in order]


def _require_agreement(key: str, groups: Sequence[Sequence[Group]]) -> None:
    decays = [[group.weight_decay for group in own if group.key == key] for own in groups]
    if max(map(len, decays)) > 1:
        raise InputError(f"expected one group of key {key!r} for each model, got several; name their keys apart")
    if len({decay for own in decays for decay in own}) > 1:
        raise InputError(f"expected one weight decay for key {key!r}, got {decays}; name the groups' keys apart")


def _steps_of(
    key: str, groups: Sequence[Sequence[Group]], batch_size: int, seeds: Sequence[int], epoch: int
) -> list[Step]:
    chosen = [next((g for g in model if g.key == key), Group(np.zeros(0, np.int64), key)) for model in groups]
    shuffled = [
        generator(seed, "order", key, epoch).permutation(group.records)
        for seed, group in zip(seeds, chosen, strict=True)
    ]
    bounds = [batch_bounds(len(records), batch_size) for records in shuffled]
    decay = next((g.weight_decay for model in groups for g in model if g.key == key), None)
    steps = []
    for i in range(max(map(len, bounds))):
        cut = [rows[slice(*b[i])] if i < len(b) else rows[:0] for rows, b in zip(shuffled, bounds, strict=True)]
        width = max(map(len, cut))
        if width == 1 and batch_size > 1:  # nothing to join: the record stands in its batch twice, for BatchNorm
            width = 2
        records, weights = np.zeros((len(cut), width), np.int64), np.zeros((len(cut), width), np.float32)
        for k, rows in enumerate(cut):
            # A short batch is padded with its own records, so that BatchNorm sees the data of that
            # model only.
            records[k] = np.resize(rows, width) if len(rows) else 0
            weights[k, : len(rows)] = 1
        steps.append(Step(records, weights, key, decay))
    return steps
