"""The package folder: what it holds, what it refuses."""

import json
import shutil

import numpy as np
import pytest
from flax import nnx

from deeplab_jax import AutoModel
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.models import build_model
from deeplab_jax.models.state import to_arrays
from deeplab_jax.package import jax_weights
from deeplab_jax.package.folder import read_package, with_background
from deeplab_jax.package.inference_config import difference_from_shared
from helpers.fixtures import random_images


def test_a_data_set_without_background_gets_one(tiny_config, tiny_package, tmp_path):
    classes = with_background(Classes(("a", "b"), ((1, 2, 3), (4, 5, 6))))
    assert classes == Classes(("background", "a", "b"), ((0, 0, 0), (1, 2, 3), (4, 5, 6)))
    black = with_background(Classes(("a", "b"), default_palette(2)))  # which is background's color
    assert black.palette == ((0, 0, 0), (0, 128, 0), (128, 0, 0))
    model = jax_weights.load_model(tiny_package)
    names = tuple("abcde")
    jax_weights.save(tmp_path / "p", model, Classes(names, ((9, 9, 9),) * 5), PreprocessConfig(size=(49, 65)))
    actual = AutoModel.from_pretrained(tmp_path / "p")
    image = random_images((49, 65))[0]
    expected = AutoModel.from_pretrained(tiny_package)(image, confidence=0.0)[0]
    assert actual.class_names == ["background", *names]
    np.testing.assert_array_equal(actual(image, confidence=0.0)[0].segmentation_map, expected.segmentation_map + 1)


def test_fitting_that_the_shared_api_has_no_words_for(tiny_package, tmp_path):
    config = PreprocessConfig((49, 65), "pad", padding_value=127.5)
    classes = read_package(tiny_package).classes
    jax_weights.save(tmp_path / "p", jax_weights.load_model(tiny_package), classes, config)
    assert read_package(tmp_path / "p").preprocess == config
    written = json.loads((tmp_path / "p" / "inference_config.json").read_text())["network_input"]
    assert (written["resize_mode"], written["padding_value"]) == ("letterbox", 127)  # the nearest that others can do
    usual = json.loads((tiny_package / "inference_config.json").read_text())["network_input"]
    assert "exact" not in usual
    stated = "clients of the shared API fit images by letterbox on gray 127, AutoModel by pad on (128, 128, 128)"
    assert stated in str(difference_from_shared(config))
    fits = (PreprocessConfig(), PreprocessConfig(resize_mode="stretch", padding_value=None))
    assert [difference_from_shared(each) for each in (*fits, PreprocessConfig(resize_mode="center-crop"))] == [None] * 3
    assert "letterbox on (124, 116, 104)" in str(difference_from_shared(PreprocessConfig(padding_value=None)))


def test_weights_come_back_bit_by_bit(tiny_package):
    from safetensors.numpy import load_file

    saved = load_file(tiny_package / "weights.safetensors")
    loaded = to_arrays(jax_weights.load_model(tiny_package))
    assert saved.keys() == loaded.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(array, loaded[name])


def test_whoever_may_read_one_file_may_read_all(package):
    assert len({file.stat().st_mode for file in package.iterdir()}) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \n\n\t"])
def test_a_name_ends_with_its_line_alone(onnx_package, tmp_path, end):
    """Were one name taken for two, a model without a logit for the background would fit, and all ids be wrong."""
    copy, names = (
        shutil.copytree(onnx_package, tmp_path / "copy"),
        ("background", "a\u2028b", "c\x85", "d\x0ce", "f\x1cg"),
    )
    (copy / "class_names.txt").write_text("\ufeff" + end.join(names) + end, "utf-8", newline="")
    assert read_package(copy).classes.names == ("background", "a\u2028b", "c", "d\x0ce", "f\x1cg")


@pytest.mark.parametrize("name", ["model_config.json", "class_names.txt", "inference_config.json", "weights"])
def test_a_missing_file_is_named(package, tmp_path, name):
    copy = shutil.copytree(package, tmp_path / "copy")
    path = next(path for path in copy.iterdir() if path.name.startswith(name))
    path.unlink()
    with pytest.raises(InputError, match=path.name) as error:
        AutoModel.from_pretrained(copy)
    assert "missing" in str(error.value)


