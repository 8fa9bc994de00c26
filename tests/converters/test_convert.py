"""`converters.convert`: what is inferred, and what must be refused."""

import json
import re
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters import smp, timm
from converters.convert import Options, convert
from converters.verify import verify
from deeplab_jax.cli import commands
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets
from helpers.fixtures import blank_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
other = pytest.importorskip("segmentation_models_pytorch")


def arrays(state_dict):
    return {name: tensor.numpy() for name, tensor in state_dict.items()}


@pytest.mark.parametrize("safe", [True, False])
def test_folder_of_save_pretrained_says_what_weights_cannot(tmp_path, safe):
    model = other.DeepLabV3Plus(
        "resnet18", encoder_weights=None, encoder_output_stride=8, classes=2, decoder_atrous_rates=(3, 6, 9)
    )
    model.save_pretrained(tmp_path / "saved")
    if not safe:  # as older releases wrote it
        (tmp_path / "saved" / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "saved" / "pytorch_model.bin")
    converted = convert("smp", tmp_path / "saved", Options())
    assert converted.model.config == presets.smp_deeplabv3plus("resnet18", 2, 8, decoder_atrous_rates=(3, 6, 9))
    assert converted.report.assumed == ["mean (--mean)", "std (--std)"]

    settings = json.loads((tmp_path / "saved" / "config.json").read_text())
    (tmp_path / "saved" / "config.json").write_text(json.dumps({**settings, "activation": "softmax2d"}))
    (note,) = convert("smp", tmp_path / "saved", Options()).report.notes
    assert note == "not used: config.json: activation is 'softmax2d' (packages take logits)"
    wrong = {
        "upsampling": 8,
        "encoder_depth": 4,
        "decoder_atrous_rates": [],
        "encoder_output_stride": 0,
        "encoder_name": "",
        "classes": 7,
        "decoder_channels": 16,
        "_model_class": "Unet",
        "act_layer": "silu",
    }
    for name, value in wrong.items():
        (tmp_path / "saved" / "config.json").write_text(json.dumps({**settings, name: value}))
        with pytest.raises(
            InputError,
            match=rf"config.json: {name} (is )?{re.escape(repr(value))}",
        ):
            convert("smp", tmp_path / "saved", Options())


def test_folders_of_timms_encoders_and_of_subclasses(tmp_path):
    class Net(other.DeepLabV3Plus):
        pass

    Net("tu-resnet18.a1_in1k", encoder_weights=None, classes=2).save_pretrained(tmp_path / "saved")
    converted = convert("smp", tmp_path / "saved", Options())
    assert converted.model.config == presets.smp_deeplabv3plus("tu-resnet18", 2)


