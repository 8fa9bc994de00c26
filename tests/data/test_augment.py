"""The one matrix that moves image and mask together."""

from dataclasses import replace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deeplab_jax.config import IGNORE, AugmentConfig, PreprocessConfig
from deeplab_jax.data.augment import GRAY, augment, draw_geometry, gaussian_blur, jitter, normalize, turn_colors
from deeplab_jax.train import step
from deeplab_jax.train.sharding import make_shardings

PLAIN = PreprocessConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
STILL = AugmentConfig(crop=(24, 32), scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0)


def pair(height=24, width=32, count=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, 5, (count, height, width)).astype(np.uint8))


def test_nothing_drawn_changes_nothing():
    images, masks = pair()
    actual, ids = augment(jax.random.key(0), images, masks, STILL, PLAIN)
    np.testing.assert_allclose(actual, images / 255, atol=1e-5)
    np.testing.assert_array_equal(ids, masks)


def test_flip_mirrors_both():
    images, masks = pair()
    actual, ids = augment(jax.random.key(0), images, masks, replace(STILL, flip=1.0), PLAIN)
    np.testing.assert_allclose(actual, images[:, :, ::-1] / 255, atol=1e-5)
    np.testing.assert_array_equal(ids, masks[:, :, ::-1])


def test_a_smaller_image_lies_whole_inside_the_crop():
    images, masks = pair(10, 12)
    actual, ids = augment(jax.random.key(1), images, masks, STILL, PLAIN)
    inside = np.asarray(ids) != IGNORE
    assert (inside.sum((1, 2)) == 10 * 12).all()
    np.testing.assert_allclose(actual[~inside], PLAIN.padding_value / 255, atol=1e-6)


def test_image_and_mask_stay_aligned():
    """Colors say to a fraction of a pixel where the image was read, and with that which id the mask has there."""
    y, x = np.mgrid[:64, :64]
    images = np.stack([4 * x, 4 * y, np.full_like(x, 250)], -1).astype(np.uint8)[None].repeat(2, 0)
    mask = (y // 8 * 8 + x // 8).astype(np.uint8)[None].repeat(2, 0)
    config = replace(STILL, crop=(48, 40), scale=(0.5, 2.0), flip=0.5, rotation=30.0)
    run = jax.jit(lambda key: augment(key, jnp.asarray(images), jnp.asarray(mask), config, PLAIN))
    for seed in range(50):  # of two images each
        actual, ids = (np.asarray(array) for array in run(jax.random.key(seed)))
        inside = ids != IGNORE
        np.testing.assert_array_equal(inside, actual[..., 2] > 0.9)
        assert inside.sum() > 1000
        x, y = (actual[inside][:, channel] * 255 / 4 + 0.5 for channel in (0, 1))
        clear = np.minimum(abs(x - x.round()), abs(y - y.round())) > 1e-3  # of the line between two pixels
        np.testing.assert_array_equal((y // 1 // 8 * 8 + x // 1 // 8)[clear], ids[inside][clear])


def matrices(size=(40, 60), **fields):
    """Of 500 draws, (n, 2, 3)."""
    keys = jax.random.split(jax.random.key(0), 500)
    drawn = jax.jit(jax.vmap(lambda key: draw_geometry(key, size, replace(STILL, **fields))))(keys)
    return np.asarray(drawn, np.float64)


def assert_uniform(values, low, high):
    expected = np.linspace(low, high, len(values))
    np.testing.assert_allclose(np.sort(values), expected, atol=0.08 * (high - low))
    assert low - 1e-3 <= values.min()
    assert values.max() <= high + 1e-3


def test_zoom_is_log_uniform():
    drawn = matrices(scale=(0.5, 3.0))
    assert_uniform(-np.log(drawn[:, 0, 0]), np.log(0.5), np.log(3))
    np.testing.assert_allclose(drawn[:, 1, 1], drawn[:, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.8, 1.0])
def test_flips_are_as_frequent_as_said(probability):
    drawn = matrices(flip=probability)
    spread = 4 * np.sqrt(probability * (1 - probability) / 500)
    assert abs((drawn[:, 0, 0] < 0).mean() - probability) <= spread
    assert (drawn[:, 1, 1] > 0).all()


def test_angles_are_uniform_up_to_the_largest():
    drawn = matrices(rotation=30.0)
    assert_uniform(np.degrees(np.arctan2(drawn[:, 1, 0], drawn[:, 1, 1])), -30, 30)


@pytest.mark.parametrize("size", [(40, 60), (12, 20)])
def test_crops_lie_anywhere(size):
    """A crop in a larger image, and a smaller image in a crop."""
    drawn = matrices(size)
    for corners, room in ((drawn[:, 0, 2], size[1] - 32), (drawn[:, 1, 2], size[0] - 24)):
        assert_uniform(corners, min(room, 0), max(room, 0))
    assert abs(np.corrcoef(drawn[:, 0, 2], drawn[:, 1, 2])[0, 1]) < 0.2


@pytest.mark.slow
def test_draws_follow_from_the_key_and_differ_between_images():
    images, masks = (array[:1].repeat(2, 0) for array in pair())
    config = AugmentConfig(crop=(16, 16))
    first, again = (augment(jax.random.key(7), images, masks, config, PLAIN) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0][0] - first[0][1]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"crop": (16, 16)}, {"flip": 0.5}, {"scale": (0.5, 2.0)}, {"rotation": 30.0}])
