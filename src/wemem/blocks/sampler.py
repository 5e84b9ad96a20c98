"""The batches of a defense as a PyTorch batch sampler."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from torch.utils.data import Sampler

from wemem.data.batches import Group, plan_steps
from wemem.defenses import Defense, Observation, TrainingRecords
from wemem.errors import InputError
from wemem.randomness import derive_seed


@dataclass(frozen=True, eq=False)
class PlannedBatch:
    """One batch of a training loop.

    Args:
        indices: int64, shape ``(B,)``, records of the data set. With views, view ``v`` of record
            ``r`` among ``N`` records has the number ``v * N + r``.
        kind: name of the records' kind; each kind has an optimizer state of its own.
        weight_decay: L2 decay of steps on this kind; None for the optimizer's own.
        steps: True if the optimizer steps after this batch, False inside a gradient accumulation.
    """

    indices: Int64[np.ndarray, " B"]
    kind: str
    weight_decay: float | None
    steps: bool = True


class DefenseBatchSampler(Sampler[list[int]]):
    """Batches of record indices as a defense plans them, for ``DataLoader(batch_sampler=...)``.

    RSW shows a window of each class, RMR batches risky records apart, SWMR does both; the other
    defenses show every record. Batches and their order are those of the ensemble trainer for one
    model with this seed.

    Args:
        defense: the defense.
        labels: int64, shape ``(N,)``, labels of the data set.
        batch_size: records of one optimizer step, over all ranks and accumulated batches.
        scores: float64, shape ``(N,)``, memorization scores, for a defense that needs them.
        train: indices of the records to train on; by default all.
        seed: seed of the model.
        accumulation: batches of one kind whose gradients are accumulated for one optimizer step.
        rank: number of this process, from 0.
        world_size: number of processes. Each gets an equal part of every batch; where the records
            do not divide evenly, some are repeated, as ``DistributedSampler`` does. They are also
            repeated where a part of a batch would have a single record.

    Raises:
        InputError: sizes that do not fit, or a defense without the scores it needs.

    >>> from wemem.defenses import SlidingWindow
    >>> scores = np.array([.4, .1, .3, .2])
    >>> sampler = DefenseBatchSampler(SlidingWindow(width=2, stride=1), np.zeros(4, int), 2, scores=scores)
    >>> [sorted(batch) for batch in sampler]
    [[1, 3]]
    >>> sampler.set_epoch(1)
    >>> [sorted(batch) for batch in sampler]
    [[2, 3]]
    """

    def __init__(
        self,
        defense: Defense,
        labels: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        scores: Float64[np.ndarray, " N"] | None = None,
        train: Int64[np.ndarray, " n"] | None = None,
        seed: int = 0,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        own = np.asarray(labels, np.int64)
        for name, value in (("batch_size", batch_size), ("accumulation", accumulation), ("world_size", world_size)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if not 0 <= rank < world_size:
            raise InputError(f"rank must be in 0..{world_size - 1}, got {rank}")
        if scores is not None and np.shape(scores) != own.shape:
            raise InputError(
                f"expected one score for each of {len(own)} records, got {np.shape(scores)}; the scores "
                "belong to another data set"
            )
        if defense.needs_scores and scores is None:
            raise InputError(
                f"{defense.name} needs memorization scores, got none; estimate them with "
                "wemem.blocks.memorization_scores"
            )
        self.defense, self.batch_size = defense, batch_size
        self.accumulation, self.rank, self.world_size = accumulation, rank, world_size
        train = np.arange(len(own)) if train is None else np.asarray(train, np.int64)
        self.seed, self.round, self.epoch, self.position = seed, 0, 0, 0
        self.records = TrainingRecords(
            train, own, None if scores is None else np.asarray(scores, np.float64), derive_seed(seed, "round", 0)
        )
        self.planned()  # a plan that cannot be made is refused here

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch within the round that the next iteration samples."""
        self.epoch, self.position = epoch, 0

    def set_round(self, index: int, observations: tuple[Observation, ...] = ()) -> None:
        """Choose the round of pruning and start with its first epoch.

        Args:
            index: number of the round, from 0.
            observations: observations before each round up to this one, for a defense that reads
                them.
        """
        self.round = index
        self.records = replace(self.records, seed=derive_seed(self.seed, "round", index), rounds=observations)
        self.set_epoch(0)

    def planned(self) -> list[PlannedBatch]:
        """Batches of this rank in the current epoch, in order."""
        groups = self.defense.plan(self.epoch, (Group(self.records.train),), self.records)
        inputs = self.defense.inputs_shown(self.epoch)
        shown = [
            replace(g, records=np.concatenate([g.records + v * len(self.records.labels) for v in inputs]))
            for g in groups
        ]
        steps = plan_steps([shown], self.batch_size, [self.records.seed], self.epoch)
        return [batch for step in steps for batch in self._divided(step.records[0], step.key, step.weight_decay)]

    def longest_epoch(self, epochs: int) -> int:
        """Number of batches of the longest of a round's first epochs."""
        before = self.epoch, self.position
        lengths = []
        for epoch in range(epochs):
            self.set_epoch(epoch)
            lengths.append(len(self))
        self.epoch, self.position = before
        return max(lengths)

    def _divided(self, records: Int64[np.ndarray, " B"], kind: str, decay: float | None) -> Iterator[PlannedBatch]:
        parts = self.accumulation * self.world_size
        least = 2 * parts if parts > 1 else 1  # BatchNorm needs two records in every part
        if len(records) % self.world_size or len(records) < least:
            records = np.resize(records, max(least, -(-len(records) // self.world_size) * self.world_size))
        share = records[self.rank :: self.world_size]
        cuts = np.array_split(share, self.accumulation)
        for i, indices in enumerate(cuts):
            yield PlannedBatch(indices, kind, decay, steps=i == len(cuts) - 1)

    def __iter__(self) -> Iterator[list[int]]:
        start, self.position = self.position, 0
        for batch in self.planned()[start:]:
            yield batch.indices.tolist()

    def __len__(self) -> int:
        return len(self.planned())

    def state_dict(self) -> dict[str, Any]:
        """State to continue from, as plain values."""
        return {"seed": self.seed, "round": self.round, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`.

        Raises:
            InputError: the state of a sampler with another seed.
        """
        if state["seed"] != self.seed:
            raise InputError(f"expected the state of a sampler with seed {self.seed}, got seed {state['seed']}")
        self.set_round(int(state["round"]), self.records.rounds)
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