def broken(package, tmp_path, file, change):
    copy = shutil.copytree(package, tmp_path / "copy")
    config = json.loads((copy / file).read_text())
    change(config)
    (copy / file).write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_config.json", lambda c: c.update(backend_type="coreml"), "backend_type 'coreml' cannot be run"),
        ("model_config.json", lambda c: c.pop("backend_type"), "the key 'backend_type' is missing"),
        ("inference_config.json", lambda c: c.pop("network_input"), "the key 'network_input' is missing"),
        ("inference_config.json", lambda c: c["network_input"].update(resize_mode="tile"), "must be one of"),
        ("inference_config.json", lambda c: c["network_input"].update(color_mode="hsv"), "color_mode: must be one of"),
        ("inference_config.json", lambda c: c["network_input"]["training_input_size"].update(width="w"), "type int"),
        ("inference_config.json", lambda c: c["palette"].pop(), "palette has 4 colors for 5 classes"),
        (
            "inference_config.json",
            lambda c: c["network_input"].update(normalization=[[0, 0], [1, 1]]),
            "two lists of 3 values",
        ),
        (
            "inference_config.json",
            lambda c: (
                c["network_input"]["normalization"].reverse()
                or c["network_input"]["normalization"].__setitem__(1, [0, 1, 1])
            ),
            "must be positive",
        ),
        ("inference_config.json", lambda c: c.update(forward_pass=[8]), "forward_pass: must be of type dict"),
        ("inference_config.json", lambda c: c["forward_pass"].update(max_dynamic_batch_size=-1), "must be at least 1"),
        (
            "inference_config.json",
            lambda c: c.update(post_processing="softmax"),
            "post_processing: must be of type dict",
        ),
        ("inference_config.json", lambda c: c.update(image_pre_processing=["x"]), "must be of type dict"),
        ("inference_config.json", lambda c: c["palette"].__setitem__(0, [999, 0, 0]), "must hold values from 0 to 255"),
        (
            "inference_config.json",
            lambda c: c["network_input"]["normalization"][0].__setitem__(0, float("nan")),
            "finite",
        ),
        ("inference_config.json", lambda c: c["post_processing"].update(fused=True), "must be an unfused softmax"),
        (
            "inference_config.json",
            lambda c: c.update(image_pre_processing={"contrast": {"enabled": True, "type": "Vivid"}}),
            "contrast type: must be one of",
        ),
    ],
)
def test_wrong_values_are_named(tiny_package, tmp_path, file, change, message):
    with pytest.raises(InputError, match=message) as error:
        read_package(broken(tiny_package, tmp_path, file, change))
    assert file in str(error.value)


def test_a_graph_of_another_size_is_refused(onnx_package, tmp_path):
    change = lambda c: c["network_input"]["training_input_size"].update(width=64)  # noqa: E731
    copy = broken(onnx_package, tmp_path, "inference_config.json", change)
    with pytest.raises(InputError, match=r"takes images of \[49, 65\], but inference_config.json says \(49, 64\)"):
        AutoModel.from_pretrained(copy)


def test_what_no_package_can_hold_is_refused(tiny_config, tmp_path):
    from dataclasses import replace

    four = replace(tiny_config, encoder=replace(tiny_config.encoder, in_channels=4))
    single = replace(tiny_config, num_classes=1)
    classes = Classes(tuple("abcde"), ((0, 0, 0),) * 5)
    for config, named, message in [
        (four, classes, "takes RGB images, but this model takes 4 channels"),
        (tiny_config, Classes(("a",), ((0, 0, 0),)), "there are 1 class names but the model has 5 classes"),
        (single, Classes(("background",), ((0, 0, 0),)), "`background` alone makes no package"),
    ]:
        model = build_model(config, rngs=nnx.Rngs(0))
        with pytest.raises(InputError, match=message):
            jax_weights.save(tmp_path / "p", model, named, PreprocessConfig())
        assert not (tmp_path / "p").exists()


def test_weights_of_another_architecture_are_refused(tiny_package, tmp_path):
    copy = broken(tiny_package, tmp_path, "architecture.json", lambda c: c.update(num_classes=4))
    with pytest.raises(InputError, match=r"weights.safetensors: the weights do not fit the model .* 4 misshapen"):
        AutoModel.from_pretrained(copy)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff" * 64])
def test_damaged_weights_are_refused(package, tmp_path, content):
    copy = shutil.copytree(package, tmp_path / "copy")
    path = next(path for path in copy.iterdir() if path.name.startswith("weights"))
    path.write_bytes(content)
    with pytest.raises(InputError, match=path.name):
        AutoModel.from_pretrained(copy)


def test_messages_quote_no_more_than_a_line(tmp_path):
    for name in ("a\nb", "a" * 100_000):
        with pytest.raises(InputError, match="the package") as error:
            AutoModel.from_pretrained(name)
        assert len(str(error.value).splitlines()) == 1
        assert len(str(error.value)) < 2100
