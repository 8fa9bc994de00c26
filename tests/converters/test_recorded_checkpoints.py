"""Whole checkpoints, as scripts leave them: converted without an option they give PyTorch's map."""

import argparse
import sys
import types
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest

from converters import smp, timm
from converters.convert import Options, convert
from converters.readers.torch_files import read_torch
from converters.recorded import Report, settings_in
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.errors import InputError
from deeplab_jax.inference.auto_model import AutoModel
from deeplab_jax.models import presets
from deeplab_jax.package import jax_weights
from helpers.fixtures import randomize_torch

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
MEAN, STD, RATES = (0.55, 0.3, 0.45), (0.15, 0.35, 0.2), (2, 5, 3)


other = pytest.importorskip("segmentation_models_pytorch")
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
    jax_weights.save(tmp_path / "p", converted.model, Classes(("background", "b", "c"), default_palette(3)), preprocess)
    result = AutoModel.from_pretrained(tmp_path / "p")(image, input_color_format="rgb", confidence=0.0)[0]
    assert np.mean(result.segmentation_map.numpy() == expected) >= 0.9999

    usual = replace(converted.preprocess, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=image.shape[:2])
    config = presets.smp_deeplabv3plus("resnet18", 3, decoder_channels=16)
    model = smp.from_state_dict(weights, config)
    jax_weights.save(tmp_path / "q", model, Classes(("background", "b", "c"), default_palette(3)), usual)
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
