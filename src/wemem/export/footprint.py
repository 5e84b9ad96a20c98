"""The cost of a model: parameters, bytes on disk, multiplications, and measured time."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from torch import nn

from wemem.export.multiplications import multiplications
from wemem.export.sparse import sparse_bytes

BATCHES = (1, 128)


@dataclass(frozen=True)
class Footprint:
    """The size of a model, of which nothing varies with the machine.

    Args:
        parameters: numbers in the parameters.
        nonzero: numbers in the parameters that are not 0.
        dense_bytes: size of the state dict as a safetensors file.
        sparse_bytes: size of the state dict as a compact file (:mod:`wemem.export.sparse`).
        macs: multiply-accumulate operations of one record (:mod:`wemem.export.multiplications`); one is two FLOPs.
        nonzero_macs: those of them that no zero weight takes part in, as only a runtime for sparse weights computes.
    """

    parameters: int
    nonzero: int
    dense_bytes: int
    sparse_bytes: int
    macs: int
    nonzero_macs: int


def footprint(module: nn.Module, input_shape: tuple[int, ...]) -> Footprint:
    """Measure a module that maps ``(B, *input_shape)`` to logits.

    Raises:
        InputError: the module fails on one record of zeros.

    A layer from 3 to 2 features has 6 weights and 2 biases, and multiplies 6 times; one weight is zero:

    >>> layer = nn.Linear(3, 2)
    >>> _ = layer.weight.data.fill_(1.0), layer.bias.data.fill_(1.0), layer.weight.data[0, 0].zero_()
    >>> found = footprint(layer, (3,))
    >>> found.parameters, found.nonzero, found.macs, found.nonzero_macs
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
    """Median seconds of one forward pass of each module, in evaluation mode; they take turns, after a warm-up.

    Args:
        modules: the modules by name; all see the same input.
        input_shape: shape of one record.
        batch: number of records of a pass.
        repeats: number of passes of each module.
        patience: seconds after which 3 passes are enough.
    """
    x = torch.zeros(batch, *input_shape)
    taken: dict[str, list[float]] = {name: [] for name in modules}
    begun = time.perf_counter()
    with torch.inference_mode():
        for turn in range(1 + repeats):
            if turn > 3 and time.perf_counter() - begun > patience:
                break
            for name, module in modules.items():
                start = time.perf_counter()
                module.eval()(x)
                if turn:
                    taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def side_by_side(dense: nn.Module, pruned: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """The footprint of a model before and after pruning, and the time of both in one run, as JSON-able values."""
    modules = {"dense": dense, "pruned": pruned}
    return {
        **{name: asdict(footprint(module, input_shape)) for name, module in modules.items()},
        "latency_seconds": {str(batch): latencies(modules, input_shape, batch) for batch in BATCHES},
        "threads": torch.get_num_threads(),
    }


def footprint_lines(measured: Mapping[str, Any]) -> list[str]:
    """The measurements of :func:`side_by_side` in sentences."""
    before, after = measured["dense"], measured["pruned"]
    times = [
        f"{1e3 * own['pruned']:.3g} ms against {1e3 * own['dense']:.3g} at batch {batch}"
        for batch, own in measured["latency_seconds"].items()
    ]
    return [
        f"Parameters: {after['parameters']:,} of {before['parameters']:,}, nonzero {after['nonzero']:,} of "
        f"{before['nonzero']:,}; multiplications a record: {after['macs']:,} of {before['macs']:,}, by a nonzero "
        f"weight {after['nonzero_macs']:,}.",
        f"On disk: {after['dense_bytes']:,} bytes, {after['sparse_bytes']:,} in the compact file, "
        f"{before['dense_bytes']:,} before pruning.",
        f"Median latency, pruned against dense on {measured['threads']} thread(s): {', '.join(times)}.",
    ]
