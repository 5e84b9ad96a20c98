"""The cost of a model: parameters, bytes on disk, multiplications, and measured time."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from torch import nn

from wemem.exporting.multiplications import accepted_zeros, multiplications
from wemem.exporting.sparse import sparse_bytes

BATCHES = (1, 128)


@dataclass(frozen=True)
class Footprint:
    """The size of a model, which is the same on every machine.

    Args:
        parameters: the number of elements of all parameters.
        nonzero: the number of those elements that are not 0.
        dense_bytes: the size of the state dict as a safetensors file.
        sparse_bytes: the size of the state dict as a compact file (:mod:`wemem.exporting.sparse`).
        macs: the number of multiply-accumulate operations for one record
            (:mod:`wemem.exporting.multiplications`); each is two FLOPs.
        nonzero_macs: the number of those operations with a nonzero weight; only a runtime for
            sparse weights skips the others.
    """

    parameters: int
    nonzero: int
    dense_bytes: int
    sparse_bytes: int
    macs: int
    nonzero_macs: int


def footprint(module: nn.Module, input_shape: tuple[int, ...]) -> Footprint:
    """Measure the size of a module that maps ``(B, *input_shape)`` to logits.

    Raises:
        InputError: the module fails on one record of zeros.

    A layer from 3 to 2 features has 6 weights and 2 biases, and multiplies 6 times; one weight is
    zero:

    >>> layer = nn.Linear(3, 2)
    >>> _ = layer.weight.data.fill_(1.0), layer.bias.data.fill_(1.0), layer.weight.data[0, 0].zero_()
    >>> size = footprint(layer, (3,))
    >>> size.parameters, size.nonzero, size.macs, size.nonzero_macs
    (8, 7, 6, 5)
    """
    state = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    parameters = [p.detach() for p in module.parameters()]
    operations = multiplications(module, input_shape)
    return Footprint(
        sum(p.numel() for p in parameters), sum(int(p.count_nonzero()) for p in parameters),
        len(safetensors.torch.save(state)), len(sparse_bytes(state)), operations.all, operations.nonzero,
    )  # fmt: skip


def latencies(
    modules: Mapping[str, nn.Module], input_shape: tuple[int, ...], batch: int, repeats: int = 30, patience: float = 5.0
) -> dict[str, float]:
    """Measure the median time of one forward pass of each module, in seconds and in evaluation
    mode.

    The passes of the modules alternate. The first pass of each is a warm-up and is not counted.

    Args:
        modules: the modules by name; all receive the same input.
        input_shape: the shape of one record.
        batch: the number of records of a pass.
        repeats: the number of timed passes of each module.
        patience: the number of seconds after which 3 passes are enough.
    """
    first, *others = (module.eval() for module in modules.values())
    taken: dict[str, list[float]] = {name: [] for name in modules}
    x, begun = accepted_zeros(first, input_shape, batch), time.perf_counter()
    with torch.inference_mode():
        for module in others:
            module(x)
        for turn in range(repeats):
            if turn >= 3 and time.perf_counter() - begun > patience:
                break
            for name, module in modules.items():
                start = time.perf_counter()
                module(x)
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def side_by_side(dense: nn.Module, pruned: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Measure the footprint and the latency of a model before and after pruning, as values for
    JSON.
    """
    modules = {"dense": dense, "pruned": pruned}
    return {
        **{name: asdict(footprint(module, input_shape)) for name, module in modules.items()},
        "latency_seconds": {str(batch): latencies(modules, input_shape, batch) for batch in BATCHES},
        "threads": torch.get_num_threads(),
    }


def footprint_lines(measured: Mapping[str, Any]) -> list[str]:
    """Describe the measurements of :func:`side_by_side` in sentences."""
    before, after = measured["dense"], measured["pruned"]
    times = [
        f"{1e3 * seconds['pruned']:.3g} ms against {1e3 * seconds['dense']:.3g} at batch {batch}"
        for batch, seconds in measured["latency_seconds"].items()
    ]
    return [
        f"Parameters: {after['parameters']:,} of {before['parameters']:,}, nonzero {after['nonzero']:,} of "
        f"{before['nonzero']:,}; multiplications per record: {after['macs']:,} of {before['macs']:,}, with a nonzero "
        f"weight {after['nonzero_macs']:,}.",
        f"On disk: {after['dense_bytes']:,} bytes, {after['sparse_bytes']:,} in the compact file, "
        f"{before['dense_bytes']:,} before pruning.",
        f"Median latency, pruned against dense on {measured['threads']} thread(s): {', '.join(times)}.",
    ]
