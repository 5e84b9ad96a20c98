"""Untrained features of images: of one image alone, blind to brightness, and good for linear models."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from wemem.data.image_features import CELLS, DIRECTIONS, image_features, is_image
from wemem.training.linear import fit_discriminants

IMAGES = np.random.default_rng(0).random((40, 3, 28, 28), np.float32)


def test_features_of_an_image_depend_on_no_other_image():
    together = image_features(IMAGES)
    assert np.allclose(image_features(IMAGES[35:36])[0], together[35], atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-2)


def test_brightness_and_contrast_change_nothing():
    assert np.allclose(image_features(3 * IMAGES[:4] + 5), image_features(IMAGES[:4]), atol=1e-4)


def test_a_blank_image_has_finite_features():
    assert np.isfinite(image_features(np.zeros((2, 1, 8, 8), np.float32))).all()


def test_an_edge_votes_for_its_direction_alone():
    image = np.zeros((2, 1, 32, 32), np.float32)
    image[0, ..., 16:] = 1  # brightness changes across
    image[1, :, :, 16:] = 0
    image[1, :, 16:] = 1  # and down
    gradients = image_features(image)[:, -4 * DIRECTIONS * (CELLS - 1) ** 2 :]
    by_direction = gradients.reshape(2, 4, DIRECTIONS, -1).sum((1, 3))
    across, down = by_direction / by_direction.sum(1, keepdims=True)
    assert across[0] > 0.99
    assert down[DIRECTIONS // 2] + down[DIRECTIONS // 2 + 1] > 0.99  # a right angle lies between two of nine


def test_an_image_of_twice_the_pixels_has_the_same_features():
    twice = IMAGES[:3].repeat(2, axis=2).repeat(2, axis=3)
    assert np.allclose(image_features(twice), image_features(IMAGES[:3]), atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 33), (9, 128), (300, 12)])
def test_a_long_image_is_shrunk_no_further_than_a_patch(shape):
    images = np.random.default_rng(0).random((3, 1, *shape), np.float32)
    features = image_features(images)
    assert np.isfinite(features).all()
    assert np.linalg.matrix_rank(features) == 3


@pytest.mark.parametrize(("shape", "image"), [((3, 8, 8), True), ((3, 4, 8), False), ((64,), False), ((8, 8), False)])
def test_records_with_channels_height_and_width_are_images(shape, image):
    assert is_image(shape) == image


def test_discriminants_know_digits_better_by_untrained_features_than_by_pixels():
    x, y = load_digits(return_X_y=True)
    pixels = (x / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    seen = np.arange(len(x))[None] < 600

    def right(features):
        p = fit_discriminants(features, y, seen, 10, 40).probabilities(features[600:])[0]
        return (p.argmax(1) == y[600:]).mean()

    assert right(image_features(pixels)) > right(pixels) + 0.01
