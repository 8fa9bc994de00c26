"""What a file says of its model: found wherever scripts keep it, never mistaken for something else, never silently."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters import torchvision
from converters.convert import Options, convert
from converters.normalization import recorded_normalization
from converters.recorded import MAX_SETTINGS, Report, settings_in
from converters.smp_settings import model_config
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")

MEAN, STD = (0.55, 0.3, 0.45), (0.15, 0.35, 0.2)


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
