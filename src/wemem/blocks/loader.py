"""A data loader whose batches are planned by a defense."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from wemem.blocks.sampler import DefenseBatchSampler, PlannedBatch
from wemem.blocks.views import ViewedDataset
from wemem.errors import InputError


class DefendedLoader:
    """Iterates over a data set in the batches of a :class:`~wemem.blocks.DefenseBatchSampler`.

    Batches have whatever structure the data set and its ``collate_fn`` give. While the loop handles
    a batch, :attr:`current` holds its plan, also with worker processes that load ahead.

    Args:
        loader: the user's loader; its data set, workers, ``collate_fn`` and pinning are kept.
        sampler: the batches.
        on_batch: called with the plan of each batch before the loop gets it.

    Raises:
        InputError: an iterable data set, whose records have no numbers.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        sampler: DefenseBatchSampler,
        on_batch: Callable[[PlannedBatch], None] = lambda batch: None,
    ) -> None:
        dataset = loader.dataset
        if isinstance(dataset, IterableDataset):
            raise InputError(
                "expected a map-style data set, got an iterable one; a defense chooses records by number, so give "
                "a data set with __getitem__ and __len__"
            )
        workers = loader.num_workers
        self.loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            persistent_workers=loader.persistent_workers,
            prefetch_factor=loader.prefetch_factor if workers else None,
        )
        self.sampler, self.on_batch = sampler, on_batch
        self.current: PlannedBatch | None = None
        #: Passes that began, the batches and optimizer steps that they planned, and the batches that the loop got.
        self.passes = self.planned = self.steps = self.handed = 0

    @property
    def dataset(self) -> Dataset[Any]:
        """The user's data set."""
        return self.loader.dataset

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        start = self.sampler.position
        planned = self.sampler.planned()[start:]
        self.passes += 1
        self.planned += len(planned)
        self.steps += sum(batch.steps for batch in planned)
        for done, (plan, batch) in enumerate(zip(planned, self.loader, strict=True), start + 1):
            self.current = plan
            self.handed += 1
            self.on_batch(plan)
            self.sampler.position = done  # a state taken within the loop continues after this batch
            yield batch
        self.current, self.sampler.position = None, 0


def labels_of(dataset: Dataset[Any]) -> Int64[np.ndarray, " N"]:
    """Labels of a data set, from ``targets``, ``labels`` or ``y``, or the last tensor of a
    ``TensorDataset``.

    Raises:
        InputError: the data set shows its labels nowhere.
    """
    if isinstance(dataset, Subset):
        return np.asarray(labels_of(dataset.dataset)[np.asarray(dataset.indices)])
    if isinstance(dataset, ViewedDataset):
        return labels_of(dataset.dataset)
    if isinstance(dataset, TensorDataset):
        return np.asarray(dataset.tensors[-1], np.int64)
    for name in ("targets", "labels", "y"):
        if hasattr(dataset, name):
            return np.asarray(getattr(dataset, name), np.int64)
    raise InputError(
        f"expected a data set with targets, labels or y, got {type(dataset).__name__}; give labels=[...], one for "
        "each record"
    )
