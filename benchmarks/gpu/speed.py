"""Speed of the ensemble backends, against a plain loop, a well-tuned loop and the peak of the device."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.record import Record, Row
from benchmarks.gpu.workloads import (
    Case,
    Method,
    Timing,
    cases,
    compiled_loop,
    plain_loop,
    time_loop,
    time_ours,
    timed,
    tuned_loop,
)
from wemem.training.device import CudaSettings, device_name

PLAIN, REPLAY = CudaSettings(replay=False, together=1, streams=1), CudaSettings(together=1, streams=1)
#: The default.
EIGHT = CudaSettings()
#: Ways to train fully connected models.
FC = [Method("vmapped", PLAIN), Method("vmapped", REPLAY), Method("vmapped", REPLAY, "bf16")]
#: Ways to train convolutional models; the first ones are measured first.
CONVOLUTION = [
    Method("sequential", REPLAY, "bf16"),
    Method("sequential", replace(EIGHT, together=4, streams=4), "bf16"),
    Method("sequential", EIGHT, "bf16"),
    Method("sequential", replace(EIGHT, deterministic=False), "bf16"),
    Method("sequential", EIGHT, "tf32"),
    Method("sequential", replace(EIGHT, deterministic=False), "tf32"),
    Method("sequential", EIGHT),
    Method("sequential", PLAIN, "bf16"),
    Method("sequential", replace(REPLAY, channels_last=False), "bf16"),
    Method("sequential", REPLAY, "bf16", "crop_flip"),
]
#: Ways that are measured with many models too.
MANY = [CONVOLUTION[0], CONVOLUTION[2]]
#: The fast recipe; its changing learning rate cannot be replayed.
FAST_RECIPE = Method("sequential", EIGHT, "bf16", "crop_flip")
#: Loops to compare with, and their precision.
LOOPS = {"plain": (plain_loop, "fp32"), "tuned": (tuned_loop, "bf16"), "compiled": (compiled_loop, "bf16")}
#: Convolutions of all models at once, which may be very slow, so they are timed in a short training.
AT_ONCE = [Method("vmapped", PLAIN, "tf32"), Method("vmapped", REPLAY, "tf32"), Method("vmapped", PLAIN, "bf16")]
#: A case, a number of models, a method or the name of a loop, and the seconds that it needs.
Step = tuple[str, int, Method | str, float]


def peaks(device: torch.device, *, tiny: bool) -> dict[str, float]:
    """Measured rates of the device: FLOP/s of matrix products by precision, and bytes/s of a copy."""
    size, repeats = (128, 2) if tiny else (8192, 10)
    rates = {}
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False),
    ):  # fmt: skip
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        rates[name] = 2 * size**3 * repeats / _seconds(partial(torch.matmul, a, b), repeats, device)
    torch.backends.cuda.matmul.allow_tf32 = False
    x = torch.randn(size * size * 4, device=device)
    y = torch.empty_like(x)
    rates["copy"] = 2 * x.numel() * 4 * repeats / _seconds(lambda: y.copy_(x), repeats, device)
    return rates


def _seconds(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    call()
    return timed(lambda: [call() for _ in range(repeats)], device)[0]


class Table:
    """Rows of one case, with the ratios to its loops."""

    def __init__(self, case: Case, peaks: dict[str, float], device: torch.device) -> None:
        self.case, self.peaks, self.device, self.flops = case, peaks, device, case.flops()
        self.rates: dict[str, float] = {}

    def row(self, method: str, precision: str, models: int, timing: Timing) -> Row:
        rate = self.case.train / timing.epoch_of_a_model
        ratios = {f"x {loop}": rate / self.rates[loop] for loop in ("plain", "tuned") if loop in self.rates}
        return {
            "case": self.case.name, "models": models, "method": method, "precision": precision,
            "models x records/s": rate, **ratios, "TFLOP/s": rate * self.flops / 1e12,
            "with start": models * self.case.train * self.case.epochs / timing.seconds,
            "of peak": rate * self.flops / self.peaks.get(precision, float("nan")), "GiB": timing.peak_bytes / 2**30,
            "seconds": timing.seconds,
        }  # fmt: skip

    def loop(self, name: str) -> list[Row]:
        loop, precision = LOOPS[name]
        timing = time_loop(self.case, loop, self.device)
        self.rates[name] = self.case.train / timing.epoch_of_a_model
        # PyTorch computes the convolutions of a GPU in TF32, unless it is forbidden
        actual = "tf32" if precision == "fp32" and self.case.name != "fc" else precision
        return [self.row(f"{name} loop", actual, 1, timing)]

    def ours(self, method: Method, models: int) -> list[Row]:
        timing = time_ours(self.case, models, method, self.device)
        return [{**self.row(method.name, method.precision, models, timing), "settings": method.settings()}]


def machine(device: torch.device, rates: dict[str, float]) -> list[Row]:
    units = {"copy": "TB/s"}
    return [
        {"measure": "device", "value": device_name(device)}, {"measure": "PyTorch", "value": torch.__version__},
        *({"measure": f"peak {n} ({units.get(n, 'TFLOP/s')})", "value": rate / 1e12} for n, rate in rates.items()),
    ]  # fmt: skip


def unsettled(*, tiny: bool) -> list[Step]:
    """The default for few convolutional models against computing them at once, which was never measured."""
    few = 2 if tiny else 6
    return [("resnet8", 1, "plain", 5), *(("resnet8", few, one, 15) for one in (MANY[1], *AT_ONCE))]


def plan(*, tiny: bool) -> list[Step]:
    """All other steps, in order of worth."""
    few, many = (2, 3) if tiny else (6, 64)
    steps: list[Step] = [("fc", 1, "plain", 5), ("fc", 1, "tuned", 5)]
    steps += [
        ("fc", models, method, 5) for models in ((few, many) if tiny else (256, few, many, 1024)) for method in FC
    ]
    for case in ("resnet18", "resnet8"):
        steps += [(case, 1, "plain", 5), (case, 1, "tuned", 5), *((case, few, method, 8) for method in CONVOLUTION)]
    steps += [("resnet9", 1, "plain", 8), ("resnet9", few, FAST_RECIPE, 10)]
    if not tiny:
        steps += [(case, many, method, 20) for case in ("resnet18", "resnet8") for method in MANY]
        steps.append(("resnet18", 1, "compiled", 60))
    return [*steps, ("resnet18", few, AT_ONCE[0], 20)]


def measure_speed(record: Record, device: torch.device, steps: Sequence[Step], *, tiny: bool) -> None:
    """Measure the peaks of the device and the steps in turn."""
    rates: dict[str, float] = {}
    tables = {name: Table(case, rates, device) for name, case in cases(tiny=tiny).items()}

    def machine_rows() -> list[Row]:
        rates.update(peaks(device, tiny=tiny))
        return machine(device, rates)

    record.measure("machine", "peaks", machine_rows)
    for name, models, method, needs in steps:
        table = tables[name]
        if isinstance(method, str):
            record.measure("speed", f"{name}, {method} loop", partial(table.loop, method), needs)
        else:
            if method in AT_ONCE and name != "fc" and table.case.epochs > 2:
                table.case = replace(table.case, train=table.case.train // 4, epochs=2)
            words = f"{name}, {models} models, {method.name}, {method.precision}"
            record.measure("speed", words, partial(table.ours, method, models), needs)
