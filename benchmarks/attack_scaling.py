"""LiRA and RMIA on many records: seconds and memory beside one pass over the data they read.

    python benchmarks/attack_scaling.py --records 1000000 --models 64 --classes 10

The first line reads every model's logits once and makes LiRA's statistic of them; the second reads that statistic once,
for its mean and standard deviation over the models. The attacks' cores start from the statistic (RMIA's from the
probability). Memory is what a call allocates beyond its arguments, at its peak. One thread.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from wemem.attacks.lira import lira_offline, lira_online
from wemem.attacks.rmia import chosen_mean, dominated, offline_prior
from wemem.signals import logit_confidence


def measure(name: str, call: Callable[[], object], first_pass: float | None) -> float:
    """Seconds of a call, then once more its memory: tracing slows it down."""
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    beside = "" if first_pass is None else f"{seconds / first_pass:8.2f} x"
    print(f"{name:38s}{seconds:9.2f} s{peak / 2**20:9.0f} MiB{beside}", flush=True)
    return seconds


def complementary_halves(models: int, records: int, rng: np.random.Generator) -> np.ndarray:
    """Which records each model was trained on; models ``2j`` and ``2j + 1`` share none."""
    first = rng.random((models // 2, records), np.float32) < 0.5
    return np.stack([first, ~first], axis=1).reshape(models, records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=64, help="reference models, an even number")
    parser.add_argument("--classes", type=int, default=10)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    trained = complementary_halves(given.models, given.records, rng)
    statistic = rng.standard_normal((given.models, given.records))
    statistic += 2 * trained
    target = rng.standard_normal(given.records)
    # One model's logits stand for every model's: all together would be many gigabytes.
    logits = rng.standard_normal((given.records, given.classes), np.float32)
    labels = rng.integers(0, given.classes, given.records)

    def read_logits() -> None:
        for _ in range(given.models):
            logit_confidence(logits, labels)

    def read_statistic() -> None:
        for start in range(0, given.records, 2048):
            statistic[:, start : start + 2048].mean(axis=0)
            statistic[:, start : start + 2048].std(axis=0)

    print(f"{given.records} records, {given.models} models, {given.classes} classes; ", end="")
    print(f"statistic {statistic.nbytes / 2**20:.0f} MiB, logits {logits.nbytes * given.models / 2**20:.0f} MiB")
    one_pass = measure("one pass over the logits", read_logits, None)
    measure("one pass over the statistic", read_statistic, one_pass)
    measure(
        "LiRA online, variance per record",
        lambda: lira_online(statistic, trained, target, variance="record"), one_pass,
    )  # fmt: skip
    measure(
        "LiRA online, global variance",
        lambda: lira_online(statistic, trained, target, variance="global"), one_pass,
    )  # fmt: skip
    measure("LiRA offline", lambda: lira_offline(statistic, trained, target, variance="record"), one_pass)
    probabilities, own = expit(statistic, out=statistic), expit(target)
    population = own[: given.records // 10] / 0.5

    def rmia(online: bool) -> np.ndarray:
        mean_out = chosen_mean(probabilities, ~trained)
        prior = 0.5 * (chosen_mean(probabilities, trained) + mean_out) if online else offline_prior(mean_out, 0.3)
        return dominated(own / prior, population, 1.0)

    measure("RMIA online", lambda: rmia(online=True), one_pass)
    measure("RMIA offline", lambda: rmia(online=False), one_pass)


if __name__ == "__main__":
    main()
