"""Where data sets come from."""

import sys

import numpy as np
import pytest

from wemem.data.sources import DataSource, load_dataset
from wemem.errors import InputError
from wemem.files.memory_limit import machine_memory, memory_limit


def test_digits_are_scaled_to_one():
    digits = load_dataset("digits")
    assert digits.features.shape == (1797, 64)
    assert digits.features.dtype == np.float32
    assert (digits.features.min(), digits.features.max(), digits.classes) == (0, 1, 10)


@pytest.mark.parametrize("source", ["digit", "", "data.txt", "cifar-10", "folder/"])
def test_unknown_source_lists_what_there_is(source):
    with pytest.raises(InputError, match=r"cinic10, folder, a path ending in \.npz, \.npy, \.csv, \.tsv or "):
        DataSource(source)


def test_misspelt_source_is_named_with_its_neighbour():
    with pytest.raises(InputError, match="got 'locations'; did you mean 'location'"):
        load_dataset("locations")


def test_repr_evaluates_to_the_same_source():
    source = DataSource("a.csv", label=-1, memory_gib=0.5)
    assert repr(source).startswith(
        "DataSource(source='a.csv', path=None, label=-1, features=None, memory_gib=0.5, records=None, keep=(), drop=()"
    )


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("digits", {"label": "y"}),
        ("digits", {"path": "x"}),
        ("location", {"memory_gib": 1.0}),
        ("a.csv", {"features": "x"}),
        ("a.npz", {"path": "x"}),
        ("math:floor", {"label": "y"}),
        ("a.npz", {"label": 0}),
    ],
)
def test_key_that_the_source_does_not_have_is_refused(source, options):
    with pytest.raises(InputError, match="expected"):
        DataSource(source, **options)


@pytest.mark.parametrize("gib", [0, -1.0, float("inf"), float("nan")])
def test_memory_limit_must_be_positive_and_finite(gib):
    with pytest.raises(InputError, match="memory_gib must be positive and at most"):
        DataSource("a.npz", memory_gib=gib)


def test_default_memory_limit_is_half_of_the_machine():
    assert memory_limit(None) == machine_memory() // 2 > 0


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """Writes a module of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield lambda body: (tmp_path / "my_data.py").write_text(f"import numpy as np\n{body}")
    sys.modules.pop("my_data", None)


def test_factory_may_return_arrays(factory):
    factory("def toy():\n    return np.eye(4), [0, 1, 0, 1]\n")
    toy = load_dataset("my_data:toy")
    assert (toy.name, len(toy), toy.classes) == ("my_data:toy", 4, 2)


@pytest.mark.parametrize("spec", ["math:floor", "my_data:toy"])
def test_a_function_that_takes_arguments_is_no_factory(spec, factory):
    factory("def toy(records):\n    return records\n")
    with pytest.raises(InputError, match="expected a function without arguments"):
        load_dataset(spec)


def test_factory_may_return_a_dataset(factory):
    factory(
        "from wemem.data.dataset import Dataset\n"
        "def toy():\n"
        "    return Dataset.from_arrays('toy', np.eye(4), [0, 1, 0, 1])\n"
    )
    assert load_dataset("my_data:toy").name == "toy"


@pytest.mark.parametrize("body", ["toy = 3", "def toy():\n    return 3", "def toy():\n    return 1, 2, 3"])
def test_what_is_no_factory_is_refused(factory, body):
    factory(body)
    with pytest.raises(InputError, match="expected"):
        load_dataset("my_data:toy")
