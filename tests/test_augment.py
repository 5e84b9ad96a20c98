"""Random views of training images."""

from typing import Any

import numpy as np
import pytest
import torch

from toy import blobs, ensemble_of, split_of
from wemem.errors import InputError
from wemem.training import Recipe, fit
from wemem.training.augment import augment, draw_views

#: Every pixel has a value of its own, above 0.
IMAGES = 1 + torch.arange(2 * 200 * 3 * 16 * 16.0).view(2, 200, 3, 16, 16)
KEYS = [7, 8]
UNKNOWN: Any = "rotate"


def views_of(images, kind, keys):
    drawn = np.concatenate([draw_views(kind, key, images.shape[1]) for key in keys])
    return augment(images, kind, torch.from_numpy(drawn))


def shifts_of(before, after):
    """The flip and shift that make one image of the other, found by trying all of them."""
    found = []
    for flip in (False, True):
        source = before.flip(-1) if flip else before
        padded = torch.nn.functional.pad(source, (2, 2, 2, 2))
        found += [
            (flip, down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(padded[:, down : down + 16, right : right + 16], after)
        ]
    return found


def test_no_augmentation_gives_the_images_themselves():
    assert views_of(IMAGES, "none", KEYS) is IMAGES


def test_flips_mirror_about_half_of_the_images_and_change_nothing_else():
    views = views_of(IMAGES, "flip", KEYS)
    mirrored = (views == IMAGES.flip(-1)).flatten(2).all(2)
    same = (views == IMAGES).flatten(2).all(2)
    assert (mirrored ^ same).all()
    assert 150 < int(mirrored.sum()) < 250  # 400 coins


def test_crops_are_shifts_by_up_to_an_eighth_on_all_sides():
    views = views_of(IMAGES[:, :60], "crop_flip", KEYS)
    found = [shifts_of(IMAGES[s, b], views[s, b]) for s in range(2) for b in range(60)]
    assert all(len(one) == 1 for one in found)
    flips, downs, rights = (set(column) for column in zip(*(one[0] for one in found), strict=True))
    assert (flips, downs, rights) == ({False, True}, set(range(5)), set(range(5)))


def test_cutout_covers_a_square_that_may_reach_over_the_edge():
    before, after = views_of(IMAGES, "crop_flip", KEYS), views_of(IMAGES, "crop_flip_cutout", KEYS)
    covered = (after == 0).all(2)
    assert torch.equal(after, before.masked_fill(covered[:, :, None] & (before != 0).any(2, keepdim=True), 0.0))
    inner = (covered & (before != 0).all(2)).sum((2, 3))
    assert int(inner.max()) == 64
    assert int(inner.min()) < 64


@pytest.mark.parametrize("kind", ["flip", "crop_flip", "crop_flip_cutout"])
def test_a_view_depends_on_the_member_s_own_key_and_place_only(kind):
    together = views_of(IMAGES, kind, KEYS)
    assert torch.equal(views_of(IMAGES[1:, :50], kind, KEYS[1:])[0], together[1, :50])
    assert not torch.equal(views_of(IMAGES[1:], kind, [9])[0], together[1])


def test_augmentation_of_what_is_no_image_is_refused():
    data = blobs()
    with pytest.raises(InputError, match=r"augment = 'flip' expected images .*, got records of shape \(6,\)"):
        fit(ensemble_of(data), data, split_of(data), Recipe(augment="flip"), seeds=range(3))
    with pytest.raises(
        InputError, match="augment must be one of none, flip, crop_flip, crop_flip_cutout, got 'rotate'"
    ):
        Recipe(augment=UNKNOWN)


def test_draws_are_uniform_over_the_shifts():
    views = views_of(IMAGES, "crop_flip", KEYS)
    top = (views[:, :, 0, :2] == 0).all(-1).sum(-1).flatten()  # rows of padding above: 2, 1 or 0 of the first two
    counts = np.bincount(top.numpy(), minlength=3)
    assert abs(counts[2] - 80) < 30  # one of five shifts, 400 images
    assert abs(counts[1] - 80) < 30
