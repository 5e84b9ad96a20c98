"""Records brought into the form that a model was trained on: by the names of columns, categories and classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wemem.data.dataset import Dataset
from wemem.data.preprocessing import Preprocessing
from wemem.data.preprocessing_file import preprocessing_text
from wemem.data.table_form import Column, TableForm
from wemem.errors import InputError
from wemem.exporting.checkpoint import write_weights
from wemem.exporting.onnx import metadata_of, onnx_bytes
from wemem.exporting.trained_form import TrainedForm, trained_form
from wemem.models.table import with_preprocessing
from wemem.objects.inputs import weights_file

TRAINED = TableForm((Column("age"), Column("job", ("cook", "nurse", "smith"))))
AUDITED = TableForm((Column("job", ("baker", "cook", "smith"), True), Column("age", (), True)))
NAN = np.nan


def audited(features: list[list[float]], names: tuple[str, ...] = ("no", "yes")) -> Dataset:
    x = np.array(features, np.float32)
    return Dataset("audited", x, np.arange(len(x)) % len(names), len(names), names, table=AUDITED)


def test_records_in_the_form_of_the_model_stay_the_same_object():
    data = replace(audited([[1, 30], [2, 40]]), table=AUDITED)
    assert TrainedForm(AUDITED, ("no", "yes")).applied(data) is data


def test_every_value_has_the_meaning_that_it_has_in_the_table():
    data = TrainedForm(TRAINED).applied(audited([[1, 30], [2, 40], [0, 50], [NAN, NAN]]))
    assert data.table == TRAINED
    fitted = Preprocessing.fit(TRAINED, TRAINED.encode({"age": [20, 40], "job": ["cook", "smith"]}))
    inputs = fitted.apply(data.features)
    np.testing.assert_array_equal(inputs[:, 1:], [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(inputs[:, 0], [0, 1, 2, 0])  # the missing number is the mean
    model = with_preprocessing(torch.nn.Identity(), fitted)
    np.testing.assert_array_equal(model(torch.from_numpy(data.features)).numpy(), inputs)


def test_what_the_model_does_not_have_is_counted():
    data = TrainedForm(TRAINED).applied(audited([[0, 30], [0, 40], [NAN, NAN]]))
    counts = {note.code: note.values for note in data.notes}
    assert counts["unknown_categories"] == {"values": 2, "columns": 1, "most": "job"}
    assert counts["unexpected_missing"] == {"values": 2, "columns": 2, "most": "age"}
    assert "2 values in 1 column(s) (job has most) are no categories" in str(data.notes[0])


def test_a_class_keeps_the_number_that_the_model_gives_it():
    data = TrainedForm(None, ("maybe", "no", "yes")).applied(audited([[1, 30], [2, 40], [1, 50]]))
    assert data.labels.tolist() == [1, 2, 1]
    assert (data.classes, data.class_names) == (3, ("maybe", "no", "yes"))
    with pytest.raises(InputError, match=r"expected labels among no, yes, the classes of the model, got maybe"):
        TrainedForm(None, ("no", "yes")).applied(audited([[1, 30], [2, 40]], ("maybe", "no")))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((Column("age"),), r"got others \(job on one side only\); keep or drop columns"),
        ((Column("age", ("1", "2")), TRAINED.columns[1]), r"categories 1, 2 in column 'age', .* in data.categorical"),
        ((Column("age"), Column("job")), r"numbers in column 'job', .* got categories baker, cook, smith; correct"),
    ],
)
def test_other_columns_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        TrainedForm(TableForm(columns)).applied(audited([[1, 30], [2, 40]]))


@pytest.fixture
def model() -> torch.nn.Module:
    fitted = Preprocessing.fit(TRAINED, TRAINED.encode({"age": [20, 40], "job": ["cook", "smith"]}))
    return with_preprocessing(torch.nn.Linear(4, 2), fitted)


def test_the_form_is_read_from_the_file_beside_weights(model, tmp_path):
    write_weights(tmp_path / "weights.safetensors", model.state_dict())
    text = preprocessing_text(model[0].preprocessing, class_names=["no", "yes"])
    (tmp_path / "preprocess.json").write_text(text)
    stated = trained_form(tmp_path, audited([[1, 30], [2, 40]]))
    assert stated == TrainedForm(TRAINED, ("no", "yes"))
    (tmp_path / "preprocess.json").write_text(text.replace('"yes"', "3"))
    with pytest.raises(InputError, match="expected names as class_names"):
        trained_form(tmp_path, audited([[1, 30], [2, 40]]))


def test_a_module_states_the_form_of_its_preprocessing(model, tmp_path):
    assert trained_form(weights_file(model, tmp_path), audited([[1, 30], [2, 40]])).form == TRAINED


@pytest.mark.usefixtures("unchecked_shapes")  # under the checker the exporter fixes the number of records
def test_the_form_is_read_from_the_metadata_of_an_onnx_file(model, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    known = TRAINED.encode({"age": [20, 40], "job": ["cook", "smith"]})
    own = Dataset("trained", known, np.array([0, 1]), 2, ("no", "yes"), table=TRAINED)
    data = audited([[1, 30], [2, 40], [0, 50], [NAN, NAN]])
    for metadata, expected in ((metadata_of(own), TrainedForm(TableForm((
        Column("age", missing=True), Column("job", ("cook", "nurse", "smith"), True))), ("no", "yes"))),
        ({"columns": "age, job", "class_names": "no, yes"}, TrainedForm())):  # fmt: skip
        (tmp_path / "model.onnx").write_bytes(onnx_bytes(model, known, metadata)[0])
        assert trained_form(tmp_path / "model.onnx", data) == expected
