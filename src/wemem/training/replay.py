"""Replay of recorded steps: the kernels of a step are launched by one call.

A step of small models consists of hundreds of short kernels, which a GPU computes faster than
Python can launch them. A CUDA graph records the kernels once and launches them together. Its
tensors must stay where they are, so each kind of step has tensors of its own for its inputs, into
which the inputs of the step are copied.

The first steps of a kind are computed as usual, because libraries and optimizers create their state
then. A recording computes nothing by itself; the replay that follows does. If a step cannot be
recorded, a warning says so, and it and all later ones are computed as usual.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wemem.training.memory import ran_out
from wemem.training.placement import PlacedStep

Compute = Callable[[PlacedStep], None]
#: A function that records a computation and returns the function that replays it.
Record = Callable[[Callable[[], None]], Callable[[], None]]

#: The number of steps of each kind that are computed before one is recorded.
WARM_UP = 2


@dataclass(frozen=True)
class _Recording:
    inputs: dict[str, Tensor]
    replay: Callable[[], None]


class Replay:
    """The recorded steps of some models that train together.

    Args:
        begin: a function that begins a set of recordings and returns the function that records a
            computation, :func:`cuda_graphs` on a GPU.
    """

    def __init__(self, begin: Callable[[], Record]) -> None:
        self._begin, self._record = begin, begin()
        self._recordings, self._seen = dict[Hashable, _Recording](), Counter[Hashable]()
        self._possible = True

    def step(self, kind: Hashable, step: PlacedStep, compute: Compute) -> None:
        """Compute a step, or replay a recorded one of its kind.

        Args:
            kind: all that decides which kernels run on which tensors, except the inputs of the step.
            step: the step.
            compute: a function that computes a step by operations on the device alone, and changes
                tensors in place.
        """
        recording = self._recording(kind, step, compute)
        if recording is None:
            compute(step)
            return
        for name, tensor in step.tensors().items():
            recording.inputs[name].copy_(tensor)
        recording.replay()

    def _recording(self, kind: Hashable, step: PlacedStep, compute: Compute) -> _Recording | None:
        """The recording of a kind of step, made now if it is time for it; None if the step is to be computed."""
        if kind in self._recordings:
            return self._recordings[kind]
        self._seen[kind] += 1
        if self._seen[kind] <= WARM_UP or not self._possible:
            return None
        inputs = {name: tensor.clone() for name, tensor in step.tensors().items()}
        static = replace(step, **inputs)  # type: ignore[arg-type]
        try:
            self._recordings[kind] = _Recording(inputs, self._record(lambda: compute(static)))
        except RuntimeError as error:
            if ran_out(error):
                raise
            self._possible = False
            warnings.warn(
                f"steps are computed without a CUDA graph, which failed: {error}", RuntimeWarning, stacklevel=2
            )
        return self._recordings.get(kind)

    def forget(self) -> None:
        """Drop all recordings and their memory, which ends with the last of them."""
        self._recordings.clear()
        self._seen.clear()
        self._record = self._begin()


def cuda_graphs() -> Record:
    """A function that records computations as CUDA graphs on the current stream, which must not be the default one.

    The graphs share the memory of their intermediate results, so they are never replayed at the
    same time. CUDA frees this memory with the last graph, and none can be recorded into it after
    that.
    """
    pool = torch.cuda.graph_pool_handle()

    def record(compute: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        graph.capture_begin(pool=pool)
        try:
            compute()
        except BaseException:
            with suppress(RuntimeError):  # the end of a recording that failed fails as well
                graph.capture_end()
            raise
        graph.capture_end()
        return graph.replay

    return record
