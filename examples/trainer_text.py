"""Prune a small transformer on text under SWMR, in a Hugging Face trainer.

    python examples/trainer_text.py

needs ``pip install wemem[transformers]``. The sentences are documentation of two Python modules; the
model is built from a configuration, so nothing is downloaded.
"""

import asyncio
import inspect
import re
import statistics
import unittest
from types import ModuleType

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

import wemem
from wemem.integrations.transformers import PruningCallback, PruningTrainer

LENGTH, WORDS = 16, 512


def sentences_of(module: ModuleType) -> list[list[str]]:
    """Words of every sentence in the documentation of a module."""
    texts = [inspect.getdoc(value) or "" for _, value in inspect.getmembers(module)]
    return [words for text in texts for s in text.split(".") if len(words := re.findall("[a-z]+", s.lower())) > 3]


class Sentences(Dataset):
    """Token ids with their attention masks: a word's number is its place among the frequent ones."""

    def __init__(self, *modules: ModuleType) -> None:
        groups = [sentences_of(module)[:150] for module in modules]
        words, counts = np.unique([w for group in groups for s in group for w in s], return_counts=True)
        number = {word: i + 2 for i, word in enumerate(words[np.argsort(-counts)][: WORDS - 2])}
        self.tokens = [torch.tensor([number.get(w, 1) for w in s[:LENGTH]]) for group in groups for s in group]
        self.labels = np.concatenate([np.full(len(group), i) for i, group in enumerate(groups)])

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict[str, object]:
        ids = torch.zeros(LENGTH, dtype=torch.long)
        ids[: len(self.tokens[i])] = self.tokens[i]
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": int(self.labels[i])}


def model() -> BertForSequenceClassification:
    """A transformer of one layer."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=LENGTH,
        )
    )  # fmt: skip


def main() -> None:
    """Score the sentences, prune, and write the model."""
    data = Sentences(statistics, asyncio, unittest)
    data.labels = np.minimum(data.labels, 1)

    def batch(numbers: np.ndarray) -> dict[str, torch.Tensor]:
        items = [data[int(i)] for i in numbers]
        return {name: torch.stack([item[name] for item in items]) for name in ("input_ids", "attention_mask")}

    def train_on(records: np.ndarray, seed: int):
        torch.manual_seed(seed % 2**31)
        own = model()
        optimizer, labels = torch.optim.Adam(own.parameters(), lr=3e-3), torch.tensor(data.labels)
        for _ in range(3):
            for part in torch.randperm(len(records)).split(32):
                chosen = records[part.numpy()]
                torch.nn.functional.cross_entropy(own(**batch(chosen)).logits, labels[chosen]).backward()
                optimizer.step()
                optimizer.zero_grad()

        def predict(numbers: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return own.eval()(**batch(numbers)).logits.numpy()

        return predict

    scores = wemem.memorization_scores(train_on, data.labels, models=6)
    engine = wemem.PruningEngine("swmr", sparsity=0.5, rounds=2)
    pruning = PruningCallback(engine, epochs_per_round=2)
    arguments = TrainingArguments(
        "runs/trainer-text", num_train_epochs=pruning.epochs, per_device_train_batch_size=32, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, learning_rate=1e-3, weight_decay=5e-4,
    )  # fmt: skip
    trainer = PruningTrainer(model(), arguments, train_dataset=data, callbacks=[pruning], scores=scores.score)
    trainer.train()
    print(f"Pruned model in {engine.save('runs/trainer-text/pruned')}")


if __name__ == "__main__":
    main()
