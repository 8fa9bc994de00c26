"""The size of the network input: the package's, another one, or every image's own."""

import json
import re
import shutil
import sys

import jax
import numpy as np
import onnx
import pytest

from converters.export import export as exporter
from converters.export.onnx_graph import onnx_package as converter
from deeplab_jax import AutoModel
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.cli import commands
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.inference.auto_model import SegmentationModel
from deeplab_jax.package import inference_config, jax_weights
from deeplab_jax.package.folder import read_package, with_size
from deeplab_jax.package.limits import check_forward
from helpers.fixtures import random_images

OTHER = (33, 80)  # height, width
SIZES = [(61, 83), (30, 97)]  # of images, which are compiled for


@pytest.fixture(scope="module")
def dynamic_package(tiny_package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages") / "dynamic"
    converter.export(tiny_package, folder, dynamic_size=True)
    return folder


def equal(results, others):
    for result, other in zip(results, others, strict=True):
        assert (result.segmentation_map == other.segmentation_map).mean() > 0.9999
        np.testing.assert_allclose(result.confidence, other.confidence, atol=5e-5)
        assert len(np.unique(result.segmentation_map)) > 1


def test_a_dynamic_package_says_so(dynamic_package):
    graph = onnx.load(dynamic_package / "weights.onnx")
    (shape,) = [node.shape for node in converter.open_session(graph).get_inputs()]
    assert shape == ["batch", 3, "height", "width"]
    assert "of any size" in next(entry.value for entry in graph.metadata_props if entry.key == "input")
    network_input = json.loads((dynamic_package / "inference_config.json").read_text())["network_input"]
    assert network_input["training_input_size"] is None
    assert network_input["dynamic_spatial_size_supported"]
    assert network_input["dynamic_spatial_size_mode"] == {"type": "any-size"}
    package = read_package(dynamic_package)
    assert package.any_size
    assert package.preprocess.size == (49, 65)


def test_images_in_their_own_size_are_the_networks_input(tiny_package, dynamic_package):
    images, config = random_images(*SIZES), read_package(tiny_package).preprocess
    normalized = ((images[0][None, ..., ::-1] / 255 - config.mean) / config.std).astype(np.float32)
    logits = np.asarray(jax.jit(jax_weights.load_model(tiny_package).__call__)(normalized))[0]
    results = AutoModel.from_pretrained(tiny_package, size="image")(images, confidence=0.0)
    assert (results[0].segmentation_map == logits.argmax(-1)).mean() > 0.9999
    assert [result.confidence.shape for result in results] == SIZES
    equal(AutoModel.from_pretrained(dynamic_package)(images, confidence=0.0), results)


def test_another_size_is_what_a_package_of_that_size_has(tiny_package, dynamic_package, tmp_path):
    images = random_images(*SIZES, OTHER)
    copy = shutil.copytree(tiny_package, tmp_path / "copy")
    config = json.loads((copy / "inference_config.json").read_text())
    config["network_input"]["training_input_size"] = dict(zip(("height", "width"), OTHER, strict=True))
    (copy / "inference_config.json").write_text(json.dumps(config))
    expected = AutoModel.from_pretrained(copy)(images, confidence=0.0)
    actual = AutoModel.from_pretrained(tiny_package, size=OTHER)(images, confidence=0.0)
    for own, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(own.segmentation_map, other.segmentation_map)
        np.testing.assert_array_equal(own.confidence, other.confidence)
    equal(AutoModel.from_pretrained(dynamic_package, size=OTHER)(images, confidence=0.0), expected)


def test_a_graph_of_one_size_takes_no_other(onnx_package, dynamic_package):
    images = random_images(*SIZES)
    same = AutoModel.from_pretrained(onnx_package, size=(49, 65))(images, confidence=0.0)
    for own, other in zip(same, AutoModel.from_pretrained(onnx_package)(images, confidence=0.0), strict=True):
        np.testing.assert_array_equal(own.segmentation_map, other.segmentation_map)
    equal(AutoModel.from_pretrained(dynamic_package, size=(49, 65))(images, confidence=0.0), same)
    numbers = np.array([49, 65])
    assert with_size(read_package(dynamic_package), [*numbers]).preprocess.size == (49, 65)
    for size, says in (((49, 64), r"but size= says \(49, 64\)"), ("image", "not of any size")):
        with pytest.raises(InputError, match=rf"takes images of \[49, 65\], {says}; export it with --dynamic-size"):
            AutoModel.from_pretrained(onnx_package, size=size)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((0, 5), "size=(0, 5) must be 1 to 16384 pixels a side"),
        ((1, 2, 3), "must be (height, width) in pixels, or 'image'"),
        ((1.0, 2), "must be (height, width) in pixels, or 'image'"),
        (513, "must be (height, width) in pixels, or 'image'"),
        ("own", "must be (height, width) in pixels, or 'image'"),
        (np.zeros(2), "must be (height, width) in pixels, or 'image'"),
    ],
)
def test_what_is_no_size_is_refused(tiny_package, size, message):
    with pytest.raises(InputError, match=re.escape(message)):
        with_size(read_package(tiny_package), size)


