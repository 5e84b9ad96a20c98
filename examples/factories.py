"""Classifiers of other libraries as models of a study; each is built from a config, nothing is downloaded.

    python examples/factories.py

A study names a function of this file, with its arguments beside it, if the folder is on PYTHONPATH:

    [model]
    kind = "factories:hugging_face_text"
    vocabulary = 4096

The functions for timm and torchvision import their library when they are called.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import wemem

OUT = Path("runs/factories")


class WithPaddingMask(nn.Module):
    """A Hugging Face classifier of text that reads token ids alone; id 0 is padding."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, ids):
        return self.classifier(input_ids=ids, attention_mask=(ids != 0).long())


def hugging_face_text(input_shape, classes, *, vocabulary=8192, width=64, layers=2, heads=4, hidden=128):
    """Build a small BERT; its attention is the plain one, which torch.func can batch over models."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=hidden, max_position_embeddings=input_shape[0], num_labels=classes,
        attn_implementation="eager",
    )  # fmt: skip
    return WithPaddingMask(BertForSequenceClassification(config))


def hugging_face_image(input_shape, classes, *, patch=4, width=64, layers=4, heads=4, hidden=128):
    """Build a small vision transformer with a class token."""
    from transformers import ViTConfig, ViTForImageClassification

    channels, height, _ = input_shape
    config = ViTConfig(
        image_size=height, patch_size=patch, num_channels=channels, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=hidden, num_labels=classes, attn_implementation="eager",
    )  # fmt: skip
    return ViTForImageClassification(config)


def timm_image(input_shape, classes, *, name="resnet18"):
    """Build any model of timm by its name."""
    import timm

    return timm.create_model(name, pretrained=False, in_chans=input_shape[0], num_classes=classes)


def torchvision_image(input_shape, classes, *, name="resnet18"):
    """Build any classifier of torchvision by its name; most take three channels."""
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=classes)


def main() -> None:
    """Train and prune a text classifier, and print how much of it is pruned."""
    rng, labels = np.random.default_rng(0), np.arange(120) % 2
    ids = rng.integers(1, 6, (120, 8)) + 5 * labels[:, None]
    module = hugging_face_text((8,), 2, vocabulary=16, width=8, layers=1, heads=2, hidden=16)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(5):
        for rows in torch.arange(60).split(16):
            loss = nn.functional.cross_entropy(
                module(torch.from_numpy(ids[rows])).logits, torch.from_numpy(labels)[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    short = {"epochs": 2, "batch_size": 16}
    settings = {
        "pruning": {"rounds": 2, "sparsity": 0.5},
        "finetune": short,
        "training": short,
        "scores": {"models": 8},
    }
    pruned = wemem.prune(module, (ids, labels), np.arange(60), defense="swmr", settings=settings, out=OUT)
    print(pruned)
    print(f"Pruned model in {OUT}")


if __name__ == "__main__":
    main()