def test_other_keys_draw_other_geometry(fields):
    images, masks = pair()
    actual = [augment(jax.random.key(i), images, masks, replace(STILL, **fields), PLAIN)[1] for i in range(6)]
    assert len({np.asarray(ids).tobytes() for ids in actual}) > 3


class Drawn(Exception):
    pass


def test_every_training_step_has_its_own_key(tiny_experiment, monkeypatch):
    def note(key, *others):
        keys.append(jax.random.key_data(key).tolist())
        raise Drawn

    monkeypatch.setattr(step, "augment", note)
    nothing, keys = nnx.State({}), []
    run = step.make_train_step(tiny_experiment, nnx.graphdef(nnx.Module()), make_shardings())
    images, masks = pair()
    for number in (0, 1, 2, 0):
        with jax.disable_jit(), pytest.raises(Drawn):
            run(step.TrainState(jnp.int32(number), nothing, nothing, (), None), {"image": images, "mask": masks})
    assert len({str(key) for key in keys}) == 3
    assert keys[0] == keys[3]


@pytest.mark.slow
def test_rotation_is_about_the_center():
    """Four quarter turns by the largest angle, either way: what lies in the middle stays there."""
    images = jnp.zeros((8, 33, 33, 3), jnp.uint8).at[:, 16, 10:23].set(255).at[:, 16, 16].set(255)
    masks = (images[..., 0] > 0).astype(jnp.uint8)
    config = replace(STILL, crop=(33, 33), rotation=90.0)
    actual, ids = augment(jax.random.key(3), images, masks, config, PLAIN)
    assert (ids[:, 16, 16] == 1).all()
    np.testing.assert_allclose(actual[:, 16, 16], 1, atol=1e-4)
    assert len({np.asarray(one).tobytes() for one in ids}) > 4
    lengths = np.asarray((ids == 1).sum((1, 2)))
    assert ((lengths >= 9) & (lengths <= 17)).all()  # 13 pixels, wherever they point


def test_blur_equals_opencvs():
    image = np.random.default_rng(0).uniform(size=(20, 30, 3)).astype(np.float32)
    actual = gaussian_blur(jnp.asarray(image), jnp.float32(1.3), 2.0)
    expected = cv2.GaussianBlur(image, (13, 13), 1.3, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(image), jnp.float32(0), 2.0), image, atol=1e-6)


def test_turned_colors_keep_their_luminance():
    rgb = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 3)), jnp.float32)
    for angle in (0.0, 0.5, 3.0):
        turned = rgb @ turn_colors(jnp.float32(angle))
        np.testing.assert_allclose(turned @ GRAY, rgb @ GRAY, atol=1e-5)
        np.testing.assert_allclose(turned @ turn_colors(jnp.float32(-angle)), rgb, atol=1e-4)
        np.testing.assert_allclose(jnp.full(3, 0.4) @ turn_colors(jnp.float32(angle)), 0.4, atol=1e-3)
    np.testing.assert_allclose(jnp.array([1.0, 0, 0]) @ turn_colors(jnp.float32(2 * np.pi / 3)) > 0.4, [0, 0, 1])


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue", "blur", "noise"])
def test_jitter_changes_colors_only(field):
    images, masks = pair()
    actual, ids = augment(jax.random.key(0), images, masks, replace(STILL, **{field: 0.5}), PLAIN)
    np.testing.assert_array_equal(ids, masks)
    assert np.abs(actual - images / 255).max() > 0.01
    assert actual.min() >= 0
    assert actual.max() <= 1


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue", "blur", "noise"])
def test_jitter_is_of_any_strength_up_to_the_largest(field):
    image = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (12, 12, 3)), jnp.float32)
    config, keys = replace(STILL, **{field: 0.4}), jax.random.split(jax.random.key(0), 60)
    change = np.asarray(jax.vmap(lambda key: jitter(key, image, config))(keys)) - image
    strengths = np.sort(np.abs(change).mean((1, 2, 3)))
    assert strengths[6] < 0.3 * strengths[-1]
    assert (np.diff(strengths) > 0).sum() > 25  # weak blurs are none at all


def test_noise_is_of_every_pixel_and_channel():
    gray = jnp.full((40, 40, 3), 0.5)
    noise = np.asarray(jitter(jax.random.key(1), gray, replace(STILL, noise=0.1))) - 0.5
    assert noise.std((0, 1)).min() > 1e-3
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.1
    assert abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.1


def test_normalize_equals_the_definition():
    config = PreprocessConfig()
    images = np.random.default_rng(0).uniform(size=(1, 2, 2, 3)).astype(np.float32)
    expected = (images - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(normalize(jnp.asarray(images), config), expected, rtol=1e-5)
