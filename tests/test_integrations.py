"""Pruning in a Lightning and in a Hugging Face trainer, with the real libraries."""

import lightning
import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import wemem
from toy import blobs
from wemem.blocks import PruningEngine
from wemem.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DATA = blobs(60)
SCORES = np.random.default_rng(1).random(60)
EPOCHS, ROUNDS = 2, 3


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, DATA.classes))


def loader():
    return DataLoader(TensorDataset(torch.from_numpy(DATA.features), torch.from_numpy(DATA.labels)), batch_size=16)


def engine_of(defense="swmr", **settings):
    return PruningEngine(defense, sparsity=0.5, rounds=ROUNDS, seed=2, **settings)


class Module(lightning.LightningModule):
    def __init__(self, engine):
        super().__init__()
        self.net, self.engine = network(), engine
        self.example_input_array = torch.zeros(2, 6)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        x, y = batch
        return self.engine.loss(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2, weight_decay=5e-4)


def trained_by_lightning(defense, max_epochs=EPOCHS * ROUNDS):
    from wemem.integrations.lightning import PruningCallback

    engine = engine_of(defense)
    module, callback = Module(engine), PruningCallback(engine, EPOCHS)
    trainer = lightning.Trainer(
        max_epochs=max_epochs, callbacks=[callback], use_distributed_sampler=False, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, engine.defend(loader(), scores=SCORES))
    return engine, module


@pytest.mark.parametrize("defense", ["undefended", "swmr"])
def test_lightning_ends_with_the_weights_of_a_plain_loop(defense):
    _, module = trained_by_lightning(defense)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4)
    engine = engine_of(defense)
    model, optimizer, batches = engine.prepare(model, optimizer, loader(), scores=SCORES)
    for _ in engine.rounds():
        for _ in engine.epochs(EPOCHS):
            for x, y in batches:
                engine.loss(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
    for one, other in zip(model.parameters(), module.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)
    assert (model[0].weight == 0).float().mean() == pytest.approx(0.5)


def test_another_number_of_epochs_is_refused():
    with pytest.raises(InputError, match="max_epochs=6"):
        trained_by_lightning("undefended", max_epochs=5)


class Sentences(Dataset[dict[str, object]]):
    """Token ids whose first token gives the class."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.labels = np.arange(40) % 2
        self.tokens = rng.integers(10, 50, (40, 8))
        self.tokens[:, 0] = self.labels + 5

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return {
            "input_ids": torch.tensor(self.tokens[i]), "attention_mask": torch.ones(8, dtype=torch.long),
            "labels": int(self.labels[i]),
        }  # fmt: skip


def tiny_bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trainer_prunes_every_hidden_matrix_and_leaves_files_that_load(tmp_path, accumulation):
    from wemem.integrations.transformers import PruningCallback, PruningTrainer

    model, engine = tiny_bert(), engine_of("swmr", accumulation=accumulation)
    callback = PruningCallback(engine, EPOCHS)
    arguments = transformers.TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=callback.epochs, per_device_train_batch_size=8, use_cpu=True,
        gradient_accumulation_steps=accumulation, report_to=[], save_strategy="no", disable_tqdm=True,
        weight_decay=5e-4,
    )  # fmt: skip
    data = Sentences()
    trainer = PruningTrainer(
        model, arguments, train_dataset=data, callbacks=[callback], scores=np.random.default_rng(0).random(40)
    )
    trainer.train()
    assert len(engine.masks) == 7  # query, key, value, output, two of the feed-forward layer, and the pooler
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in engine.masks.items())
    weights = engine.save(tmp_path / "pruned")
    again = wemem.load_pruned(tiny_bert(), weights)
    inputs = {name: torch.stack([data[i][name] for i in range(4)]) for name in ("input_ids", "attention_mask")}
    assert torch.equal(again(**inputs).logits, model.eval()(**inputs).logits)


def test_accumulation_that_the_engine_does_not_know_is_refused(tmp_path):
    from wemem.integrations.transformers import PruningCallback, PruningTrainer

    engine = engine_of("undefended")
    callback = PruningCallback(engine, EPOCHS)
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=callback.epochs, gradient_accumulation_steps=4, use_cpu=True, report_to=[]
    )
    with pytest.raises(InputError, match="accumulation=4"):
        PruningTrainer(tiny_bert(), arguments, train_dataset=Sentences(), callbacks=[callback]).train()
