"""Padded batches for members that train side by side.

A defense says which records of a member are batched together (:class:`Group`); :func:`plan_steps` turns the groups
of all members into steps of ``(K, B)`` record indices and weights. The layout is made once for the whole ensemble, so
that every backend, also the one that trains the members one after another, sees the very same batches.
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
        key: which optimizer state steps on these records.
        weight_decay: L2 decay of those steps; the recipe's where None.
    """

    records: Int64[np.ndarray, " n"]
    key: str = "all"
    weight_decay: float | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One optimizer step of all members. A member whose weights are all 0 takes no part in it."""

    records: Int64[np.ndarray, "K B"]
    weights: Float32[np.ndarray, "K B"]
    key: str
    weight_decay: float | None


def batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Batches of ``batch_size`` and a rest; a rest of one record joins its neighbour (BatchNorm needs two).

    >>> batch_bounds(5, 2), batch_bounds(6, 4)
    ([(0, 2), (2, 5)], [(0, 4), (4, 6)])
    """
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(pairwise([*starts, n]))


def join_single_records(groups: Sequence[Group]) -> list[Group]:
    """One model's groups, where a group of one record joins the group after it, or the one before it if it is last.

    A step needs two records under BatchNorm. The record is then stepped on with the decay and the optimizer state of
    the group that it joins. The only group of a model stays as it is.

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
    """The steps of one epoch: each member's groups shuffled and cut into batches, the steps in random order.

    Args:
        groups: for each of the K members its groups, each with a key of its own; where members share a key, they
            agree on its weight decay.
        batch_size: records per batch.
        seeds: one per member; a member's own order depends on its own seed only.
        epoch: redraws all orders.

    Raises:
        InputError: a member with two groups of one key, or members that disagree on a key's weight decay.
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
        raise InputError(f"expected one group of key {key!r} for each member, got several; name their keys apart")
    if len({decay for own in decays for decay in own}) > 1:
        raise InputError(f"expected one weight decay for key {key!r}, got {decays}; name the groups' keys apart")


def _steps_of(
    key: str, groups: Sequence[Sequence[Group]], batch_size: int, seeds: Sequence[int], epoch: int
) -> list[Step]:
    own = [next((g for g in member if g.key == key), Group(np.zeros(0, np.int64), key)) for member in groups]
    shuffled = [
        generator(seed, "order", key, epoch).permutation(group.records) for seed, group in zip(seeds, own, strict=True)
    ]
    bounds = [batch_bounds(len(records), batch_size) for records in shuffled]
    decay = next((g.weight_decay for member in groups for g in member if g.key == key), None)
    steps = []
    for i in range(max(map(len, bounds))):
        cut = [rows[slice(*b[i])] if i < len(b) else rows[:0] for rows, b in zip(shuffled, bounds, strict=True)]
        width = max(map(len, cut))
        records, weights = np.zeros((len(cut), width), np.int64), np.zeros((len(cut), width), np.float32)
        for k, rows in enumerate(cut):
            # a short batch is padded with its own records, so that what BatchNorm sees is the member's own data
            records[k] = np.resize(rows, width) if len(rows) else 0
            weights[k, : len(rows)] = 1
        steps.append(Step(records, weights, key, decay))
    return steps
