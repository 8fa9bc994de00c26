"""From images to network input and back, beside an independent writing of what the shared API's client does."""

from dataclasses import replace

import numpy as np
import pytest

from deeplab_jax import AutoModel
from deeplab_jax.classes import Classes
from deeplab_jax.config import IGNORE, PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.image.preprocess import preprocess
from deeplab_jax.image.resize import resize_image, resize_mask
from deeplab_jax.package import inference_config
from helpers import pixelwise, shared_api
from helpers.fixtures import random_images

pytestmark = pytest.mark.filterwarnings("ignore:This might be a color image")  # scikit-image, which is right

SIZES = [(40, 56), (33, 47), (97, 161), (41, 30), (20, 301), (7, 5)]
CROP = {"static-crop": {"enabled": True, "x_min": 13, "x_max": 87, "y_min": 0, "y_max": 71}}
MODES = ["stretch", "letterbox", "letterbox-reflect-edges", "fit-longer-edge", "center-crop"]
CASES = {
    **{mode: ({"resize_mode": mode}, {}) for mode in MODES},
    "no padding value": ({"resize_mode": "letterbox", "padding_value": None}, {}),
    "blue first": ({"resize_mode": "letterbox", "color_mode": "bgr"}, {}),
    "not scaled": ({"scaling_factor": None, "normalization": [[120, 127.5, 130], [60, 65, 70]]}, {}),
    "scaled by 1": ({"scaling_factor": 1, "normalization": [[120, 127.5, 130], [60, 65, 70]]}, {}),
    "scaled alone": ({"normalization": None}, {}),
    "neither": ({"normalization": None, "scaling_factor": None}, {}),
    "cropped": ({"resize_mode": "letterbox"}, CROP),
    "cropped twice": ({"resize_mode": "center-crop"}, CROP),
    "gray": ({}, {"grayscale": {"enabled": True}, "auto-orient": {"enabled": True}}),
    "stretched contrast": ({}, {"contrast": {"enabled": True, "type": "Contrast Stretching"}}),
    "equalized": ({}, {**CROP, "contrast": {"enabled": True, "type": "Histogram Equalization"}}),
    "adaptively equalized": ({}, {"contrast": {"enabled": True, "type": "Adaptive Equalization"}}),
    "disabled": ({}, {name: {**CROP["static-crop"], "enabled": False} for name in ("static-crop", "grayscale")}),
    "every size": ({"training_input_size": None, "dynamic_spatial_size_mode": {"type": "any-size"}}, {}),
}


@pytest.mark.parametrize("case", [name for name in CASES if name != "every size"])
def test_network_input_equals_the_shared_api(case, tmp_path):
    message = pixelwise.config(*CASES[case])
    config = inference_config.read(tmp_path, message).preprocess
    for image in random_images(*SIZES):
        expected, place = shared_api.network_input(image, message)
        actual, placement = preprocess(image, config)
        np.testing.assert_allclose(actual, expected[0], atol=2e-6 * np.abs(expected).max())
        assert (placement.top, placement.left) == (place.top, place.left)
        assert (40 - placement.top - placement.height, 56 - placement.left - placement.width) == (
            place.bottom,
            place.right,
        )


@pytest.mark.parametrize("case", CASES)
def test_results_equal_the_shared_api(case, tmp_path):
    """Every step of a call, around a network that is one 1x1 convolution."""
    pytest.importorskip("torchvision")
    message = pixelwise.config(*CASES[case])
    model, images = AutoModel.from_pretrained(pixelwise.write(tmp_path / "p", message)), random_images(*SIZES)
    for threshold in (0.0, 0.6):
        for image, result in zip(images, model(images, confidence=threshold), strict=True):
            inputs, place = shared_api.network_input(image, message)
            logits = np.einsum("kc,chw->khw", pixelwise.kernel(), inputs[0])
            ids, confidence = shared_api.result(logits, place, image, message, threshold)
            same = result.segmentation_map == ids
            np.testing.assert_array_equal(model.class_ids(image, threshold, "bgr"), result.segmentation_map)
            assert same.mean() >= 0.999  # a pixel between two classes, or at the threshold, may fall either way
            np.testing.assert_allclose(result.confidence[same], confidence[same], atol=1e-4)


