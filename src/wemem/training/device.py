"""The devices on which models are trained and queried: the CPU, or a GPU by CUDA.

Random numbers are drawn on the CPU and moved to the device, except those that a model draws by
itself (``Dropout2d``, noise). Results on two kinds of device differ by rounding. On a GPU, matrix
products and convolutions use full float32 unless a precision is requested
(:func:`gpu_arithmetic`).
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import torch

from wemem.errors import InputError

CPU = torch.device("cpu")


def choose_device(requested: str | torch.device) -> torch.device:
    """Choose the device of a given name.

    Args:
        requested: the name of the device. ``auto`` is the first CUDA device, or the CPU where there
            is none; ``cuda`` is the first CUDA device; ``cpu`` and ``cuda:N`` are also accepted.

    Raises:
        InputError: the name is unknown, or the CUDA device does not exist.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    name = str(requested)
    if re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name) is None:
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if name == "cpu":
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not count:
        return CPU
    if not count:
        raise InputError(
            f"device = {name!r} expected a GPU that PyTorch can use by CUDA, got none; leave it out to compute on the "
            "CPU, or install a driver and PyTorch for CUDA"
        )
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        raise InputError(f"device = {name!r} expected one of {count} CUDA devices, counted from 0; give another number")
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """The name of a device: the GPU's model, or the kind of vector instructions that PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


@dataclass(frozen=True)
class CudaSettings:
    """Ways to compute faster on a GPU, which change results by rounding only; none is used on a CPU.

    Args:
        replay: True to record steps as CUDA graphs (:mod:`wemem.training.replay`).
        together: the number of models that the sequential backend trains at a time.
        streams: the number of CUDA streams on which the sequential backend computes these models.
        channels_last: True to store the channels of convolutions last.
        deterministic: True to use only convolutions of cuDNN that give the same bytes each time.
    """

    replay: bool = True
    together: int = 8
    streams: int = 8
    channels_last: bool = True
    deterministic: bool = True


_CUDA: ContextVar[CudaSettings | None] = ContextVar("cuda", default=None)


def cuda_settings() -> CudaSettings:
    """The settings in force.

    >>> cuda_settings()
    CudaSettings(replay=True, together=8, streams=8, channels_last=True, deterministic=True)
    """
    return _CUDA.get() or CudaSettings()


@contextmanager
def use_cuda_settings(settings: CudaSettings) -> Iterator[None]:
    """Train with other settings within this context.

    >>> with use_cuda_settings(CudaSettings(replay=False)):
    ...     cuda_settings().replay
    False
    """
    token = _CUDA.set(settings)
    try:
        yield
    finally:
        _CUDA.reset(token)


@contextmanager
def gpu_arithmetic(device: torch.device, precision: str = "fp32") -> Iterator[None]:
    """Compute float32 matrix products and convolutions of a GPU in a precision within this context.

    PyTorch's own settings hold again afterwards. Nothing changes on a CPU.

    Args:
        device: the device that computes.
        precision: the precision of a :class:`~wemem.training.recipe.Recipe`. ``tf32`` rounds the
            factors of products to TF32, whose mantissa has 10 bits; the others do not.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark
    fast = precision == "tf32"
    cudnn.allow_tf32, products.allow_tf32 = fast, fast
    cudnn.deterministic, cudnn.benchmark = cuda_settings().deterministic, False
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


@lru_cache(maxsize=64)
def side_stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """One of the streams of a device, always the same one for a number, because memory belongs to streams."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Streams:
    """CUDA streams on which several computations run at the same time.

    Args:
        device: the device of the computations.
        count: the number of streams; with one, computations run on the current stream.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        several = device.type == "cuda" and count > 1
        self._streams = [side_stream(device, 1 + number) for number in range(count)] if several else []
        for stream in self._streams:
            stream.wait_stream(torch.cuda.current_stream(device))

    def of(self, number: int) -> AbstractContextManager[object]:
        """A context that runs the computation of a given number on its stream."""
        return torch.cuda.stream(self._streams[number % len(self._streams)]) if self._streams else nullcontext()

    def join(self) -> None:
        """Let the current stream wait for all computations."""
        for stream in self._streams:
            torch.cuda.current_stream(stream.device).wait_stream(stream)
