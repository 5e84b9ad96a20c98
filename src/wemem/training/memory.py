"""Measurement of the number of models that fit into memory at once, which is reduced if memory runs
out.

Before models are trained together, one and two of them run a trial: a step on a full batch, and an
evaluation on the dev records. The peak memory of the trial is about linear in the number of models.
The checkpoint that each model keeps, and the optimizer states that the trial does not create, are
known exactly and added.

The result is compared with the memory of the machine (or of its container), not with its free
memory, so that the same machine divides the models in the same way and gives the same bytes. On a
GPU it is compared with the free memory. All models have one plan of records, so that the division
changes results only by rounding, where models are computed at once.

No trial runs if even a generous upper bound fits: :func:`bound`.
"""

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wemem.errors import InputError
from wemem.files.memory_limit import machine_memory
from wemem.notes import Note

T = TypeVar("T")

#: Share of the machine's memory that is left to the interpreter, its libraries and other processes.
CPU_RESERVE = 1 / 4
#: Share of a GPU's free memory that is left to its libraries and to what lies between tensors.
CUDA_RESERVE = 1 / 10
#: Bytes of a tensor above which glibc asks the system for new pages each time one is made, and
#: PyTorch makes them each step: 256 fully connected models took 1.4 to 1.6 times as long together
#: as in parts of 64.
LARGEST = 2**25
#: Bytes that a bound grants to everything that does not grow with the models: an adversary,
#: gradients by record.
GRANTED = 2**28


def memory_for_training(device: torch.device, held: int) -> int:
    """Compute the number of bytes that the models of one part may take together.

    Args:
        device: the device on which the models are trained.
        held: the bytes of the machine's memory that other data take: the data set, and models
            before and after.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int((1 - CUDA_RESERVE) * torch.cuda.mem_get_info(device)[0])
    return int((1 - CPU_RESERVE) * machine_memory()) - held


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Compute the size of tensors in bytes.

    >>> size_of({"w": torch.zeros(2, 3), "steps": torch.zeros(2, dtype=torch.int64)})
    40
    """
    return sum(t.numel() * t.element_size() for t in tensors.values())


def peak(run: Callable[[], object], device: torch.device) -> int:
    """Measure the peak number of bytes of the tensors that a function creates on one device.

    On the CPU the memory that an operator uses internally is not counted.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return int(torch.cuda.max_memory_allocated(device)) - before
    meter = _Meter()
    with meter:
        run()
    return meter.peak


def bound(module: nn.Module, example: Shaped[Tensor, "2 ..."], batch: int, wanted: int) -> int:
    """Compute an upper bound on the bytes of training one model, from the tensors that two records
    create.

    Weights count 16 times (the model, leaves, gradients, optimizer states, checkpoint, copies). The
    tensors of a record count 4 times for each record of a batch (stored for the gradient, the
    gradient, and the same again for the loss), or once for each dev record that is evaluated at a
    time.

    Args:
        module: the model.
        example: two records.
        batch: the number of records of a step.
        wanted: the number of dev records that are evaluated at a time.
    """
    meter = _Meter()
    with torch.no_grad(), meter:
        module.train()(example)
    return 16 * size_of(module.state_dict()) + max(4 * batch, wanted) * meter.made // len(example)


@dataclass(frozen=True)
class Share:
    """A number of models that train at once, and the reason if it is not all of them.

    Args:
        models: the number of models.
        reason: the reason for fewer than all models; None if it is all of them.
    """

    models: int
    reason: Note | None = None


def quickest(models: int, parameters: Mapping[str, Tensor]) -> Share:
    """The largest equal parts of a stack whose matrices stay below :data:`LARGEST`.

    >>> quickest(6, {"w": torch.zeros(6, 1024, 3 * 1024)})
    Share(models=2, reason=Note(code='slow_tensors', values={'mib': 32.0}))
    """
    largest = max(size_of({"": t}) for t in parameters.values())
    parts = min(-(-largest // LARGEST), models)
    return Share(-(-models // parts), Note("slow_tensors", {"mib": LARGEST / 2**20})) if parts > 1 else Share(models)


def share(most: int, one: int, two: int, kept: int, limit: int) -> Share:
    """Compute the largest equal parts that fit into memory.

    Args:
        most: the number of all models.
        one: the peak memory of one model, in bytes.
        two: the peak memory of two models, in bytes.
        kept: the bytes that each model needs in addition.
        limit: the bytes that all models of a part may take.

    >>> share(6, one=3 << 30, two=5 << 30, kept=0, limit=13 << 30)
    Share(models=6, reason=None)
    >>> print(share(6, one=3 << 30, two=5 << 30, kept=0, limit=12 << 30).reason)
    6 would take 13 GiB of 12 GiB
    """
    each = max(two - one, 0) + kept
    need = one + kept + (most - 1) * each
    if need <= limit:
        return Share(most)
    fitting = max(1, (limit - (one + kept - each)) // max(each, 1))
    parts = -(-most // fitting)
    amounts = {"models": most, "needed_gib": need / 2**30, "limit_gib": max(limit, 0) / 2**30}
    return Share(-(-most // parts), Note("memory_needed", amounts))


def halving(attempt: Callable[[int], T], most: int, least: str) -> tuple[T, int]:
    """Call ``attempt(most)``, and again with half the amount whenever memory runs out, down to 1.

    Args:
        attempt: a function of the amount, which can be called repeatedly.
        most: the amount to begin with.
        least: a phrase that describes the amount 1, for the message.

    Returns:
        The result, and the amount with which it was computed.

    Raises:
        InputError: memory does not suffice for the amount 1.
    """
    while True:
        try:
            return attempt(most), most
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not ran_out(error):
                raise
            if most == 1:
                raise InputError(
                    f"expected memory for {least}, got none left; use a smaller batch_size, a smaller model, or a "
                    "machine with more memory"
                ) from error
        most = -(-most // 2)
        gc.collect()
        torch.cuda.empty_cache()  # does nothing where there is no GPU in use


def ran_out(error: Exception) -> bool:
    """Return True if an exception says that memory ran out."""
    # PyTorch's allocator for the CPU has no exception of its own, nor have the libraries for CUDA
    messages = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in messages)


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A counter of the bytes of storages that operators create while it is active: in total, and at
    the peak.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = self.live = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        # storages that come in unknown were there before
        self._known.update(_storages((args, kwargs)))
        result = func(*args, **kwargs)
        for storage in _storages(result):
            if storage not in self._known:
                self._known.add(storage)
                size = storage.nbytes()
                self.made, self.live = self.made + size, self.live + size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, size).atexit = False
        return result

    def _gone(self, size: int) -> None:
        self.live -= size


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