def test_a_size_that_is_too_large_is_refused(tiny_package):
    with pytest.raises(InputError, match="MiB at once, more than 1536; fit them into less with size="):
        AutoModel.from_pretrained(tiny_package, size=(16384, 16384))


@pytest.mark.parametrize("size", [(4000, 6000), (2**15, 2**11), (9000, 9001)])
def test_what_is_too_large_says_what_is_not(tmp_path, size):
    with pytest.raises(InputError) as error:
        check_forward(tmp_path, size, 24, 1)
    height, width = map(int, re.findall(r"--size (\d+) (\d+)$", str(error.value))[0])
    check_forward(tmp_path, (height, width), 24, 1)
    assert height / width == pytest.approx(size[0] / size[1], rel=1e-2)
    with pytest.raises(InputError):
        check_forward(tmp_path, (height + 99, width + 99), 24, 1)


def test_an_image_too_long_for_its_own_size_is_refused(tiny_package):
    model = SegmentationModel(read_package(tiny_package, "image"), lambda images: images)
    with pytest.raises(InputError, match=r"in its own size, size=\(2, 16385\) must be .* fit it into less with size="):
        model(np.zeros((2, 16385, 3), np.uint8))


def test_sizes_come_back(tmp_path):
    config = PreprocessConfig((49, 65), "pad", padding_value=None)
    classes = Classes(("background", "a"), default_palette(2))
    for dynamic in (False, True):
        written = json.loads(json.dumps(inference_config.write(classes, config, dynamic_size=dynamic)))
        read = inference_config.read(tmp_path, written)
        assert read.preprocess == config
        assert read.any_size == dynamic


def test_lower_precision_is_calibrated_with_what_is_run(tiny_package):
    """Images in their own size, but for those of more pixels than the package's."""
    package, images = read_package(tiny_package), random_images((31, 83), (400, 200))
    options = exporter.Options(dynamic_size=True, precision="int8", calibration=images)
    small, large = exporter.network_inputs(package, options)
    assert small.shape == (1, 3, 31, 83)
    assert 0.95 * 49 * 65 < large[0, 0].size <= 49 * 65
    assert large.shape[2] / large.shape[3] == pytest.approx(2, rel=0.03)
    options = exporter.Options(precision="int8", calibration=images)
    assert {planes.shape for planes in exporter.network_inputs(package, options)} == {(1, 3, 49, 65)}


@pytest.mark.parametrize(("words", "size"), [((), None), (("--size", 33, 80), (33, 80)), (("--own-size",), "image")])
def test_the_commands_hand_the_size_on(monkeypatch, capsys, tiny_package, shapes_folder, tmp_path, words, size):
    """Wherever the option stands."""
    asked = []

    def refuse(package, **options):
        asked.append(options["size"])
        raise InputError("enough")

    monkeypatch.setattr(AutoModel, "from_pretrained", refuse)
    image = shapes_folder / "images/val/0.png"
    for command in (
        ("predict", tiny_package, *words, image, "--out", tmp_path / "out"),
        ("predict", tiny_package, image, image, "--out", tmp_path / "out", *words),
        ("evaluate", *words, tiny_package, "--data.root", shapes_folder),
    ):
        monkeypatch.setattr(sys, "argv", ["deeplab", *map(str, command)])
        assert commands.main() == 1
    assert asked == [size] * 3
    assert capsys.readouterr().err == "error: enough\n" * 3


def test_two_sizes_are_one_too_many(monkeypatch, capsys, shapes_folder, tmp_path):
    image = shapes_folder / "images/val/0.png"
    command = ("predict", "p", image, "--out", tmp_path / "out", "--size", 3, 4, "--own-size")
    monkeypatch.setattr(sys, "argv", ["deeplab", *map(str, command)])
    assert commands.main() == 1
    assert "--size and --own-size exclude each other" in capsys.readouterr().err
