"""Prune one model in two processes that share its batches (``DistributedDataParallel``, gloo).

python examples/two_processes.py
"""

import os
import socket

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wemem

WORLD = 2


def work(rank: int, port: int) -> None:
    """One of the processes."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    engine = wemem.PruningEngine(
        wemem.SlidingWindow(width=0.5, stride=0.1, order="random"), sparsity=0.6, rounds=3, rank=rank, world_size=WORLD
    )
    loader = DataLoader(TensorDataset(x[:1200], y[:1200]), batch_size=32)  # records of one process
    model, optimizer, batches = engine.prepare(model, optimizer, loader)
    for _ in engine.rounds():
        for _ in engine.epochs(3):
            for inputs, targets in batches:
                engine.loss(model(inputs), targets).backward()
                optimizer.step()
                optimizer.zero_grad()
    if rank == 0:
        accuracy = (model(x[1200:]).argmax(1) == y[1200:]).float().mean()
        print(f"Pruned model in {engine.save('runs/two-processes')}, test accuracy {100 * accuracy:.1f} %")
    dist.destroy_process_group()


def main() -> None:
    """Start the processes on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port,), nprocs=WORLD)


if __name__ == "__main__":
    main()
