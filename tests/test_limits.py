"""Counts and sizes that no study needs are refused before anything is built, each in one line."""

import numpy as np
import pytest

from wemem.config.limits import LARGEST, LIMITS, MOST_VALUES
from wemem.config.override import override_key
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.errors import InputError
from wemem.models import MODELS, EntityEmbedding, FullyConnected, VisionTransformer, make_model
from wemem.models.image import ImageModel
from wemem.pipeline.memory_estimate import count_weights, require_memory

DATA = Dataset.from_arrays("toy", np.eye(6, dtype=np.float32), np.array([0, 1, 2, 0, 1, 2]))
IMAGES = Dataset.from_arrays("toy", np.zeros((4, 3, 8, 8), np.float32), np.arange(4) % 2)
STUDY = {"data": {"source": "digits"}, "attacks": "threshold", "defenses": ["rmr"]}


@pytest.mark.parametrize(
    ("override", "place", "limit"),
    [
        ("split.shadows", "split.shadows", LIMITS["shadows"]),
        ("split.references", "split.references", LIMITS["references"]),
        ("scores.models", "scores.models", LIMITS["models"]),
        ("training.epochs", "training.epochs", LIMITS["epochs"]),
        ("finetune.batch_size", "finetune.batch_size", LIMITS["batch_size"]),
        ("finetune.patience", "finetune.patience", LARGEST),
        ("pruning.rounds", "pruning.rounds", LIMITS["rounds"]),
        ('defenses=[{kind="oosd", teachers', "defenses.0.teachers", LIMITS["teachers"]),
        ('defenses=[{kind="auto", trials', "defenses.0.trials", LIMITS["trials"]),
    ],
)
def test_a_count_above_its_limit_is_refused_and_the_limit_itself_is_not(override, place, limit):
    def study(value):
        table = dict(STUDY)
        override_key(table, f"{override}={value}" + ("}]" if "{" in override else ""))
        return parse_study(table)

    study(limit)
    with pytest.raises(InputError, match=rf"expected {place} to be at most {limit:,}, got {limit + 1:,}"):
        study(limit + 1)


def test_a_layer_wider_than_any_is_refused_by_the_number_and_a_longer_list_by_its_length():
    with pytest.raises(InputError, match=r"expected model\.hidden\.1 to be at most 1,000,000"):
        parse_study(STUDY | {"model": {"hidden": [1, 2**62]}})
    with pytest.raises(InputError, match=r"expected at most 1,000 values of seeds, got 1,001"):
        parse_study(STUDY | {"seeds": list(range(MOST_VALUES + 1))})
    assert parse_study(STUDY | {"seeds": [2**63 - 1]}).seeds == (2**63 - 1,)


@pytest.mark.parametrize("kind", MODELS)
def test_weights_are_counted_as_a_built_model_has_them(kind):
    cls = MODELS[kind]
    data = IMAGES if issubclass(cls, ImageModel | VisionTransformer) else DATA
    model = make_model(kind, {"categories": [3] * 6} if cls is EntityEmbedding else {})
    built = model.build(data.input_shape, data.classes)
    assert count_weights(model, data) == sum(p.numel() for p in built.parameters())


def test_models_and_answers_that_no_memory_holds_are_refused_before_one_is_built(monkeypatch):
    study = parse_study(STUDY | {"model": {"hidden": [100_000, 100_000]}})
    monkeypatch.setattr("wemem.pipeline.memory_estimate.machine_memory", lambda: 2**33)
    with pytest.raises(InputError, match=r"fits into 8 GiB of memory, got about .* models of 10,001,100,003 weights"):
        require_memory(study, DATA)
    many = Dataset.from_arrays("many", np.zeros((10**6, 1), np.float32), np.arange(10**6) % 100)
    references = parse_study(STUDY | {"attacks": ["lira"], "split": {"references": 1000}})
    with pytest.raises(InputError, match=r"answers of 1,001 models on 1,000,000 records and 100 classes"):
        require_memory(references, many)
    require_memory(parse_study(STUDY), DATA)


def test_sizes_that_overflow_are_refused():
    with pytest.raises(InputError, match="expected a model that fits into memory"):
        count_weights(FullyConnected((2**40, 2**40)), DATA)


def test_an_index_of_thousands_of_digits_is_an_index_that_is_not_there():
    with pytest.raises(InputError, match=r"expected an index 0\.\.0, got '1000"):
        override_key({"defenses": ["rsw"]}, f"defenses.1{'0' * 5000}.width=1")
