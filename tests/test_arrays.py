"""Arrays as users bring them: channels last, bytes, columns of labels, and what is left as it is."""

import numpy as np
import pytest

from wemem.data.concerns import concerns
from wemem.data.dataset import Dataset
from wemem.data.loaders.arrays import dataset_of
from wemem.data.sources import load_dataset
from wemem.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 9, 8, 3), np.uint8)
LABELS = np.arange(6) % 2


def scaled(pixels):
    return (pixels.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_images_of_bytes_with_channels_last_are_moved_and_scaled_and_two_notes_say_so(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", x=PIXELS.astype(dtype), y=LABELS)
    data = load_dataset(str(tmp_path / "a.npz"))
    np.testing.assert_allclose(data.features, scaled(PIXELS), atol=1e-5)
    moved, divided = map(str, data.notes)
    assert moved == "images (N, 9, 8, 3) have their channels last and were moved to (N, 3, 9, 8)"
    assert divided.startswith("pixels 0..255 were divided by 255")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_either_place_of_the_channels_gives_the_same_images(channels):
    last = RNG.integers(0, 256, (6, 9, 8, channels), np.uint8)
    first = dataset_of("toy", last.transpose(0, 3, 1, 2), LABELS)
    assert dataset_of("toy", last, LABELS).fingerprint == first.fingerprint
    assert len(first.notes) == 1


@pytest.mark.parametrize("features", [
    RNG.normal(size=(6, 3, 8, 9)), RNG.normal(size=(6, 3, 8, 3)), RNG.normal(size=(6, 16, 8, 8)),
    RNG.normal(size=(6, 8, 3)), RNG.integers(0, 2, (6, 1, 8, 8)), RNG.normal(size=(6, 3)),
])  # fmt: skip
def test_what_is_no_image_with_channels_last_or_bytes_is_left_as_it_is(features):
    data = dataset_of("toy", features, LABELS)
    np.testing.assert_array_equal(data.features, features.astype(np.float32))
    assert data.notes == ()


def test_floats_with_channels_last_are_moved_and_not_scaled():
    data = dataset_of("toy", PIXELS / 255, LABELS)
    np.testing.assert_array_equal(data.features, (PIXELS / 255).astype(np.float32).transpose(0, 3, 1, 2))
    assert len(data.notes) == 1


def test_notes_on_images_come_before_those_on_labels():
    assert [str(note)[:10] for note in dataset_of("toy", PIXELS, LABELS + 5).notes] == [
        "images (N,",
        "pixels 0..",
        "the labels",
    ]


TOKENS = RNG.integers(0, 50, (6, 12))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16])
def test_whole_numbers_keep_their_values_as_int64_and_become_floats_on_request(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", x=TOKENS.astype(dtype), y=LABELS)
    data = load_dataset(str(tmp_path / "a.npz"))
    assert data.features.dtype == np.int64
    np.testing.assert_array_equal(data.features, TOKENS)
    assert data.as_floats().fingerprint == Dataset.from_arrays("toy", TOKENS, LABELS).fingerprint


def test_whole_numbers_beyond_float32_are_exact():
    large = np.array([[2**24 + 1, 2**62], [0, -(2**62)]])
    np.testing.assert_array_equal(dataset_of("toy", large, [0, 1]).features, large)
    with pytest.raises(InputError, match="at most 63 bits"):
        dataset_of("toy", large.astype(np.uint64) + np.uint64(2**63), [0, 1])


def test_whole_numbers_are_never_called_large():
    data = dataset_of("toy", TOKENS * 1000, LABELS)
    assert concerns(data) == []
    assert any("are large" in str(line) for line in concerns(dataset_of("toy", TOKENS * 1000.0, LABELS)))


@pytest.mark.parametrize("features", [TOKENS % 2, TOKENS > 9, TOKENS.astype(np.float64)])
def test_switches_and_floats_become_float32(features):
    data = dataset_of("toy", features, LABELS)
    assert data.features.dtype == np.float32


def test_whole_numbers_and_equal_floats_are_different_data_sets():
    assert dataset_of("toy", TOKENS, LABELS).fingerprint != dataset_of("toy", TOKENS * 1.0, LABELS).fingerprint
