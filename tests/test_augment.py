"""The one matrix that moves picture and mask together."""

from dataclasses import replace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.config import IGNORE, AugmentConfig, PreprocessConfig
from deeplab_jax.data.augment import GREY, augment, gaussian_blur, normalise, turn_colours

PLAIN = PreprocessConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
WINDOW = np.ones((5, 5), np.uint8)
STILL = AugmentConfig(crop=(24, 32), scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0)


def pair(height=24, width=32, count=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, 5, (count, height, width)).astype(np.uint8))


def test_nothing_drawn_changes_nothing():
    images, masks = pair()
    found, ids = augment(jax.random.key(0), images, masks, STILL, PLAIN)
    np.testing.assert_allclose(found, images / 255, atol=1e-5)
    np.testing.assert_array_equal(ids, masks)


def test_flip_mirrors_both():
    images, masks = pair()
    found, ids = augment(jax.random.key(0), images, masks, replace(STILL, flip=1.0), PLAIN)
    np.testing.assert_allclose(found, images[:, :, ::-1] / 255, atol=1e-5)
    np.testing.assert_array_equal(ids, masks[:, :, ::-1])


def test_a_smaller_picture_lies_whole_inside_the_crop():
    images, masks = pair(10, 12)
    found, ids = augment(jax.random.key(1), images, masks, STILL, PLAIN)
    inside = np.asarray(ids) != IGNORE
    assert (inside.sum((1, 2)) == 10 * 12).all()
    np.testing.assert_allclose(found[~inside], PLAIN.padding_value / 255, atol=1e-6)


def test_picture_and_mask_stay_aligned():
    """A picture made from its own mask still equals it, but for the two pixels that bilinear sampling can mix."""
    mask = np.zeros((2, 64, 64), np.uint8)
    mask[:, 16:48, 8:40] = 1
    mask[:, 30:60, 30:60] = 2
    images = jnp.asarray(np.repeat(mask[..., None] * 100, 3, -1))
    config = replace(STILL, crop=(48, 40), scale=(0.5, 2.0), flip=0.5, rotation=30.0)
    run = jax.jit(lambda key: augment(key, images, jnp.asarray(mask), config, PLAIN))
    for seed in range(100):  # of two pictures each
        found, ids = (np.asarray(array) for array in run(jax.random.key(seed)))
        for picture, labels in zip(found[..., 0] * 255 / 100, ids.astype(np.uint8), strict=True):
            away_from_edges = cv2.erode(labels, WINDOW) == cv2.dilate(labels, WINDOW)
            away_from_edges &= labels != IGNORE
            away_from_edges[[0, 1, -2, -1]] = away_from_edges[:, [0, 1, -2, -1]] = False
            assert away_from_edges.sum() > 100
            np.testing.assert_allclose(picture[away_from_edges], labels[away_from_edges], atol=1e-3)


def test_draws_follow_from_the_key_and_differ_between_pictures():
    images, masks = (array[:1].repeat(2, 0) for array in pair())
    config = AugmentConfig(crop=(16, 16))
    first, again = (augment(jax.random.key(7), images, masks, config, PLAIN) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0][0] - first[0][1]).max() > 0.01


def test_rotation_is_about_the_centre():
    """Four quarter turns by the largest angle, either way: what lies in the middle stays there."""
    images = jnp.zeros((8, 33, 33, 3), jnp.uint8).at[:, 16, 10:23].set(255).at[:, 16, 16].set(255)
    masks = (images[..., 0] > 0).astype(jnp.uint8)
    config = replace(STILL, crop=(33, 33), rotation=90.0)
    found, ids = augment(jax.random.key(3), images, masks, config, PLAIN)
    assert (ids[:, 16, 16] == 1).all()
    np.testing.assert_allclose(found[:, 16, 16], 1, atol=1e-4)
    assert len({np.asarray(one).tobytes() for one in ids}) > 4
    lengths = np.asarray((ids == 1).sum((1, 2)))
    assert ((lengths >= 9) & (lengths <= 17)).all()  # 13 pixels, wherever they point


def test_blur_equals_opencvs():
    image = np.random.default_rng(0).uniform(size=(20, 30, 3)).astype(np.float32)
    found = gaussian_blur(jnp.asarray(image), jnp.float32(1.3), 2.0)
    expected = cv2.GaussianBlur(image, (13, 13), 1.3, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(image), jnp.float32(0), 2.0), image, atol=1e-6)


def test_turned_colours_keep_their_luminance():
    rgb = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 3)), jnp.float32)
    for angle in (0.0, 0.5, 3.0):
        turned = rgb @ turn_colours(jnp.float32(angle))
        np.testing.assert_allclose(turned @ GREY, rgb @ GREY, atol=1e-5)
        np.testing.assert_allclose(turned @ turn_colours(jnp.float32(-angle)), rgb, atol=1e-4)
        np.testing.assert_allclose(jnp.full(3, 0.4) @ turn_colours(jnp.float32(angle)), 0.4, atol=1e-3)
    np.testing.assert_allclose(jnp.array([1.0, 0, 0]) @ turn_colours(jnp.float32(2 * np.pi / 3)) > 0.4, [0, 0, 1])


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue", "blur", "noise"])
def test_jitter_changes_colours_only(field):
    images, masks = pair()
    found, ids = augment(jax.random.key(0), images, masks, replace(STILL, **{field: 0.5}), PLAIN)
    np.testing.assert_array_equal(ids, masks)
    assert np.abs(found - images / 255).max() > 0.01
    assert found.min() >= 0
    assert found.max() <= 1


def test_normalise_equals_the_definition():
    config = PreprocessConfig()
    images = np.random.default_rng(0).uniform(size=(1, 2, 2, 3)).astype(np.float32)
    expected = (images - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalise(jnp.asarray(images), config), expected, rtol=1e-5)
