"""What is said of a data set before anything is trained on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_study import table
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.concerns import concerns
from wemem.data.dataset import Dataset
from wemem.data.sources import load_dataset
from wemem.notes import shown
from wemem.pipeline.progress import Silent


def of(features: Any) -> Dataset:
    x = np.asarray(features, np.float32)
    return Dataset("toy", x, np.arange(len(x)) % 2, classes=2)


def test_good_data_raise_no_concern():
    rng = np.random.default_rng(0)
    assert concerns(of(rng.normal(0, 1, (50, 3)))) == []
    assert concerns(load_dataset("digits")) == []


@given(st.lists(st.tuples(st.sampled_from([0.0, -0.0, 1.0]), st.sampled_from([0.0, 2.0])), min_size=1, max_size=12))
def test_copies_are_counted_as_by_comparing_every_pair(records):
    x = np.array(records, np.float32)
    copies = [i for i in range(len(x)) if any((x[i] == x[j]).all() for j in range(i))]
    said = [*map(str, concerns(of(x)))]
    assert len(said) == bool(copies)
    if copies:
        original = next(j for j in range(len(x)) if (x[copies[0]] == x[j]).all())
        assert said[0].startswith(f"{len(copies)} of {len(x)} records ")
        assert f"(record {copies[0]} of record {original})" in said[0]


@pytest.mark.parametrize(("offset", "deviation"), [(0, 800), (2020, 5)])
def test_large_features_are_named_whether_they_vary_much_or_lie_far_from_zero(offset, deviation):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (500, 4)) * [1, deviation, 0.1, 15] + [0, offset, 0, 0]
    (said,) = map(str, concerns(of(x)))
    size = np.sqrt((x[:, 1].astype(np.float32).astype(np.float64) ** 2).mean())
    assert said.startswith(f"2 of 4 features are large (1, root mean square {size:,.3g})")


def test_images_are_not_judged_by_their_scale():
    assert concerns(of(np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2) * 100)) == []


def test_a_study_warns_first_and_its_results_say_so_too(tmp_path: Path):
    class Heard(Silent):
        def __init__(self) -> None:
            self.order: list[str] = []

        def warn(self, message: str) -> None:
            self.order.append(message)

        def begin(self, stage: str, work: float) -> None:
            self.order.append(stage)

    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(0, 1, (150, 8)), 2, axis=0)
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32), y=np.arange(300) % 3)
    heard = Heard()
    config = parse_study(table(tmp_path / "data.npz", attacks=["confidence"], defenses=["undefended"]))
    told = api.run(config, tmp_path / "out", progress=heard)
    assert heard.order[0].startswith("data: 150 of 300 records are copies of others")
    assert [*map(shown, told["notes"])] == [f"D{heard.order[0][1:]}."]


def test_the_labels_that_classes_have_in_the_source_stand_in_the_results(tmp_path: Path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.normal(0, 1, (150, 8)), y=np.arange(150) % 3 * 10 + 10)
    config = parse_study(table(tmp_path / "data.npz", attacks=["confidence"], defenses=["undefended"]))
    results = api.run(config, tmp_path / "out")
    assert results["data"]["classes"] == 3
    assert results["data"]["class_names"] == ["10", "20", "30"]
    assert shown(results["notes"][0]) == "Data: the labels 10, 20, 30 are the classes 0..2."
