"""What a file says of its model: found wherever scripts keep it, never mistaken for something else, never silently."""

import argparse
import json
import sys
import types
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters import smp, timm, torchvision
from converters.convert import Options, convert
from converters.normalization import recorded_normalization
from converters.readers.torch_files import read_torch
from converters.recorded import MAX_SETTINGS, Report, settings_in
from converters.smp_settings import model_config
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.errors import InputError
from deeplab_jax.inference.auto_model import AutoModel
from deeplab_jax.inference.backends import jax_backend
from deeplab_jax.models import presets
from helpers.fixtures import randomize_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
other = pytest.importorskip("segmentation_models_pytorch")

MEAN, STD, RATES = (0.55, 0.3, 0.45), (0.15, 0.35, 0.2), (2, 5, 3)
ARGUMENTS = {"encoder_name": "resnet18", "encoder_output_stride": 8, "decoder_atrous_rates": list(RATES)}


@pytest.fixture(scope="module")
def unusual():
    """A model with none of smp's defaults, and what it answers to an image that is normalized as it wants."""
    torch.manual_seed(0)
    build = {**ARGUMENTS, "encoder_weights": None, "decoder_channels": 16, "classes": 3}
    model = randomize_torch(other.DeepLabV3Plus(**build))
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    images = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        head = model.segmentation_head[0]
        head.bias -= model((images - mean) / std).mean((0, 2, 3))  # so that every class is somewhere
        expected = model((images - mean) / std)[0].argmax(0).numpy()
    assert len(np.unique(expected)) == 3
    return model.state_dict(), image, expected


def in_lightning(weights):
    """As `save_hyperparameters()` and `register_buffer` leave it."""
    buffers = {name: torch.tensor(values).view(1, 3, 1, 1) for name, values in (("std", STD), ("mean", MEAN))}
    state_dict = {**{f"model.{name}": tensor for name, tensor in weights.items()}, **buffers}
    stated = {"arch": "DeepLabV3Plus", "in_channels": 3, "out_classes": 3, **ARGUMENTS, "lr": 0.1}
    return {"epoch": 1, "state_dict": state_dict, "hparams_name": "kwargs", "hyper_parameters": stated}


def in_arguments(weights):
    """As argparse and `torch.save({"args": args, ...})` leave it, under other names."""
    stated = {
        "backbone": "resnet18",
        "output_stride": 8,
        "atrous_rates": "2,5,3",
        "pixel_mean": [v * 255 for v in MEAN],
    }
    stated |= {"pixel_std": [v * 255 for v in STD], "classes": ["a", "b", "c"], "activation": None}
    return {"model": weights, "args": argparse.Namespace(**stated), "best_miou": 0.5}


def in_config(weights):
    """As a YAML file of experiments has it."""
    model = {"encoder": {"name": "resnet18", "output_stride": 8}, "decoder": {"atrous_rates": list(RATES)}}
    transforms = [{"resize": 256}, {"normalize": {"mean": list(MEAN), "std": list(STD), "max_pixel_value": 255.0}}]
    return {"state_dict": weights, "config": {"model": model, "data": {"transforms": transforms}}}


@pytest.mark.parametrize(
    "keep", [in_lightning, *(pytest.param(keep, marks=pytest.mark.slow) for keep in (in_arguments, in_config))]
)
def test_what_is_recorded_gives_pytorchs_map_without_an_option(unusual, tmp_path, keep):
    weights, image, expected = unusual
    torch.save(keep(weights), tmp_path / "w.ckpt")
    converted = convert("smp", tmp_path / "w.ckpt", Options())
    assert converted.model.config == presets.smp_deeplabv3plus(
        "resnet18", 3, 8, decoder_channels=16, decoder_atrous_rates=RATES
    )
    assert converted.report.assumed == converted.report.notes == []
    np.testing.assert_allclose(converted.preprocess.mean, MEAN, rtol=1e-7)

    preprocess = replace(converted.preprocess, size=image.shape[:2])
    jax_backend.save(tmp_path / "p", converted.model, Classes(("background", "b", "c"), default_palette(3)), preprocess)
    result = AutoModel.from_pretrained(tmp_path / "p")(image, input_color_format="rgb", confidence=0.0)[0]
    assert np.mean(result.segmentation_map.numpy() == expected) >= 0.9999

    usual = replace(converted.preprocess, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=image.shape[:2])
    config = presets.smp_deeplabv3plus("resnet18", 3, decoder_channels=16)
    model = smp.from_state_dict(weights, config)
    jax_backend.save(tmp_path / "q", model, Classes(("background", "b", "c"), default_palette(3)), usual)
    result = AutoModel.from_pretrained(tmp_path / "q")(image, input_color_format="rgb", confidence=0.0)[0]
    assert np.mean(result.segmentation_map.numpy() == expected) < 0.99  # so that the comparison above could fail


