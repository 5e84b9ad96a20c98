"""A data set as a value: what it takes, what it refuses, and a fingerprint that sees every bit."""

import numpy as np
import pytest

from wemem.data.dataset import Dataset
from wemem.data.sources import load_dataset
from wemem.errors import InputError

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
LABELS = np.array([0, 1, 0, 2])


def dataset(features=FEATURES, labels=LABELS, classes=3):
    return Dataset("toy", features, labels, classes)


@pytest.mark.parametrize(
    "features", [FEATURES.astype(np.float64), FEATURES.astype(np.uint8), FEATURES > 5, FEATURES[:, ::-1]]
)
def test_arrays_of_any_numeric_type_are_taken_by_value(features):
    made = Dataset.from_arrays("toy", features, LABELS.astype(np.float32))
    assert made.features.dtype == np.float32
    assert made.features.flags.c_contiguous
    assert (made.features == features).all()
    assert (made.labels.tolist(), made.classes, len(made), made.input_shape) == (LABELS.tolist(), 3, 4, (3,))


@pytest.mark.parametrize("other", [
    dataset(np.nextafter(FEATURES, np.float32(99))), dataset(labels=LABELS[::-1].copy()), dataset(classes=4),
    dataset(FEATURES.reshape(4, 3, 1)),
])  # fmt: skip
def test_the_fingerprint_sees_features_labels_classes_and_shape(other):
    assert other.fingerprint != dataset().fingerprint


def test_the_fingerprint_does_not_see_the_name_or_the_layout_in_memory():
    renamed = Dataset("other", np.asfortranarray(FEATURES), LABELS, 3)
    assert renamed.fingerprint == dataset().fingerprint


@pytest.mark.parametrize(("build", "message"), [
    (lambda: dataset(FEATURES[:3]), r"features \(N, \.\.\.\) and labels \(N,\) of the same N, got features \(3, 3\)"),
    (lambda: dataset(FEATURES[:, 0]), r"got features \(4,\) and labels \(4,\)"),
    (lambda: dataset(labels=LABELS[:, None]), r"got features \(4, 3\) and labels \(4, 1\)"),
    (lambda: dataset(FEATURES[:0], LABELS[:0]), "at least one record, got none"),
    (lambda: dataset(FEATURES.astype(np.float64)), "got float64 and int64; use Dataset.from_arrays to convert"),
    (lambda: dataset(labels=LABELS.astype(np.int32)), "got float32 and int32"),
    (lambda: dataset(labels=LABELS * 0, classes=1), "at least 2 classes, got 1"),
    (lambda: dataset(np.where(FEATURES == 7, np.nan, FEATURES)), r"in 1 record\(s\), first at index 2; clean"),
    (lambda: dataset(np.where(FEATURES > 7, np.inf, FEATURES)), r"NaN or infinity in 2 record\(s\), first at index 2"),
    (lambda: dataset(classes=2), r"labels 0\.\.1, got 2 at index 3"),
    (lambda: dataset(labels=LABELS - 1), r"labels 0\.\.2, got -1 at index 0"),
    (lambda: Dataset.from_arrays("toy", FEATURES.astype(str), LABELS), "expected numeric features, got <U"),
    (lambda: Dataset.from_arrays("toy", FEATURES.astype(complex), LABELS), "numeric features, got complex128"),
    (lambda: Dataset.from_arrays("toy", FEATURES.astype(float) * 1e300, LABELS), "expected finite features"),
    (lambda: Dataset.from_arrays("toy", FEATURES, LABELS + 0.5), "expected whole-number labels, got float64"),
    (lambda: Dataset.from_arrays("toy", FEATURES, LABELS / np.array([1, 1, 1, 0])), "expected whole-number labels"),
    (lambda: Dataset.from_arrays("toy", FEATURES, LABELS.astype(str)), "expected whole-number labels, got <U"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:overflow")
@pytest.mark.usefixtures("unchecked_shapes")
def test_what_is_no_data_set_is_refused_in_one_line(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("labels", "codes", "names"), [
    ([1, 3, 2, 1], [0, 2, 1, 0], ("1", "2", "3")),
    ([10, 30, 20, 10], [0, 2, 1, 0], ("10", "20", "30")),
    ([-1, 1, 1, -1], [0, 1, 1, 0], ("-1", "1")),
    ([[3], [0], [3], [3]], [1, 0, 1, 1], ("0", "3")),
    ([2.0, 5.0, 2.0, 5.0], [0, 1, 0, 1], ("2", "5")),
])  # fmt: skip
def test_labels_that_do_not_count_from_0_are_numbered_as_they_occur_and_the_note_says_how(labels, codes, names):
    made = Dataset.from_arrays("toy", FEATURES, labels)
    assert (made.labels.tolist(), made.classes, made.class_names) == (codes, len(names), names)
    assert [*map(str, made.notes)] == [f"the labels {', '.join(names)} are the classes 0..{len(names) - 1}"]


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [[0], [1], [2], [0]], np.eye(4)[[0, 1, 2, 0]][:, :3]])
def test_columns_and_one_hot_labels_are_the_labels_they_stand_for(labels):
    made = Dataset.from_arrays("toy", FEATURES, labels)
    assert made.fingerprint == Dataset("toy", FEATURES, np.array([0, 1, 2, 0]), 3).fingerprint
    assert (made.class_names, made.notes) == ((), ())


def test_a_stated_number_of_classes_keeps_the_labels_as_they_are():
    made = Dataset.from_arrays("toy", FEATURES, [0, 2, 2, 0], 4)
    assert (made.labels.tolist(), made.classes, made.class_names) == ([0, 2, 2, 0], 4, ())


@pytest.mark.parametrize("labels", [np.eye(4)[:, :2], np.ones((4, 2)), np.eye(4)[:, :3] / 2, np.zeros((4, 2, 2))])
@pytest.mark.usefixtures("unchecked_shapes")
def test_columns_that_are_no_one_hot_labels_are_refused(labels):
    with pytest.raises(InputError, match=r"got features \(4, 3\) and labels|whole-number labels"):
        Dataset.from_arrays("toy", FEATURES, labels)


def test_record_numbers_from_outside_are_refused_where_records_were_drawn():
    with pytest.raises(InputError, match=r"expected members beside all 1,797 records .* leave data.records out"):
        load_dataset("digits", records=100).require_all_records("members")
    load_dataset("digits", records=1797).require_all_records("members")
    load_dataset("digits").require_all_records("members")
