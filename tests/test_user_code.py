"""Fingerprints of the user's own code: all of the user's sources behind it, and what a model does."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wemem.data.dataset import Dataset
from wemem.models import CustomModel, FullyConnected
from wemem.store.behavior import behavior_fingerprint
from wemem.store.sources import own_sources, spec_fingerprint

DATA = Dataset.from_arrays("toy", np.eye(6, dtype=np.float32), np.array([0, 1, 2, 0, 1, 2]))

FILES = {
    "net.py": "from blocks import body\n\ndef make(shape, classes): return body(shape, classes)\n",
    "blocks.py": "from torch import nn\nfrom parts import sizes\n\n"
    "def body(shape, classes): return nn.Linear(shape[0], classes)\n",
    "parts/__init__.py": "NAME = 'parts'\n",
    "parts/sizes.py": "from . import more\nfrom .deep.end import END\n",
    "parts/more.py": "def late():\n    import lazy\n    return lazy\n",
    "parts/deep/end.py": "import importlib\nEND = importlib.import_module('by_name')\n",
    "lazy.py": "import net\n",  # a circle
    "by_name.py": "BROKEN = 1\n",
    "unused.py": "x = 1\n",
}
OWN = {
    "net", "blocks", "parts", "parts.sizes", "parts.more", "parts.deep.end", "lazy", "by_name",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget(tmp_path)


def forget(folder: Path) -> None:
    """Forget the modules of a folder, as a new process would not know them."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    importlib.invalidate_caches()


def test_sources_are_all_modules_that_are_imported_from_the_user_s_folder(folder):
    files, installed = own_sources("net", folder / "net.py")
    assert set(files) == OWN
    assert set(installed) == {"torch"}


def test_modules_are_found_whether_or_not_they_were_imported_before(folder):
    before = own_sources("net", folder / "net.py")
    importlib.import_module("parts.sizes")
    importlib.import_module("unused")
    assert own_sources("net", folder / "net.py") == before


@pytest.mark.parametrize("edited", sorted(FILES))
def test_an_edit_of_any_file_behind_a_function_changes_its_fingerprint_and_no_other_does(folder, edited):
    first = spec_fingerprint("net:make")
    forget(folder)
    assert spec_fingerprint("net:make") == first
    forget(folder)
    (folder / edited).write_text(FILES[edited] + "# edited\n")
    assert (spec_fingerprint("net:make") == first) == (edited == "unused.py")


def test_the_module_that_is_named_counts_as_well_as_the_one_that_defines_the_function(folder):
    (folder / "named.py").write_text("import blocks\nfrom blocks import body\n")
    first = spec_fingerprint("named:body")
    forget(folder)
    (folder / "named.py").write_text("import blocks\nfrom blocks import body\nblocks.nn = None\n")
    assert spec_fingerprint("named:body") != first


def test_another_version_of_an_installed_package_that_is_imported_changes_the_fingerprint(folder, monkeypatch):
    first = spec_fingerprint("net:make")
    forget(folder)
    monkeypatch.setattr("wemem.store.sources.version", lambda name: "another version")
    assert spec_fingerprint("net:make") != first


def test_a_file_that_cannot_be_parsed_is_no_reason_to_fail(folder):
    (folder / "lazy.py").write_text("this is no python\n")
    assert "lazy" in own_sources("net", folder / "net.py")[0]


MODEL = """
from torch import nn
from pathlib import Path

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer, self.drop = nn.Linear(6, classes), nn.Dropout(float(Path("dropout.txt").read_text()))
        self.scale = float(Path("scale.txt").read_text())
    def forward(self, x):
        return self.drop(self.layer(x)) * self.scale

def make(shape, classes):
    return Net(classes)
"""


@pytest.mark.parametrize("setting", ["scale", "dropout"])
def test_a_model_that_reads_a_file_of_settings_has_another_fingerprint_when_that_changes(folder, setting):
    """The code is the same; outputs are not."""
    (folder / "reading.py").write_text(MODEL)
    for name, value in {"scale": "1.0", "dropout": "0.0"}.items():
        (folder / f"{name}.txt").write_text(value)
    model = CustomModel("reading:make")
    first = behavior_fingerprint(model, DATA)
    assert behavior_fingerprint(model, DATA) == first
    source = spec_fingerprint("reading:make")
    (folder / f"{setting}.txt").write_text("0.5")
    assert behavior_fingerprint(model, DATA) != first
    assert spec_fingerprint("reading:make") == source


def test_a_model_of_this_package_is_known_by_the_code_of_the_package():
    assert behavior_fingerprint(FullyConnected(), DATA) is None