@pytest.mark.slow
def test_a_folder_of_timm_says_which_network_it_is(tmp_path):
    """resnetaa50 has the tensors of resnet50 and computes something else."""
    classifier = pytest.importorskip("torchvision.models").resnet18(weights=None)
    save_file(arrays(classifier.state_dict()), tmp_path / "model.safetensors")
    stated = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    converted = convert("timm", tmp_path, Options())
    assert (converted.preprocess.mean, converted.preprocess.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert converted.report.assumed == []
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetblur18"}))
    with pytest.raises(InputError, match=r"architecture is 'resnetblur18', but the weights have .* of tu-resnet18; if"):
        convert("timm", tmp_path, Options())


def test_names_of_older_releases(v3, tmp_path):
    old = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1.", "decoder.bn.": "decoder.2."}

    def rename(name):
        return next((o + name.removeprefix(n) for n, o in old.items() if name.startswith(n)), name)

    torch.save({rename(name): tensor for name, tensor in v3.state_dict().items()}, tmp_path / "old.pth")
    converted = convert("smp", tmp_path / "old.pth", Options())
    assert converted.model.config == presets.smp_deeplabv3("resnet18", 4, decoder_channels=16)


@pytest.mark.slow
def test_imagenet_encoder(tmp_path):
    classifier = pytest.importorskip("torchvision.models").resnet18(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    converted = convert("timm", tmp_path / "resnet18.pth", Options(architecture="DeepLabV3", classes=3))
    assert converted.model.config == presets.smp_deeplabv3("tu-resnet18", 3, 16)
    assert converted.beside == ["fc.weight", "fc.bias"]
    assert all(
        np.array_equal(array, classifier.state_dict()[name].numpy())
        for name, array in timm.encoder_state_dict(converted.model).items()
    )
    assert verify("timm", tmp_path / "resnet18.pth", converted).equal

    classifier.fc = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(512, 7))  # as fine-tuning leaves it
    torch.save(classifier.state_dict(), tmp_path / "tuned.pth")
    converted = convert("timm", tmp_path / "tuned.pth", Options(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    assert converted.beside == ["fc.1.weight", "fc.1.bias"]
    assert (converted.preprocess.mean, converted.preprocess.std) == ((0, 0, 0), (1, 1, 1))
    assert verify("timm", tmp_path / "tuned.pth", converted).equal


@pytest.mark.parametrize(("dtype", "value"), [(torch.int32, 1), (torch.float32, float("nan")), (torch.float64, 1e300)])
def test_numbers_that_no_weights_are_made_of(v3plus, tmp_path, dtype, value):
    weights = {**v3plus.state_dict(), "decoder.block1.0.weight": torch.full((48, 24, 1, 1), value, dtype=dtype)}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"w.pth: the weights (must be floating-point|hold values that are not finite)"
    ):
        convert("smp", tmp_path / "w.pth", Options())


def test_options_that_cannot_apply_are_refused(tmp_path):
    refused = {
        "torchvision": Options(output_stride=16),
        "tf": Options(encoder="resnet50"),
        "smp": Options(architecture="DeepLabV3Plus"),
    }
    for source, options in refused.items():
        with pytest.raises(InputError, match=rf"cannot be chosen for {source} weights; leave it out"):
            convert(source, tmp_path / "w", options)
    with pytest.raises(InputError, match=r"--mean is for images of 0 to 1, .*; divide the numbers by 255"):
        convert("smp", tmp_path / "w", Options(mean=(123.7, 116.3, 103.5)))
    with pytest.raises(InputError, match="--atrous-rates needs at least one value"):
        convert("smp", tmp_path / "w", Options(atrous_rates=()))


def test_models_that_are_not_for_rgb_are_refused(tmp_path):
    model = blank_model(presets.smp_deeplabv3plus("resnet18", 2, in_channels=4, decoder_channels=8))
    save_file(smp.to_state_dict(model), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w.safetensors is a model of 4 channels, but a package takes RGB"):
        convert("smp", tmp_path / "w.safetensors", Options())


@pytest.mark.slow
def test_verify_runs_both_and_names_the_layer_that_differs(v3, tmp_path):
    torch.save(v3.state_dict(), tmp_path / "w.pth")
    converted = convert("smp", tmp_path / "w.pth", Options())
    comparison = verify("smp", tmp_path / "w.pth", converted)
    assert comparison.equal
    assert "largest difference from smp" in comparison.lines[0]

    converted.model.aspp.refine.norm.bias[...] += 1
    comparison = verify("smp", tmp_path / "w.pth", converted)
    assert not comparison.equal
    differing = [line.split(":")[0].strip() for line in comparison.lines[1:] if float(line.split(":")[1]) > 1e-4]
    assert differing == ["decoder.bn"]
    with pytest.raises(InputError, match="a checkpoint holds no network"):
        verify("tf", tmp_path / "model.ckpt-1", converted)


class Payload:
    """Pickles to a call that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def without_one(weights, path):
    torch.save({n: t for n, t in weights.items() if n != "decoder.block1.0.weight"}, path)


def with_one_more(weights, path):
    torch.save({**weights, "encoder.extra.weight": torch.zeros(3)}, path)


def misshapen(weights, path):
    torch.save({**weights, "decoder.block1.0.weight": torch.zeros(7, 24, 1, 1)}, path)


def with_another_encoder(weights, path):
    smaller = other.DeepLabV3Plus("resnet18", encoder_weights=None, classes=4, decoder_channels=16).state_dict()
    head = {name: tensor for name, tensor in weights.items() if not name.startswith("encoder.")}
    torch.save({**{n: t for n, t in smaller.items() if n.startswith("encoder.")}, **head}, path)


def truncated(weights, path):
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-20000])


def zip_bomb(weights, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w/data.pkl", b"\0" * 10**8)


BROKEN = {
    "one missing": (without_one, (), r"1 missing \(decoder.block1.0.weight\)"),
    "one extra": (with_one_more, (), r"1 unexpected \(encoder.extra.weight\)"),
    "one misshapen": (misshapen, (), r"1 misshapen \(decoder.block1.0.weight \(7, 24, 1, 1\) instead of"),
    "swapped encoders": (with_another_encoder, (), "do not fit the model"),
    "wrong encoder": (lambda w, path: torch.save(w, path), ("--encoder", "resnet18"), "do not fit the model"),
    "unknown encoder": (lambda w, path: torch.save(w, path), ("--encoder", "vgg16"), "encoder 'vgg16' is not known"),
    "wrong number of rates": (
        lambda w, path: torch.save(w, path),
        ("--atrous-rates", "6", "12"),
        r"3 atrous branches; give as many rates \(--atrous-rates\), not 6, 12",
    ),
    "wrong class count": (lambda w, path: torch.save(w, path), ("--class-names", "names.txt"), "names 2 classes but"),
    "truncated": (truncated, (), "damaged"),
    "pickle with code": (lambda w, path: torch.save({"state_dict": Payload(path.parent / "ran")}, path), (), "pickled"),
    "code beside weights": (lambda w, path: torch.save({**w, "x": Payload(path.parent / "ran")}, path), (), "pickled"),
    "whole model": (lambda w, path: torch.save(torch.nn.Linear(2, 2), path), (), "save model.state_dict()"),
    "no weights": (lambda w, path: torch.save({"epoch": 3}, path), (), "not a state dict"),
    "HTML page": (lambda w, path: path.write_text("<!DOCTYPE html><html>404</html>"), (), "no PyTorch file"),
    "zip bomb": (zip_bomb, (), "compressed"),
    "empty": (lambda w, path: path.write_bytes(b""), (), "empty"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_input_gives_one_line_and_leaves_nothing(v3plus, tmp_path, monkeypatch, capsys, fault):
    make, arguments, message = BROKEN[fault]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("background\nroof\n")
    make(v3plus.state_dict(), tmp_path / "w.pth")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("sys.argv", ["deeplab", "convert", "smp", "w.pth", "--out", "p", *arguments])
    assert commands.main() == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert "w.pth" in errors
    assert re.search(message, errors), errors
    assert sorted(tmp_path.rglob("*")) == before