def test_every_value_is_said_with_its_place_and_options_win(unusual, tmp_path):
    torch.save(in_lightning(unusual[0]), tmp_path / "w.ckpt")
    lines = convert("smp", tmp_path / "w.ckpt", Options()).summary()
    assert lines[1] == (
        "recorded: encoder from hyper_parameters.encoder_name; output stride 8 from hyper_parameters.encoder_output_"
        "stride; atrous rates 2, 5, 3 from hyper_parameters.decoder_atrous_rates; mean 0.55, 0.3, 0.45 and std 0.15, "
        "0.35, 0.2 from state_dict.mean and state_dict.std"
    )
    assert len(lines) == 2
    given = Options(encoder="resnet18", output_stride=16, atrous_rates=(12, 24, 36), mean=(0.1, 0.2, 0.3), std=STD)
    converted = convert("smp", tmp_path / "w.ckpt", given)
    assert converted.model.config == presets.smp_deeplabv3plus("resnet18", 3, decoder_channels=16)
    assert (converted.preprocess.mean, converted.preprocess.std) == ((0.1, 0.2, 0.3), STD)
    assert converted.summary()[1:] == [
        "--output-stride overrides hyper_parameters.encoder_output_stride, 8",
        "--atrous-rates overrides hyper_parameters.decoder_atrous_rates, 2, 5, 3",
        "--mean and --std override state_dict.mean and state_dict.std, 0.55, 0.3, 0.45 and 0.15, 0.35, 0.2",
        "left aside: std, mean",
    ]


@pytest.fixture(scope="module")
def weights(v3plus):
    return v3plus.state_dict()


def decided(weights, content, **given):
    report = Report()
    options = {"encoder": None, "output_stride": None, "atrous_rates": None} | given
    return model_config(weights, settings_in(content), *options.values(), report), report


NAMES = {
    "upper case": {"MODEL": {"BACKBONE": "mobilenet_v2", "OUTPUT_STRIDE": 8, "ASPP_RATES": [2, 5, 3]}},
    "an older name": {"hparams": {"encoder": "mobilenet_v2", "output_stride": 8, "atrous_rates": (2, 5, 3)}},
    "text": {"args": {"encoder_name": "MobileNetV2", "output_stride": "8", "atrous_rates": "[2, 5, 3]"}},
    "numpy": {"args": {"output_stride": np.array(8), "atrous_rates": np.array([2, 5, 3])}},
    "flat": {"config": {"model.encoder.output_stride": 8.0, "model.decoder.atrous_rates": [2, 5, 3]}},
    "JSON in a text": {"config": json.dumps({"init_args": {"output_stride": 8, "atrous_rates": [2, 5, 3]}})},
    "a list": {"stages": [{"lr": 1}, {"model_kwargs": {"output_stride": 8, "aspp_dilations": [2, 5, 3]}}]},
    "twice the same": {"args": {"output_stride": 8}, "cfg": {"output_stride": 8, "atrous_rates": [2, 5, 3]}},
    "none beside": {"args": {"output_stride": None}, "cfg": {"output_stride": 8, "atrous_rates": [2, 5, 3]}},
}


@pytest.mark.parametrize("how", NAMES)
def test_names_and_forms_that_arguments_are_kept_in(weights, how):
    config, report = decided(weights, NAMES[how])
    assert (config.encoder.output_stride, config.aspp.atrous_rates) == (8, (2, 5, 3))
    assert report.notes == []
    assert len(report.taken) == 2 + ("ackbone" in str(NAMES[how]).lower() or "mobilenet" in str(NAMES[how]).lower())