def test_one_gray_channel(tmp_path):
    message = pixelwise.config({"input_channels": 1, "normalization": [[0.4], [0.2]]})
    model = AutoModel.from_pretrained(pixelwise.write(tmp_path / "p", message, ("n", 1, *pixelwise.SIZE)))
    (image,) = random_images(pixelwise.SIZE)
    gray = image @ np.array([0.114, 0.587, 0.299])
    logits = pixelwise.kernel(1) * ((gray / 255 - 0.4) / 0.2).reshape(1, -1)
    clear = np.diff(np.sort(logits, 0)[-2:], axis=0)[0] > 0.05  # OpenCV rounds gray levels
    expected = logits.argmax(0)
    actual = model(image, confidence=0.0)[0].segmentation_map.ravel()
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(actual[clear], expected[clear])


def test_half_precision_graphs_run(tmp_path):
    (image,), message = random_images((33, 47)), pixelwise.config()
    results = [
        AutoModel.from_pretrained(pixelwise.write(tmp_path / str(kind), message, kind=kind))(image, confidence=0.0)[0]
        for kind in (1, pixelwise.HALF)
    ]
    np.testing.assert_allclose(results[0].confidence, results[1].confidence, atol=5e-3)
    assert results[1].confidence.dtype == np.float32


@pytest.mark.parametrize(
    "field", [{"static_crop": (10, 0, 90, 55)}, {"grayscale": True}, {"resize_mode": "center-crop"}]
)
def test_training_sees_what_inference_sees(field):
    """And masks lie where their images lie."""
    config = replace(PreprocessConfig((40, 56), mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3), **field)
    for image in random_images(*SIZES[:-1]):
        actual, placement = preprocess(image, config, "rgb")
        fitted = resize_image(image, config)
        np.testing.assert_allclose(actual.transpose(1, 2, 0), fitted, atol=1e-4)
        mask = resize_mask(np.ones(image.shape[:2], np.uint8), config)
        inside = np.zeros((40, 56), bool)
        inside[placement.within((40, 56)).window] = True
        np.testing.assert_array_equal(mask, np.where(inside, 1, IGNORE))


def test_center_crop_cuts_masks_as_images():
    rows, columns = np.mgrid[0:50, 0:30].astype(np.uint8)
    config = PreprocessConfig((20, 40), "center-crop")
    image = resize_image(np.stack([rows, columns, rows], -1), config)
    np.testing.assert_array_equal(resize_mask(rows, config)[:, 5:35], image[:, 5:35, 0])
    assert image[0, 5, 0] == 15
    assert (resize_mask(rows, config)[:, :5] == IGNORE).all()


def test_a_crop_that_leaves_nothing_is_refused():
    config = PreprocessConfig((8, 8), static_crop=(40, 40, 60, 60))
    with pytest.raises(InputError, match=r"static_crop=\(40, 40, 60, 60\) leaves nothing of an image of 2x1 pixels"):
        preprocess(np.zeros((1, 2, 3), np.uint8), config)
    with pytest.raises(InputError, match="must be left, top, right and bottom"):
        PreprocessConfig(static_crop=(60, 0, 40, 100))


def test_what_is_written_comes_back(tmp_path):
    configs = [
        PreprocessConfig((49, 65), "center-crop", static_crop=(1, 2, 98, 97), grayscale=True),
        PreprocessConfig((49, 65), "pad", padding_value=None, contrast="Histogram Equalization", color_mode="bgr"),
        PreprocessConfig((49, 65), color_mode="gray", mean=(0.4,) * 3, std=(0.2,) * 3),
    ]
    for config in configs:
        written = inference_config.write(Classes(("background", "a"), ((0, 0, 0),) * 2), config)
        assert inference_config.read(tmp_path, written).preprocess == config
