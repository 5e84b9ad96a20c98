"""Concurrent training on several cores: each thread trains whole models, and PyTorch uses one
thread for each.

A small convolutional network does not use two cores well, while whole models do not slow each other
down. The numbers of a model are the same on any number of cores.
"""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

from wemem.training.ensemble import Ensemble

T = TypeVar("T")
OnEpoch = Callable[[int, int], None]


def draws_globally(ensemble: Ensemble, example: Shaped[Tensor, "2 ..."]) -> bool:
    """Return True if training draws from PyTorch's global generator (Dropout2d, noise), which
    threads would share.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        ensemble.module(0).train()(example)
        return not torch.equal(before, torch.get_rng_state())


def side_by_side(train: Callable[[int, OnEpoch], T], models: int, cores: int, on_epoch: OnEpoch) -> list[T]:
    """Call ``train(k, on_epoch)`` for every model, ``cores`` models at a time, and return the
    results in order.

    Args:
        train: a function that trains the ``k``-th model and calls ``on_epoch`` after each of its
            epochs.
        models: the number of models.
        cores: the number of models at a time. Each uses one of PyTorch's threads, so that results
            do not change.
        on_epoch: a function that is called after each epoch of every model, one call at a time.

    Raises:
        Exception: the training of a model failed; the first exception is raised, and all other
            training stops.
    """
    stop, turn = threading.Event(), threading.Lock()

    def report(epoch: int, running: int) -> None:
        if stop.is_set():
            raise _GivenUpError
        with turn:
            on_epoch(epoch, running)

    inside = torch.get_num_threads()
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = [pool.submit(train, k, report) for k in range(models)]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()  # raises the exception of the thread
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(inside)


class _GivenUpError(Exception):
    """The end of a model's training after that of another model has failed."""