REFUSED = {
    r"args.output_stride is 8, but config.output_stride is 16; give --output-stride to say which is right": {
        "args": {"output_stride": 8},
        "config": {"output_stride": 16},
    },
    r"teacher.atrous_rates is 1, 2, 3, but student.atrous_rates is 4, 5, 6; give --atrous-rates": {
        "teacher": {"atrous_rates": [1, 2, 3]},
        "student": {"atrous_rates": [4, 5, 6]},
    },
    r"args.output_stride is 4, but must be 8 or 16; give --output-stride": {"args": {"output_stride": 4}},
    r"args.output_stride is '\$\{stride\}', but must be 8 or 16": {"args": {"output_stride": "${stride}"}},
    r"args.atrous_rates is \[6, 12\], but must be 3 whole numbers": {"args": {"atrous_rates": [6, 12]}},
    r"args.encoder_name is 'tu-mobilenetv2_050', but the weights have .* of mobilenet_v2; .* give --encoder": {
        "args": {"encoder_name": "tu-mobilenetv2_050"}
    },
    r"kwargs.encoder_depth 4 is not supported; only 5 is. If .* save model.state_dict\(\) alone": {
        "kwargs": {"encoder_name": "mobilenet_v2", "encoder_depth": 4}
    },
    r"kwargs.upsampling 8 is not supported; only 4 is": {"kwargs": {"encoder_name": "mobilenet_v2", "upsampling": 8}},
    r"kwargs.act_layer 'silu' is not supported": {"kwargs": {"encoder_name": "mobilenet_v2", "act_layer": "silu"}},
}


@pytest.mark.parametrize("message", REFUSED)
def test_contradictions_and_what_no_model_of_ours_can_do_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        decided(weights, REFUSED[message])


def test_an_option_settles_what_is_recorded_twice_or_wrongly(weights):
    content = {"args": {"output_stride": 8, "encoder_name": "x"}, "config": {"output_stride": 4}}
    config, report = decided(weights, content, output_stride=16, encoder="mobilenet_v2")
    assert config.encoder.output_stride == 16
    assert len(report.notes) == 3


def test_shapes_win_and_what_they_win_over_is_said(weights):
    stated = {"encoder_output_stride": 8, "encoder": "resnet", "classes": 3, "in_channels": 3, "activation": "sigmoid"}
    stated |= {"upsampling": "bilinear", "encoder_depth": "5", "decoder_channels": 16.0}
    config, report = decided(weights, {"args": stated})
    assert (config.num_classes, config.encoder.output_stride) == (4, 8)
    assert report.notes == [
        "not used: args.encoder is 'resnet', but the weights have the names and shapes of mobilenet_v2",
        "not used: args.classes is 3, but the weights have 4",
        "not used: args.activation is 'sigmoid' (packages take logits)",
    ]


def test_names_that_much_could_have_are_left_alone(weights):
    """They are of a model only among its own arguments."""
    content = {
        "args": {"upsampling": 2, "activation": "gelu", "classes": 7, "encoder_depth": 4, "model": "DeepLabV3Plus"},
        "optimizer": {"param_groups": [{"lr": 0.1, "encoder": 3}]},
        "metrics": {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.1, 0.1]},
        "iou_per_class": {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.1, 0.1)},
    }
    content["optimizer"]["param_groups"][0].pop("encoder")
    config, report = decided(weights, content)
    assert config == presets.smp_deeplabv3plus("mobilenet_v2", 4, decoder_channels=16)
    assert (report.taken, report.notes) == ([], [])
    assert recorded_normalization(settings_in(content), report, None, None) is None
    assert report.notes == []


def normalization(content, mean=None, std=None):
    report = Report()
    return recorded_normalization(settings_in(content), report, mean, std), report


