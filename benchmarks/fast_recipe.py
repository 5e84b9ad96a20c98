"""The fast recipe against the default one on CIFAR-10: test accuracy by the records shown to a model.

    WEMEM_DATA=... python benchmarks/fast_recipe.py --records 5000 --epochs 3 8

A ResNet-8 of half the width, trained anew for every length, so that each one-cycle ends. Batches of
``--batches`` records; the learning rate of the fast recipe is lowered with the size of the batch.
Dev records, 1,000 for all models, choose the default's checkpoint; the test records are others.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from wemem.data.dataset import Dataset
from wemem.data.sources import load_dataset
from wemem.data.split import Role, Split, stratified_draw
from wemem.models import ResNet8
from wemem.randomness import generator
from wemem.training import FAST, Ensemble, Recipe, fit

DEV, TEST = 1000, 4000


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5000, help="training records of a model")
    parser.add_argument("--epochs", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--batches", type=int, nargs="+", default=[128])
    parser.add_argument("--models", type=int, default=1)
    return parser.parse_args()


def recipes(epochs: int, batch: int) -> Iterator[tuple[str, Recipe]]:
    """Both recipes at a length, and the fast one without its augmentation."""
    fast = replace(FAST, epochs=epochs, batch_size=batch, learning_rate=FAST.learning_rate * batch / FAST.batch_size)
    yield "paper", Recipe(epochs=epochs, batch_size=batch, patience=None)
    yield "fast", fast
    yield "fast, no augmentation", replace(fast, augment="none")


def split_of(data: Dataset, given: argparse.Namespace) -> tuple[Split, np.ndarray]:
    """The roles of the records for every model, alike, and the test records."""
    sizes = [given.records, DEV, TEST]
    train, dev, test = stratified_draw(data.labels, np.arange(len(data)), sizes, generator(0, "recipe"))
    roles = np.full((given.models, len(data)), Role.UNUSED, np.int8)
    roles[:, train], roles[:, dev], roles[:, test] = Role.TRAIN, Role.DEV, Role.AUDIT
    return Split(roles, data.labels, "subsets"), test


def main() -> None:
    given = parse()
    data = load_dataset("cifar10")
    split, test = split_of(data, given)
    start = Ensemble.initialize(ResNet8(width=0.5), data.features.shape[1:], data.classes, seeds=range(given.models))
    print("| recipe | batch | epochs | records shown | test accuracy | processor seconds |\n|---|---|---|---|---|---|")
    for epochs, batch in product(given.epochs, given.batches):
        for name, recipe in recipes(epochs, batch):
            began = time.process_time()
            trained = fit(start, data, split, recipe, seeds=range(given.models))
            seconds = time.process_time() - began
            right = trained.ensemble.logits(data.features[test]).argmax(-1) == data.labels[test]
            each = " ".join(f"{100 * share:.1f}" for share in right.mean(axis=1))
            shown = trained.history[0].records_seen
            print(f"| {name} | {batch} | {epochs} | {shown:,} | {each} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
