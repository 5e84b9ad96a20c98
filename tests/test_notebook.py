"""A notebook: a model that is defined in a cell is trained, audited and shown, in a real Jupyter kernel."""

import os
from typing import Any

import pytest

from wemem.store.fingerprint import PACKAGE

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DEFINE = """
import numpy as np, torch, wemem
from torch import nn

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, x):
        return self.layers(x)

rng = np.random.default_rng(0)
y = np.arange(400) % 3
x = (rng.normal(size=(400, 8)) + y[:, None]).astype(np.float32)

def fit(rows, seed):
    torch.manual_seed(seed % 2**31)
    model, optimizer = Mine(), None
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        nn.functional.cross_entropy(model(torch.tensor(x[rows])), torch.tensor(y[rows])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()

members = np.arange(150)
model = fit(members, 0)
small = {"training": {"epochs": 2}, "finetune": {"epochs": 1}, "pruning": {"rounds": 2}, "split": {"shadows": 2}}
"""
AUDIT = "result = wemem.audit(model, (x, y), members, study=small, attacks=['confidence'])\nresult"
PRUNE = """
pruned = wemem.prune(model, (x, y), members, defense="rmr", study=small)
own = pruned.model()
print(type(own).__name__)
"""
TRAIN = """
own.train()
batch = torch.ones(64, 8)
print("fresh dropout", not torch.equal(own(batch), own(batch)))
before = [p.detach().clone() for p in own.parameters()]
optimizer = torch.optim.SGD(own.parameters(), 0.1)
nn.functional.cross_entropy(own(torch.tensor(x)), torch.tensor(y)).backward()
optimizer.step()
print("trainable", all(not torch.equal(a, b) for a, b in zip(before, own.parameters())))
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> list[list[Any]]:
    """The outputs of every cell."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in (DEFINE, AUDIT, PRUNE, TRAIN)])
    place = tmp_path_factory.mktemp("notebook")
    paths = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "IPYTHONDIR": str(place), "JUPYTER_RUNTIME_DIR": str(place)}
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(place)}}
    )
    client.execute(env=environment)
    return [cell.outputs for cell in book.cells]


def text_of(cell: list[Any]) -> str:
    return "".join(one.text for one in cell if one.output_type == "stream")


def test_a_result_is_a_table_in_the_notebook(outputs):
    (shown,) = (one for one in outputs[1] if one.output_type == "execute_result")
    assert "confidence" in shown.data["text/html"]
    assert "confidence" in shown.data["text/plain"]


def test_progress_is_shown_and_no_control_characters_are(outputs):
    progress = text_of(outputs[1])
    assert "confidence on dense" in progress or "confidence" in progress
    assert "\x1b[" not in progress


def test_a_module_handed_out_is_the_users_own_class_and_trains_with_fresh_dropout(outputs):
    assert "Mine" in text_of(outputs[2])
    assert text_of(outputs[3]).split("\n")[:2] == ["fresh dropout True", "trainable True"]