BUFFER = np.array([0.485, 0.456, 0.406], np.float32)
NORMALIZED = {
    "buffers": {"state_dict": {"pixel_mean": BUFFER.reshape(3, 1, 1), "pixel_std": BUFFER.reshape(3, 1, 1) / 2}},
    "buffers of a layer": {"0._mean": BUFFER, "0._std": BUFFER / 2, "1.weight": np.zeros((3, 3))},
    "0 to 255": {"args": {"mean": [123.675, 116.28, 103.53], "std": [61.8375, 58.14, 51.765]}},
    "text": {"args": {"mean": "0.485, 0.456, 0.406", "std": "(0.2425,0.228,0.203)"}},
    "of smp": {
        "preprocessing": {
            "input_space": "RGB",
            "input_range": [0, 1],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.2425, 0.228, 0.203],
        }
    },
    "nested": {"cfg": {"mean": [[[0.485]], [[0.456]], [[0.406]]], "std": [[[0.2425]], [[0.228]], [[0.203]]]}},
    "of 0 to 1": {
        "normalize": {
            "mean": [0.485 * 255, 0.456 * 255, 0.406 * 255],
            "std": [0.2425 * 255, 0.228 * 255, 0.203 * 255],
            "max_pixel_value": 1.0,
        }
    },
    "in several places": {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.2425, 0.228, 0.203],
        "args": {"norm_mean": (123.675, 116.28, 103.53), "norm_std": (61.8375, 58.14, 51.765)},
    },
}


@pytest.mark.parametrize("how", NORMALIZED)
def test_forms_of_normalization(how):
    actual, report = normalization(NORMALIZED[how])
    np.testing.assert_allclose(actual.mean, (0.485, 0.456, 0.406), rtol=1e-6)
    np.testing.assert_allclose(actual.std, (0.2425, 0.228, 0.203), rtol=1e-6)
    assert not actual.bgr
    assert len(report.taken) == 1
    assert ("divided by 255" in report.taken[0]) == (how in ("0 to 255", "of 0 to 1"))
    assert report.notes == []


def test_a_buffer_is_the_number_that_was_written():
    actual, _ = normalization({"mean": BUFFER, "std": BUFFER})
    assert actual.mean == (0.485, 0.456, 0.406)


def test_caffes_normalization_and_that_of_plain_levels():
    actual, _ = normalization({"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "input_space": "BGR"})
    assert actual.bgr
    np.testing.assert_allclose(actual.mean, np.array([103.53, 116.28, 123.675]) / 255)
    np.testing.assert_allclose(actual.std, np.full(3, 1 / 255))
    actual, _ = normalization({"mean": (0, 0, 0), "std": (255, 255, 255)})
    assert (actual.mean, actual.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    "content",
    [
        {"mean": 0.5, "std": 0.5},
        {"mean": [0.5, 0.4, 0.3]},
        {"mean": [0.5, 0.4, 0.3], "pixel_std": [0.2, 0.2, 0.2]},
        {"mean": [0.5] * 4, "std": [0.2] * 4},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.0, 0.2]},
        {"mean": [0.5, 0.4, -0.3], "std": [0.2, 0.2, 0.2]},
        {"mean": [500.0, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, float("nan"), 0.2]},
        {"mean": [True, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "normalization": "image"},
    ],
)
def test_what_cannot_be_a_normalization_is_not_used_and_said(content):
    actual, report = normalization({"args": content})
    assert actual is None
    assert report.taken == []
    assert all(note.startswith("not used: args.mean is ") or "std is" in note for note in report.notes)
    assert report.notes


@pytest.mark.parametrize("path", ["dice", "f1.val", "val", "cross_validation", "per_class", "precision"])
def test_mean_and_std_of_something_else_are_not_used_and_said(path):
    content = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.1, 0.1]}
    for key in reversed(path.split(".")):
        content = {key: content}
    actual, report = normalization(content)
    assert actual is None
    assert report.taken == []
    assert report.notes == [
        f"not used: {path}.mean is 0.5, 0.4, 0.3 and {path}.std is 0.1, 0.1, 0.1, which nothing there calls a pair of "
        "mean and std for three channels of images"
    ]


def test_names_are_known_however_they_are_spelled():
    for stated in (
        {"encoderName": "resnet18", "outputStride": 8, "atrousRates": [2, 5, 3], "pixelMean": MEAN},
        {"encoder-name": "resnet18", "output-stride": 8, "atrous-rates": [2, 5, 3], "pixel-mean": MEAN},
        {"ENCODER_NAME": "resnet18", "OUT_STRIDE": 8, "ASPP_DILATE": [2, 5, 3], "PIXEL_MEAN": MEAN},
    ):
        names = {setting.name for setting in settings_in(stated)}
        assert names == {"encoder_name", "encoder_output_stride", "decoder_atrous_rates", "mean"}


