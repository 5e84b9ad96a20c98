"""The parts of a user's loop behind their wrappers: the module, the optimizer, and the inputs of a batch."""

from collections.abc import Mapping, Sized
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from wemem.errors import InputError

#: Inputs of one batch: a tensor, positional arguments, or keyword arguments.
Example = Shaped[Tensor, "B ..."] | tuple[Any, ...] | Mapping[str, Any]


def plain_module(model: nn.Module) -> nn.Module:
    """The module inside ``DataParallel``, ``DistributedDataParallel``, ``torch.compile`` or an averaged copy."""
    inner = getattr(model, "_orig_mod", getattr(model, "module", None))
    return plain_module(inner) if isinstance(inner, nn.Module) else model


def plain_optimizer(optimizer: Any) -> Optimizer:
    """The PyTorch optimizer inside a wrapper."""
    inner = getattr(optimizer, "optimizer", None)
    plain: Optimizer = plain_optimizer(inner) if isinstance(inner, Optimizer) else optimizer
    return plain


def number_of_records(dataset: Dataset[Any]) -> int:
    """Number of records of a map-style dataset.

    Raises:
        InputError: a dataset without a length.
    """
    if not isinstance(dataset, Sized):
        raise InputError(f"expected a dataset with a length, got {type(dataset).__name__}; use a map-style dataset")
    return len(dataset)


def first_inputs(loader: DataLoader[Any]) -> Example:
    """Inputs of the first batch, as :func:`inputs_of` takes them.

    Raises:
        InputError: a batch of another structure.
    """
    few = min(2, number_of_records(loader.dataset))
    return inputs_of(loader.collate_fn([loader.dataset[i] for i in range(few)]))


def inputs_of(batch: Any) -> Example:
    """Inputs of a batch: a mapping without its labels, or a tuple without its last element.

    Raises:
        InputError: a batch of another structure.
    """
    if isinstance(batch, Mapping):
        return {name: value for name, value in batch.items() if name not in ("labels", "label", "y", "target")}
    if isinstance(batch, tuple | list) and len(batch) > 1:
        return batch[0] if len(batch) == 2 and isinstance(batch[0], Tensor) else tuple(batch[:-1])
    raise InputError(
        f"expected batches of inputs and labels, got {type(batch).__name__}; give example=..., the inputs of one batch"
    )


def outputs_for(model: nn.Module, inputs: Example) -> Any:
    """Call a model with the inputs of a batch."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
