"""What AutoModel takes for an image, and what it refuses."""

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deeplab_jax import AutoModel
from deeplab_jax.errors import InputError
from deeplab_jax.inference.auto_model import as_threshold
from deeplab_jax.inference.inputs import as_list, as_pixels
from helpers import pixelwise
from helpers.fixtures import random_images

BGR = random_images((37, 23))[0]
RGB = BGR[..., ::-1]


def files(folder):
    """Paths and strings of files that hold the image."""
    Image.fromarray(RGB).save(folder / "rgb.png")
    Image.fromarray(np.rot90(RGB)).save(folder / "turned.png", exif=exif(6))  # 6: turn clockwise
    Image.fromarray(np.dstack([RGB, np.full(RGB.shape[:2], 9, np.uint8)])).save(folder / "rgba.png")
    cv2.imwrite(str(folder / "sixteen.png"), BGR.astype(np.uint16) * 257)
    return [folder / "rgb.png", str(folder / "turned.png"), folder / "rgba.png", folder / "sixteen.png"]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_all_kinds_of_images_are_the_same_pixels(tmp_path):
    alpha = np.full((*BGR.shape[:2], 1), 77, np.uint8)
    arrays = [BGR, np.dstack([BGR, alpha]), BGR.astype(np.uint16) * 257, BGR.astype(">u2") * 257, jnp.asarray(BGR)]
    floats = [*(BGR.astype(kind) for kind in (np.float16, np.float32, np.float64)), jnp.asarray(BGR, jnp.bfloat16)]
    pillow = [Image.fromarray(RGB), Image.fromarray(np.dstack([RGB, alpha])), *files(tmp_path)]
    for image in [*arrays, *floats, *pillow]:
        pixels, order = as_pixels(image, None)
        assert order == ("rgb" if any(image is other for other in pillow) else "bgr")
        np.testing.assert_array_equal(pixels, RGB if order == "rgb" else BGR)
        assert pixels.dtype == (np.float32 if any(image is other for other in floats) else np.uint8)
    assert as_pixels(BGR, None)[0].base is BGR  # nothing is copied


def test_tensors_are_the_same_pixels():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(RGB.transpose(2, 0, 1).copy())
    kinds = [tensor, tensor.permute(1, 2, 0), tensor.float(), tensor.bfloat16(), tensor.double().requires_grad_()]
    for image in [*kinds, torch.cat([tensor, tensor[:1]])]:
        pixels, order = as_pixels(image, None)
        assert order == "rgb"
        np.testing.assert_array_equal(pixels, RGB)
    np.testing.assert_array_equal(as_pixels(tensor[:1], None)[0], np.repeat(RGB[..., :1], 3, -1))
    assert as_pixels(tensor, "bgr")[1] == "bgr"
    batch = as_list(torch.stack([tensor, tensor + 1]))
    np.testing.assert_array_equal([as_pixels(image, None)[0] for image in batch], [RGB, RGB + 1])
    assert as_list(tensor) == [tensor]
    for image in (tensor.to_sparse(), tensor.to("meta")):
        with pytest.raises(InputError, match="a tensor cannot be read as an image"):
            as_pixels(image, None)


class AlwaysTwoSides(np.ndarray):
    """As np.matrix, which is on its way out."""

    def reshape(self, *shape, **options):
        return super().reshape(shape[0], -1)


def test_gray_images_have_three_equal_channels():
    gray = BGR[..., 0]
    wide = gray.view(AlwaysTwoSides)
    for image in (gray, wide, gray[..., None], Image.fromarray(gray), Image.fromarray(gray.astype(np.uint16) * 257)):
        np.testing.assert_array_equal(as_pixels(image, None)[0], np.dstack([gray] * 3))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"must be of shape .* not uint8 \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "must be of shape"),
        (np.zeros((0, 5, 3), np.uint8), "has no pixels"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8, uint16 in 0..65535 or floating-point in 0..255, not int64"),
        (np.zeros((4, 4, 3), bool), "not bool"),
        (np.full((4, 4, 3), np.nan), "must hold 0..255, not nan"),
        (np.full((4, 4, 3), np.inf), r"not inf\.\.inf"),
        (np.full((4, 4, 3), -1.0), "clip or scale it"),
        (np.full((4, 4, 3), 0.5), "this one ends at 0.5, multiply it by 255"),
        (np.broadcast_to(np.uint8(0), (30_000, 30_000, 3)), "more pixels than one of 8192x8192"),
        (np.broadcast_to(np.uint8(0), (2**16 + 1, 1, 3)), "1x65537 has a side of more than 65536 pixels"),
        ("absent.jpg", r"absent\.jpg does not exist"),
        (Image.new("I", (4, 4)), "not int32"),
        (b"bytes", "must be a numpy array, a torch tensor, a PIL image or the path of a file, not bytes"),
        (None, "not NoneType"),
        ([BGR], "not list; for several give a list of them"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        as_pixels(image, None)


def test_large_files_are_refused_before_they_are_decoded(tmp_path):
    Image.new("L", (10_000, 7_000)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=r"large\.png has more than 67108864 pixels"):
        as_pixels(tmp_path / "large.png", None)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(InputError, match="is no file"):
            as_pixels(path, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixelwise") / "p"
    return AutoModel.from_pretrained(pixelwise.write(folder, pixelwise.config({"resize_mode": "letterbox"})), threads=1)


def test_a_call_takes_a_mixture(model):
    expected = model(BGR, confidence=0.0)[0]
    mixture = [BGR, Image.fromarray(RGB), BGR.astype(np.float32)] * 3
    for result in model(mixture, confidence=0.0):
        np.testing.assert_array_equal(result.segmentation_map, expected.segmentation_map)
    swapped = model(RGB, confidence=0.0, input_color_format="rgb")[0]
    np.testing.assert_array_equal(swapped.segmentation_map, expected.segmentation_map)
    assert (model(RGB, confidence=0.0)[0].segmentation_map != expected.segmentation_map).any()
    assert model([]) == []
    with pytest.raises(InputError, match="input_color_format='hsv' must be"):
        model(BGR, input_color_format="hsv")


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_thin_images(model, size):
    assert model(np.full((*size, 3), 99, np.uint8))[0].segmentation_map.shape == size


def test_confidence_is_read_as_the_shared_api_does():
    """A float is a threshold. Everything else is taken for not given there; here only what is plainly meant so."""
    assert [as_threshold(value) for value in (None, "default", "best", 0, 1)] == [0.5] * 5
    assert [as_threshold(value) for value in (0.0, 0.3, np.float32(1), "argmax")] == [0.0, 0.3, 1.0, "argmax"]
    for value in (-0.1, 1.5, float("nan"), 2, True, "high", [0.5]):
        with pytest.raises(InputError, match="must be a probability"):
            as_threshold(value)


def test_threads_do_not_disturb_each_other(model):
    images = random_images(*[(20 + 7 * i, 90 - 9 * i) for i in range(8)])
    expected = [model(image)[0] for image in images]
    with ThreadPoolExecutor(8) as pool:
        actual = list(pool.map(lambda i: model(images[i % 8])[0], range(160)))
    for i, result in enumerate(actual):
        np.testing.assert_array_equal(result.segmentation_map, expected[i % 8].segmentation_map)
        np.testing.assert_array_equal(result.confidence, expected[i % 8].confidence)
