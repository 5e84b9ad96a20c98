"""A model as a function of record numbers, for audits of data of any structure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from wemem.blocks.wrapped import inputs_of, outputs_for
from wemem.models.outputs import logits_in


@dataclass(frozen=True, eq=False)
class RecordModel:
    """A module together with the data set whose records it classifies.

    It is called with record numbers and returns logits, as ``wemem.audit(..., labels=...)`` expects
    of its functions. Where a train function returns one, the audit sees which weights answer.

    Args:
        module: the classifier. It computes in evaluation mode and stays in the mode that it has.
        dataset: the map-style data set.
        classes: the number of classes.
        forward: ``forward(module, batch) -> logits``; by default the batch without its labels are
            the module's inputs.
        loader: further arguments of the ``DataLoader``, such as ``{"collate_fn": collate}``.

    >>> data = [(torch.tensor([0.0, 1.0]), 0), (torch.tensor([2.0, 3.0]), 1)]
    >>> RecordModel(nn.Identity(), data, classes=2)(np.array([1, 0])).tolist()
    [[2.0, 3.0], [0.0, 1.0]]
    """

    module: nn.Module
    dataset: Any
    classes: int
    forward: Callable[[nn.Module, Any], Tensor] | None = None
    loader: Mapping[str, Any] | None = None

    @torch.no_grad()
    def __call__(self, records: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n C"]:
        batches = DataLoader(
            Subset(self.dataset, np.asarray(records).tolist()), **{"batch_size": 256, **(self.loader or {})}
        )
        where = next((tensor.device for tensor in self.module.parameters()), torch.device("cpu"))
        was_training = self.module.training
        try:
            self.module.eval()
            parts = [self._logits(_moved(batch, where)).float().cpu() for batch in batches]
        finally:
            self.module.train(was_training)
        return torch.cat(parts).numpy()

    def _logits(self, batch: Any) -> Tensor:
        if self.forward is not None:
            return self.forward(self.module, batch)
        return logits_in(outputs_for(self.module, inputs_of(batch)), self.classes)


def _moved(batch: Any, where: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(where)
    if isinstance(batch, Mapping):
        return {name: _moved(value, where) for name, value in batch.items()}
    return [_moved(value, where) for value in batch] if isinstance(batch, tuple | list) else batch
