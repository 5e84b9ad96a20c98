"""Views of records, made by a user's own augmentation or as a defense makes them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wemem.data.views import DrawnViews
from wemem.errors import InputError
from wemem.randomness import generator


class ViewedDataset(Dataset[Any]):
    """A data set whose views follow its records: view ``v`` of record ``r`` has the number ``v * N
    + r``.

    Out-of-sample distillation learns from views beside the records. The number of a view decides
    what it looks like, so that teachers and the pruned model see the same one.

    Args:
        dataset: map-style data set of N records.
        view: function from an item and a generator to the item's view. It changes the inputs and
            leaves the label.
        count: views of each record, the ``views`` of the defense.
        seed: seed of the views.

    Raises:
        InputError: fewer than one view.

    >>> viewed = ViewedDataset([(1.0, 0), (2.0, 1)], lambda item, rng: (-item[0], item[1]), count=1)
    >>> len(viewed), viewed[1], viewed[3]
    (2, (2.0, 1), (-2.0, 1))
    """

    def __init__(
        self, dataset: Any, view: Callable[[Any, np.random.Generator], Any], count: int, seed: int = 0
    ) -> None:
        if count < 1:
            raise InputError(f"expected at least 1 view of a record, got {count}; without views use the data set")
        self.dataset, self.view, self.count, self.seed = dataset, view, count, seed

    def __len__(self) -> int:
        """N, the number of records; views have the numbers from N on."""
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        v, record = divmod(int(number), len(self.dataset))
        if not 0 <= v <= self.count:
            inputs = (1 + self.count) * len(self.dataset)
            raise InputError(f"expected a record or view from 0 to {inputs - 1}, got {number}")
        return self.of(self.dataset[record], record, v) if v else self.dataset[record]

    def of(self, item: Any, record: int, view: int) -> Any:
        """View of a record, by its place from 1 on."""
        return self.view(item, generator(self.seed, "blocks/view", record, view))


class SwappedViews(ViewedDataset):
    """A data set with the views of :mod:`wemem.data.views`, of which a part of the features is
    another record's.

    Args:
        dataset: map-style data set of N records, whose items begin with the features.
        drawn: composition of the views of one model.

    Raises:
        InputError: another number of records, or inputs of another shape.
    """

    def __init__(self, dataset: Any, drawn: DrawnViews) -> None:
        self.dataset, self.drawn, self.count = dataset, drawn, drawn.donors.shape[1]
        if len(dataset) != drawn.donors.shape[2]:
            raise InputError(f"expected a data set of {drawn.donors.shape[2]} records, got {len(dataset)}")
        shape = tuple(np.shape(dataset[0][0])) if isinstance(dataset[0], tuple | list) else None
        if shape != drawn.patterns.shape[1:]:
            raise InputError(
                f"expected items that begin with features of shape {drawn.patterns.shape[1:]}, got {shape}; bring them "
                "in that form, or set views = 0 in the defense"
            )

    def of(self, item: Any, record: int, view: int) -> Any:
        """View of a record: a part of its features is that of another record, which gives it."""
        donor = self.dataset[int(self.drawn.donors[0, view - 1, record])]
        taken = self.drawn.patterns[self.drawn.pattern[view - 1, record]]
        if isinstance(item[0], Tensor):
            return (torch.where(torch.from_numpy(taken), donor[0], item[0]), *item[1:])
        # of the kind of the record, so that a loader can put both into one batch
        return (np.where(taken, donor[0], item[0]), *item[1:])
