"""Overlays beside the formula that they are meant to follow."""

import numpy as np
import pytest

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.image.draw import OPACITY, legend, mask_image, overlay, overlay_with_legend


def many_classes(count):
    """Background is black, and so is the third of more classes."""
    palette = [*default_palette(count)]
    palette[2:3] = [(0, 0, 0)] if count > 2 else []
    return Classes(tuple(f"class {number}" for number in range(count)), tuple(palette))


@pytest.mark.parametrize("count", [2, 21, 300])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (301, 400)])
def test_a_tint_is_the_color_over_gray(count, dtype, size):
    random, classes = np.random.default_rng(0), many_classes(count)
    image = random.integers(0, 256, (*size, 3), np.uint8)
    ids = random.integers(0, min(count + 3, 256), size).astype(dtype)
    ids[0, 0] = 255  # void, mostly
    before = image.copy()
    actual = overlay(image, ids, classes)
    colors = np.array([*classes.palette, (0, 0, 0)])[np.minimum(ids.astype(int), count)]
    exact = (1 - OPACITY) * image.mean(-1, keepdims=True) + OPACITY * colors
    drawn = colors.any(-1)
    assert np.abs(actual - np.floor(exact))[drawn].max(initial=0) <= 1
    np.testing.assert_array_equal(actual[~drawn], image[~drawn])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("count", [21, 300])
def test_an_overlay_shows_the_classes_that_are_there(count):
    classes, image = many_classes(count), np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    ids = np.full((40, 50), count - 1, np.min_scalar_type(count))
    ids[7, 9] = 1
    ids[:2] = count  # of no class
    sheet = overlay_with_legend(image, ids, classes)[..., ::-1]
    np.testing.assert_array_equal(sheet[:40, :50], overlay(image, ids, classes))
    shown = Classes((classes.names[1], classes.names[-1]), (classes.palette[1], classes.palette[-1]))
    column = np.asarray(legend(shown, (40, 50)))
    np.testing.assert_array_equal(sheet[:, 50:], column)
    assert len({classes.palette[1], classes.palette[-1]} & {tuple(color) for color in column.reshape(-1, 3)}) == 2


def test_a_legend_may_be_taller_than_the_image():
    ids = np.arange(21, dtype=np.uint8)[None]
    sheet = overlay_with_legend(np.zeros((1, 21, 3), np.uint8), ids, many_classes(21))
    assert len(sheet) > 21 * 11
    assert (sheet[1:, :21] == 255).all()


@pytest.mark.parametrize("count", [21, 300])
def test_a_mask_holds_the_ids(tmp_path, count):
    from PIL import Image

    ids = np.random.default_rng(0).integers(0, count, (40, 50)).astype(np.uint16)
    mask_image(ids, many_classes(count)).save(tmp_path / "a.png", compress_level=1)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == ("P" if count == 21 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), ids)
