"""Random changes to images and masks, on the device, as a function of a key.

All geometry is one 2x3 matrix from crop pixels to image pixels, so scale, rotation, flip and crop cost one
resampling: bilinear for the image, nearest for the mask, gray and void outside.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8, UInt32

from deeplab_jax.config import IGNORE, AugmentConfig, PreprocessConfig

Matrix = Float[Array, "3 3"]

YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32)  # of RGB
GRAY = YIQ[0]


def augment(
    key: Key[Array, ""],
    images: UInt8[Array, "b h w 3"],
    masks: UInt8[Array, "b h w"],
    config: AugmentConfig,
    preprocess: PreprocessConfig,
) -> tuple[Float[Array, "b h2 w2 3"], Int[Array, "b h2 w2"]]:
    """Network input and class ids of size config.crop; every image has its own draw."""

    def one(key, image, mask):
        geometry, color = jax.random.split(key)
        matrix = draw_geometry(geometry, image.shape[:2], config)
        image, mask = resample(image, mask, matrix, config.crop, preprocess.padding)
        return jitter(color, image, config), mask

    images, masks = jax.vmap(one)(jax.random.split(key, len(images)), images, masks)
    return normalize(images, preprocess), masks


def normalize(images: Float[Array, "b h w 3"], config: PreprocessConfig) -> Float[Array, "b h w 3"]:
    """RGB in 0..1 to network input."""
    return (images - jnp.asarray(config.mean)) / jnp.asarray(config.std)


def draw_geometry(key: Key[Array, ""], size: tuple[int, int], config: AugmentConfig) -> Float[Array, "2 3"]:
    """The matrix that takes (x, y, 1) in the crop to (x, y) in the image; pixel centers lie at halves."""
    zoom_key, flip_key, place_key, turn_key = jax.random.split(key, 4)
    height, width = size
    zoom = jnp.exp(jax.random.uniform(zoom_key, minval=jnp.log(config.scale[0]), maxval=jnp.log(config.scale[1])))
    # The crop lies anywhere inside the scaled image, or the scaled image anywhere inside the crop.
    room = jnp.array([width, height], jnp.float32) * zoom - jnp.array([config.crop[1], config.crop[0]], jnp.float32)
    corner = jax.random.uniform(place_key, (2,)) * room
    flipped = jax.random.bernoulli(flip_key, config.flip)
    mirror = jnp.where(flipped, scaling(-1, 1).at[0, 2].set(width), jnp.eye(3))
    matrix = mirror @ scaling(1 / zoom, 1 / zoom) @ translation(corner[0], corner[1])
    if config.rotation:
        angle = jnp.deg2rad(config.rotation) * jax.random.uniform(turn_key, minval=-1.0, maxval=1.0)
        y, x = config.crop[0] / 2, config.crop[1] / 2
        matrix = matrix @ translation(x, y) @ rotation(angle) @ translation(-x, -y)
    return matrix[:2]


def scaling(x, y) -> Matrix:
    return jnp.diag(jnp.array([x, y, 1.0]))


def rotation(angle) -> Matrix:
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.eye(3).at[:2, :2].set(jnp.array([[cosine, -sine], [sine, cosine]]))


def translation(x, y) -> Matrix:
    return jnp.eye(3).at[:2, 2].set(jnp.array([x, y]))


def resample(
    image: UInt8[Array, "h w 3"],
    mask: UInt8[Array, "h w"],
    matrix: Float[Array, "2 3"],
    size: tuple[int, int],
    padding: tuple[float, float, float],
) -> tuple[Float[Array, "h2 w2 3"], Int[Array, "h2 w2"]]:
    """The image in 0..1 and the mask, seen through the matrix."""
    height, width = mask.shape
    y, x = jnp.meshgrid(*(jnp.arange(side, dtype=jnp.float32) + 0.5 for side in size), indexing="ij")
    x, y = jnp.einsum("ij,jhw->ihw", matrix, jnp.stack([x, y, jnp.ones_like(x)]), precision=jax.lax.Precision.HIGHEST)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = (x - 0.5).clip(0, width - 1), (y - 0.5).clip(0, height - 1)
    across, down = x - jnp.floor(x), y - jnp.floor(y)
    left, top = jnp.floor(x).astype(int), jnp.floor(y).astype(int)
    right, bottom = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)

    # Red, green, blue and class id in one number: four reads for each pixel, of which one is also the mask's nearest.
    packed = jax.lax.bitcast_convert_type(jnp.concatenate([image, mask[..., None]], -1), jnp.uint32).ravel()

    def read(row: Int[Array, "h2 w2"]) -> list[UInt32[Array, "h2 w2"]]:
        return [packed.at[row * width + column].get(mode="promise_in_bounds") for column in (left, right)]

    upper, lower = read(top), read(bottom)
    nearest = jnp.where(down < 0.5, *(jnp.where(across < 0.5, *pair) for pair in (upper, lower)))
    ids = jnp.where(inside, (nearest >> 24).astype(jnp.int32), IGNORE)

    def between(pair: list[UInt32[Array, "h2 w2"]]) -> Float[Array, "h2 w2 3"]:
        one, other = (jnp.stack([(color >> bits) & 255 for bits in (0, 8, 16)], -1) / 255 for color in pair)
        return blend(one, other, across[..., None])

    color = blend(between(upper), between(lower), down[..., None])
    return jnp.where(inside[..., None], color, jnp.asarray(padding) / 255), ids


def jitter(key: Key[Array, ""], image: Float[Array, "h w 3"], config: AugmentConfig) -> Float[Array, "h w 3"]:
    """Brightness, contrast and saturation by random factors around 1, then hue, blur and noise where they are set."""
    around = partial(jax.random.uniform, minval=-1.0, maxval=1.0)
    keys = iter(jax.random.split(key, 7))
    image = image * (1 + config.brightness * around(next(keys)))
    image = blend(image.mean(), image, 1 + config.contrast * around(next(keys)))
    gray = image @ GRAY
    image = blend(gray[..., None], image, 1 + config.saturation * around(next(keys)))
    hue, blur, level, noise = keys
    if config.hue:
        image = image @ turn_colors(2 * jnp.pi * config.hue * around(hue))
    image = image.clip(0, 1)
    if config.blur:
        image = gaussian_blur(image, config.blur * jax.random.uniform(blur), config.blur)
    if config.noise:
        deviation = config.noise * jax.random.uniform(level)
        image = (image + deviation * jax.random.normal(noise, image.shape)).clip(0, 1)
    return image


def turn_colors(angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """The matrix for RGB rows that turns colors by an angle around gray, in the plane of equal luminance (YIQ)."""
    cosine, sine, one, zero = jnp.cos(angle), jnp.sin(angle), jnp.ones(()), jnp.zeros(())
    turn = jnp.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine]).reshape(3, 3)
    return jnp.asarray(YIQ.T) @ turn.T @ jnp.asarray(np.linalg.inv(YIQ).T)


def gaussian_blur(image: Float[Array, "h w 3"], deviation: Float[Array, ""], most: float) -> Float[Array, "h w 3"]:
    """Of any deviation up to `most` pixels; the edge is repeated outwards."""
    reach = max(int(np.ceil(3 * most)), 1)
    weights = jnp.exp(-0.5 * (jnp.arange(-reach, reach + 1, dtype=jnp.float32) / jnp.maximum(deviation, 1e-3)) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = jnp.pad(image, [(reach, reach) if axis == a else (0, 0) for a in range(3)], mode="edge")
        shifted = (jax.lax.slice_in_dim(padded, i, i + image.shape[axis], axis=axis) for i in range(2 * reach + 1))
        image = sum((weight * part for weight, part in zip(weights, shifted, strict=True)), jnp.zeros_like(image))
    return image


def blend(base, image, factor):
    return base + (image - base) * factor
