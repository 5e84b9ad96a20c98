"""The devices on which models are trained and queried: the CPU, or a GPU by CUDA.

Random numbers are drawn on the CPU and moved to the device, except those that a model draws by
itself (``Dropout2d``, noise). Results on two kinds of device differ by rounding.
"""

import re

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
