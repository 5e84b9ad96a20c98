"""The files that the commands and programs of README and the guide read, small enough for seconds."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

import wemem
from wemem.models import FullyConnected

ROOT = Path(__file__).parents[1]
RECORDS, COLUMNS, MEMBERS = 240, 5, 60
#: The functions that ``wemem audit --predict`` and ``--train`` name.
FUNCTIONS = """
import numpy as np

def predict(features):
    return np.stack([features[:, 0], -features[:, 0]], axis=1)

def train(features, labels, seed):
    return predict
"""
#: What makes a study small, whatever it is about.
SMALL = {
    "seeds": [0], "attacks": ["confidence", "rmia"], "controls": [], "split.shadows": 1, "split.references": 4,
    "split.train": 0.5, "scores.models": 10, "training.epochs": 1, "training.batch_size": 32, "finetune.epochs": 1,
    "finetune.batch_size": 32, "pruning.rounds": 2,
}  # fmt: skip


def small_study() -> dict[str, Any]:
    """A study of these settings, as tables."""
    study: dict[str, Any] = {}
    for key, value in SMALL.items():
        *tables, name = key.split(".")
        (study.setdefault(tables[0], {}) if tables else study)[name] = copy.copy(value)
    return study


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of two classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = np.arange(RECORDS) % 2
    return (rng.normal(size=(RECORDS, COLUMNS)) + labels[:, None]).astype(np.float32), labels


def trained() -> torch.nn.Module:
    """A model of the kind that a study has by default, trained for a moment on the members."""
    x, y = (torch.tensor(part) for part in arrays())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FullyConnected().build((COLUMNS,), 2)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(10):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[:MEMBERS]), y[:MEMBERS]).backward()
            optimizer.step()
    return model.eval()


def write_table(path: Path, label: str, delimiter: str = ",") -> None:
    """A table of numbers, a category and a label."""
    x, y = arrays()
    lines = [delimiter.join(("age", "ward", "duration", label))]
    lines += [delimiter.join((f"{a:.3f}", "abc"[n % 3], f"{b:.3f}", ["no", "yes"][c])) for n, (a, b, c) in enumerate(
        zip(x[:, 0], x[:, 1], y, strict=True))]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_signals(path: Path) -> None:
    """Outputs of a model and eight reference models on random halves."""
    rng = np.random.default_rng(0)
    roles = np.where(rng.random((9, RECORDS)).argsort(0) < 4, 1, 3)
    np.savez(path, logits=rng.normal(size=(9, RECORDS, 2)).astype(np.float32), labels=arrays()[1], roles=roles)


def write_inputs(folder: Path) -> None:
    """Write every input that a page names and that no earlier command of a page writes."""
    x, y = arrays()
    np.savez(folder / "patients.npz", x=x, y=y)
    write_table(folder / "patients.csv", "ill")
    write_table(folder / "bank.csv", "y", ";")
    write_table(folder / "bank-additional.csv", "y", ";")
    images = np.random.default_rng(0).integers(0, 256, (RECORDS, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "images.npz", x=images, y=np.arange(RECORDS) % 2)
    np.savez(folder / "fashion.npz", x=images, y=np.arange(RECORDS) % 2)
    (folder / "members.csv").write_text("record\n" + "\n".join(map(str, range(MEMBERS))) + "\n")
    save_file(trained().state_dict(), folder / "model.safetensors")
    write_signals(folder / "logits.npz")
    (folder / "study.toml").write_text('[data]\nsource = "patients.npz"\n')
    write_recipe(folder / "recipe.toml")
    (folder / "mymodel.py").write_text(FUNCTIONS)
    scores = {"record": list(range(MEMBERS)), "score": np.linspace(0, 1, MEMBERS).tolist()}
    pq.write_table(pa.table(scores), folder / "scores.parquet")
    shutil.copytree(ROOT / "studies", folder / "studies")


def write_recipe(path: Path) -> None:
    """Write the small study as a file."""
    study = small_study()
    tables: dict[str, dict[str, Any]] = {
        "": {key: value for key, value in study.items() if not isinstance(value, dict)}
    }
    tables |= {name: table for name, table in study.items() if isinstance(table, dict)}
    lines = [line for name, table in tables.items() for line in
             ([f"[{name}]"] if name else []) + [f"{key} = {value}" for key, value in table.items()]]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


def write_results(folder: Path) -> None:
    """Write what pages take as it is: a pruned model, its audit, a comparison, and the file that ships."""
    given: dict[str, Any] = {"defense": "swmr", "study": small_study(), "progress": False}
    runs, members = folder / "runs", np.arange(MEMBERS)
    pruned = wemem.prune(folder / "model.safetensors", arrays(), members, out=runs / "pruned", **given)
    wemem.audit(pruned.weights, arrays(), members, out=runs / "audit", **given)
    shutil.copytree(runs / "audit", runs / "release")
    wemem.compare(small_study(), data=arrays(), defenses=["undefended", "rsw"], out=runs / "first", progress=False)
    shutil.copytree(runs / "first", folder / "DIR")
    exported = wemem.export(folder / "model.safetensors", arrays(), out=folder / "shipped")
    shutil.copy(Path(exported.folder) / "model.onnx", folder / "model.onnx")


def defended_loop(features: np.ndarray, labels: np.ndarray, seed: int) -> tuple[Any, torch.nn.Module]:
    """A user's own loop under a defense; the engine and the module that it pruned."""
    inside = torch.utils.data.TensorDataset(torch.as_tensor(features), torch.as_tensor(labels))
    model = trained()
    engine = wemem.PruningEngine("label_smoothing", sparsity=0.5, rounds=1)
    model, optimizer, loader = engine.prepare(
        model, torch.optim.Adam(model.parameters()), torch.utils.data.DataLoader(inside, 20)
    )
    for _ in engine.rounds():
        for _ in engine.epochs(1):
            for x, y in loader:
                engine.loss(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
    return engine, model


def given_names() -> dict[str, Any]:
    """What programs take as given: a model, its data and members, a loader, and the training of a user."""
    x, y = arrays()
    inside = torch.utils.data.TensorDataset(*(torch.tensor(part[:MEMBERS]) for part in (x, y)))
    model, new, network = trained(), *(FullyConnected((8,)).build((COLUMNS,), 2) for _ in range(2))
    return {
        "wemem": wemem, "model": model, "my_model": model, "new_model": new, "network": network, "x": x, "y": y,
        "members": np.arange(MEMBERS), "training_records": np.arange(MEMBERS),
        "features": x[:MEMBERS], "labels": y[:MEMBERS], "dataset": inside,
        "optimizer": torch.optim.Adam([*model.parameters(), *new.parameters()]),
        "loader": torch.utils.data.DataLoader(inside, 20), "my_training": lambda *given: trained(),
        "my_defended_loop": defended_loop,
        "logits_of": lambda model, data, numbers: model(data[numbers][0]).detach(), "dev_accuracy": lambda model: 0.5,
    }  # fmt: skip
