"""Models one after another, on several cores: each thread trains whole models by itself, with one thread inside.

Convolutions of a small network keep one core busy and two badly; whole models divide without loss, and a model's
numbers are the same on any number of cores.
"""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from wemem.training.ensemble import Ensemble

T = TypeVar("T")
OnEpoch = Callable[[int, int], None]


def draws_globally(ensemble: Ensemble, example: Float[Tensor, "2 ..."]) -> bool:
    """Whether training draws from PyTorch's global generator (Dropout2d, noise), which threads would share."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        ensemble.module(0).train()(example)
        return not torch.equal(before, torch.get_rng_state())


def side_by_side(train: Callable[[int, OnEpoch], T], models: int, cores: int, on_epoch: OnEpoch) -> list[T]:
    """``train(k, on_epoch)`` of every model, ``cores`` of them at a time; their results in order.

    Args:
        train: trains the ``k``-th model and calls the given function after each of its epochs.
        models: number of models.
        cores: number of models at a time, each with one of PyTorch's threads, so that fewer at a time change no bit.
        on_epoch: called after every model's epochs, one call at a time.

    Raises:
        Exception: the first that a model's training raised; the others are then given up.
    """
    stop, turn = threading.Event(), threading.Lock()

    def tell(epoch: int, running: int) -> None:
        if stop.is_set():
            raise _GivenUpError
        with turn:
            on_epoch(epoch, running)

    inside = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(train, k, tell) for k in range(models)]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()  # raises what was raised there
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(inside)


class _GivenUpError(Exception):
    """An end to the training of a model when another's has failed."""