def test_a_name_that_may_mean_much_is_said(weights, tmp_path):
    torch.save({"state_dict": weights, "args": {"encoder": "mobilenet_v2", "os": 8}}, tmp_path / "w.pth")
    hint = "if that is output stride or atrous rates, give --output-stride, --atrous-rates"
    assert convert("smp", tmp_path / "w.pth", Options()).report.notes == [f"not used: args.os is 8; {hint}"]


def test_two_normalizations_are_refused_unless_options_settle_it():
    content = {"state_dict": {"mean": BUFFER, "std": BUFFER}, "args": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    with pytest.raises(
        InputError, match=r"state_dict.mean and state_dict.std say .* but args.mean and .* give --mean and --std"
    ):
        normalization(content)
    actual, report = normalization(content, MEAN, STD)
    assert actual is None
    assert len(report.notes) == 2
    alone, report = normalization({"args": content["args"]}, mean=MEAN)
    assert alone.std == (0.5, 0.5, 0.5)
    assert report.taken == ["std 0.5, 0.5, 0.5 from args.std"]
    assert report.notes == ["--mean overrides args.mean, 0.5, 0.5, 0.5"]


def test_blue_green_red_comes_into_the_package_with_options_in_red_green_blue(weights, tmp_path):
    stated = {"input_space": "BGR", "input_range": [0, 255], "mean": [102.0, 127.5, 153.0], "std": [51.0, 51.0, 51.0]}
    torch.save({"state_dict": weights, "preprocessing": stated}, tmp_path / "w.pth")
    preprocess = convert("smp", tmp_path / "w.pth", Options()).preprocess
    assert preprocess.color_mode == "bgr"
    np.testing.assert_allclose(preprocess.mean, (0.4, 0.5, 0.6))
    preprocess = convert("smp", tmp_path / "w.pth", Options(mean=(0.1, 0.2, 0.3))).preprocess
    assert (preprocess.color_mode, preprocess.mean) == ("bgr", (0.3, 0.2, 0.1))


def test_buffers_are_no_part_of_the_model_wherever_they_stand(weights, tmp_path):
    buffers = {"preprocess.image_mean": torch.tensor(MEAN), "preprocess.image_std": torch.tensor(STD).view(3, 1, 1)}
    for name, tensors in {
        "inside": {**weights, **buffers},
        "in a sequence": {f"1.{n}": t for n, t in weights.items()} | {f"0.{n}": t for n, t in buffers.items()},
    }.items():
        torch.save(tensors, tmp_path / "w.pth")
        converted = convert("smp", tmp_path / "w.pth", Options())
        assert (converted.preprocess.mean, converted.beside) == (MEAN, []), name


def test_json_beside_the_weights_and_texts_in_safetensors(weights, tmp_path):
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    save_file(arrays, tmp_path / "w.safetensors", {"config": json.dumps({"output_stride": 8}), "format": "pt"})
    converted = convert("smp", tmp_path / "w.safetensors", Options())
    assert converted.model.config.encoder.output_stride == 8
    assert converted.report.taken == ["output stride 8 from metadata: config.output_stride"]

    folder = tmp_path / "saved"
    folder.mkdir()
    save_file(arrays, folder / "model.safetensors")
    normalize = {"__class_fullname__": "Normalize", "mean": MEAN, "std": STD, "max_pixel_value": 255.0}
    transform = {"transform": {"transforms": [{"height": 256}, normalize | {"normalization": "standard"}]}}
    (folder / "albumentations_config_eval.json").write_text(json.dumps(transform))
    stated = {
        "encoder_name": "mobilenet_v2",
        "encoder_output_stride": 8,
        "aux_params": {"classes": 9, "activation": "x"},
    }
    (folder / "config.json").write_text(json.dumps(stated))
    converted = convert("smp", folder, Options())
    assert converted.report.notes == []
    assert (converted.preprocess.mean, converted.preprocess.std) == (MEAN, STD)
    assert converted.report.assumed == ["atrous rates (--atrous-rates)"]


def test_torchvision_takes_a_recorded_normalization_and_no_other_stride():
    config = presets.torchvision_deeplabv3("resnet50", 2, False)
    torchvision.check_settings(config, settings_in({"args": {"output_stride": 8, "model": "deeplabv3_resnet50"}}))
    for stated in ({"output_stride": 16}, {"atrous_rates": [6, 12, 18]}):
        with pytest.raises(InputError, match=r"but torchvision's models have .*, and others cannot be converted"):
            torchvision.check_settings(config, settings_in({"args": stated}))


def test_a_checkpoint_of_timm_says_its_network_and_normalization(tmp_path):
    classifier = pytest.importorskip("torchvision.models").resnet18(weights=None)
    stated = argparse.Namespace(model="resnet18", mean=MEAN, std=STD, img_size=None)
    saved = {"epoch": 3, "arch": "resnet18", "state_dict": classifier.state_dict(), "args": stated}
    torch.save(saved, tmp_path / "w.pth.tar")
    converted = convert("timm", tmp_path / "w.pth.tar", Options(classes=2))
    assert (converted.preprocess.mean, converted.preprocess.std, converted.report.assumed) == (MEAN, STD, [])
    torch.save({**saved, "arch": "resnetblur18", "args": {"model": "resnetblur18"}}, tmp_path / "w.pth.tar")
    with pytest.raises(InputError, match=r"arch is 'resnetblur18', but the weights have .* of tu-resnet18; if"):
        convert("timm", tmp_path / "w.pth.tar", Options())
    report = Report()
    settings = [setting for setting in settings_in({"arch": "resnetblur18"}) if setting.name == "architecture"]
    assert timm.choose_encoder(pytest.fail, settings, "tu-resnet18", report) == "tu-resnet18"
    assert report.notes == ["--encoder overrides arch, 'resnetblur18'"]


class EasyDict(dict):
    """Stands in for a class of a library that is not needed to read what it keeps."""


EasyDict.__module__ = "easydict"


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_objects_that_keep_settings_are_read_as_data(tmp_path, monkeypatch, zipped, protocol):
    module = types.ModuleType("easydict")
    module.EasyDict = EasyDict
    monkeypatch.setitem(sys.modules, "easydict", module)
    plain = {"encoder_name": "resnet18", "rates": (1, 2), "nothing": None, "yes": True, "mean": [0.5, 0.25]}
    value = {
        "namespaces": argparse.Namespace(a=1, inner=argparse.Namespace(**plain)),
        "simple": types.SimpleNamespace(**plain),
        "attributes": EasyDict(plain),
        "ordered": OrderedDict(plain),
        "numbers": [np.float64(0.1), np.float32(0.25), np.int64(3), np.bool_(True)],
        "array": np.array([0.1, 0.2, 0.3]),
        "matrix": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    }
    torch.save(value, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    actual = read_torch(tmp_path / "c.pth")
    assert actual["namespaces"] == {"a": 1, "inner": plain}
    assert actual["simple"] == actual["attributes"] == actual["ordered"] == plain
    assert actual["numbers"] == [0.1, 0.25, 3, True]
    assert [type(number) for number in actual["numbers"]] == [float, float, int, bool]
    np.testing.assert_array_equal(actual["array"], value["array"])
    np.testing.assert_array_equal(actual["matrix"], value["matrix"])


def test_settings_are_bounded():
    deep: dict = {"output_stride": 8}
    for _ in range(60):
        deep = {"a": deep}
    assert settings_in(deep) == ()
    assert settings_in({"x" * 101: {"output_stride": 8}, 3: {"output_stride": 8}}) == ()
    with pytest.raises(InputError, match="records over 1000 settings"):
        settings_in({str(number): {"output_stride": 8} for number in range(MAX_SETTINGS + 1)})
    assert settings_in({"epochs": [{"output_stride": 8}] * 65}) == ()
    (setting,) = settings_in({"a\nb": {"output_stride": "8" * 10_000}})
    assert len(setting.says) < 200
    assert "\n" not in setting.says
    assert settings_in({"config": "{" * 50_000, "args": '{"output_stride": ' + "[" * 50_000}) == ()
