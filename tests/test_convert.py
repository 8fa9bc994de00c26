"""`converters.convert`: the containers that people keep weights in, and what must be refused."""

import json
import re
import zipfile
from collections import defaultdict

import numpy as np
import pytest
from safetensors.numpy import save_file

from conftest import blank_model, randomise_torch
from converters import smp, timm
from converters.convert import Options, convert
from converters.verify import verify
from deeplab_jax import cli
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
theirs = pytest.importorskip("segmentation_models_pytorch")


@pytest.fixture(scope="module")
def v3():
    torch.manual_seed(0)
    model = theirs.DeepLabV3("resnet18", encoder_weights=None, classes=4, decoder_channels=16)
    return randomise_torch(model)


@pytest.fixture(scope="module")
def v3plus():
    torch.manual_seed(0)
    model = theirs.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=4, decoder_channels=16)
    return randomise_torch(model)


def arrays(state_dict):
    return {name: tensor.numpy() for name, tensor in state_dict.items()}


def prefixed(weights, prefix):
    return {prefix + name: tensor for name, tensor in weights.items()}


def beside_a_loss(weights):
    return {
        **prefixed(weights, "model."),
        "loss_fn.weight": torch.ones(4),
        "mean": torch.zeros(3),
        "std": torch.ones(3),
    }


CONTAINERS = {
    "zip": lambda w, path: torch.save(w, path),
    "legacy": lambda w, path: torch.save(w, path, _use_new_zipfile_serialization=False),
    "state_dict": lambda w, path: torch.save({"epoch": 3, "state_dict": w, "optimizer": {"state": {}}}, path),
    "model_state_dict": lambda w, path: torch.save({"model_state_dict": w}, path),
    "DataParallel": lambda w, path: torch.save(prefixed(w, "module."), path),
    "compiled in Lightning": lambda w, path: torch.save({"state_dict": prefixed(w, "model._orig_mod.")}, path),
    "compiled, then wrapped": lambda w, path: torch.save(prefixed(w, "_orig_mod.module."), path),
    "Lightning with loss and normalisation": lambda w, path: torch.save(
        {"state_dict": beside_a_loss(w), "pytorch-lightning_version": "2.4.0", "hyper_parameters": {"lr": 0.1}}, path
    ),
    "training state around": lambda w, path: torch.save(
        {"epoch": torch.tensor(3), "weights": {"class": torch.ones(4)}, "model": w, "log": defaultdict(list, a=[1])},
        path,
    ),
    "nested": lambda w, path: torch.save({"state_dict": {"model": w}}, path),
    "no counters": lambda w, path: torch.save({n: t for n, t in w.items() if "num_batches" not in n}, path),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers_of_pytorch(v3plus, tmp_path, container):
    weights = v3plus.state_dict()
    CONTAINERS[container](weights, tmp_path / "w.pth")
    converted = convert("smp", tmp_path / "w.pth", Options())
    assert converted.model.config == presets.smp_deeplabv3plus("mobilenet_v2", 4, decoder_channels=16)
    back = smp.to_state_dict(converted.model)
    assert all(np.array_equal(back[name], array) for name, array in arrays(weights).items() if "num_b" not in name)
    assert converted.beside == (["loss_fn.weight", "mean", "std"] if "loss" in container else [])
    assert any("--output-stride" in line and "--atrous-rates" in line for line in converted.summary())


ASIDE = {  # what is listed as left aside
    "average under another key": (lambda w: {"state_dict_ema": zeros(w), "state_dict": w}, ["state_dict_ema"]),
    "average under another prefix": (
        lambda w: {**prefixed({"decoder.block1.0.weight": torch.ones(1)}, "ema."), **prefixed(w, "model.")},
        ["ema.decoder.block1.0.weight"],
    ),
    "teacher": (
        lambda w: {**prefixed(zeros(w), "teacher."), **prefixed(w, "model.")},
        lambda w: [f"teacher.{name}" for name in w],
    ),
    "metrics and numbers": (
        lambda w: {
            **prefixed(w, "module."),
            "train_iou.confmat": torch.ones(4),
            "epoch": 3,
            "normalize.mean": torch.ones(3),
        },
        ["epoch", "train_iou.confmat", "normalize.mean"],
    ),
    "normalisation in the model": (lambda w: {**w, "normalize.mean": torch.ones(3)}, ["normalize.mean"]),
}


def zeros(weights):
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


@pytest.mark.parametrize("container", ASIDE)
def test_what_is_no_part_of_the_model_is_left_aside_and_named(v3plus, tmp_path, container):
    weights = v3plus.state_dict()
    wrap, aside = ASIDE[container]
    torch.save(wrap(weights), tmp_path / "w.pth")
    converted = convert("smp", tmp_path / "w.pth", Options())
    back = smp.to_state_dict(converted.model)
    assert all(np.array_equal(back[name], array) for name, array in arrays(weights).items() if "num_b" not in name)
    assert converted.beside == (aside(weights) if callable(aside) else aside)
    assert converted.summary()[-1].startswith(f"left aside: {converted.beside[0]}")


def test_two_models_in_one_file_are_refused(v3plus, tmp_path):
    weights = v3plus.state_dict()
    torch.save({**prefixed(weights, "student."), **prefixed(weights, "teacher.")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w.pth: the weights of several models are in it \(student., teacher.\)"):
        convert("smp", tmp_path / "w.pth", Options())


def test_timm_encoders_under_the_prefix_of_lightning(tmp_path):
    """`encoder.model.` is part of smp's own names, `model.` before it is not."""
    config = presets.smp_deeplabv3plus("tu-resnet18", 2, decoder_channels=8)
    weights = {name: torch.from_numpy(array) for name, array in smp.to_state_dict(blank_model(config)).items()}
    assert "encoder.model.conv1.weight" in weights
    torch.save({"state_dict": prefixed(weights, "model.")}, tmp_path / "w.ckpt")
    assert convert("smp", tmp_path / "w.ckpt", Options()).model.config == config


def test_content_counts_and_not_the_name_of_the_file(v3plus, tmp_path):
    weights = v3plus.state_dict()
    save_file(arrays(weights), tmp_path / "w.pth")
    torch.save(weights, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        assert convert("smp", tmp_path / name, Options()).model.config.num_classes == 4


def test_weights_of_another_source_are_named(v3plus, tmp_path):
    torch.save(v3plus.state_dict(), tmp_path / "w.pth")
    for source in ("timm", "torchvision"):
        with pytest.raises(InputError, match=r"holds weights of smp; convert them with: deeplab convert smp"):
            convert(source, tmp_path / "w.pth", Options())


def test_half_precision_and_safetensors(v3plus, tmp_path):
    half = {name: tensor.half() for name, tensor in v3plus.state_dict().items()}
    torch.save(half, tmp_path / "w.pth")
    save_file(arrays(half), tmp_path / "w.safetensors")
    expected = {name: array.astype(np.float32) for name, array in arrays(half).items()}
    for name in ("w.pth", "w.safetensors"):
        back = smp.to_state_dict(convert("smp", tmp_path / name, Options()).model)
        assert all(np.array_equal(back[name], expected[name]) for name in expected if "num_b" not in name)


def test_torchscript_archive(v3plus, tmp_path):
    with torch.inference_mode(), pytest.warns():  # tracing is on its way out of PyTorch, and says so
        torch.jit.trace(v3plus, torch.zeros(1, 3, 64, 64)).save(tmp_path / "w.pt")
    back = smp.to_state_dict(convert("smp", tmp_path / "w.pt", Options()).model)
    weights = arrays(v3plus.state_dict())
    assert all(np.array_equal(back[name], weights[name]) for name in weights if "num_b" not in name)


@pytest.mark.parametrize("safe", [True, False])
def test_folder_of_save_pretrained_says_what_weights_cannot(tmp_path, safe):
    model = theirs.DeepLabV3Plus(
        "resnet18", encoder_weights=None, encoder_output_stride=8, classes=2, decoder_atrous_rates=(3, 6, 9)
    )
    model.save_pretrained(tmp_path / "saved")
    if not safe:  # as older releases wrote it
        (tmp_path / "saved" / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "saved" / "pytorch_model.bin")
    converted = convert("smp", tmp_path / "saved", Options())
    assert converted.model.config == presets.smp_deeplabv3plus("resnet18", 2, 8, decoder_atrous_rates=(3, 6, 9))
    assert not any("not recorded" in line for line in converted.summary())

    settings = json.loads((tmp_path / "saved" / "config.json").read_text())
    (tmp_path / "saved" / "config.json").write_text(json.dumps({**settings, "activation": "softmax2d"}))
    assert convert("smp", tmp_path / "saved", Options()).beside == ["activation 'softmax2d' (packages take logits)"]
    for name, value in {"upsampling": 8, "encoder_depth": 4, "decoder_atrous_rates": [3, 6]}.items():
        (tmp_path / "saved" / "config.json").write_text(json.dumps({**settings, name: value}))
        with pytest.raises(InputError, match=rf"config.json: {name} {value} is not|give as many rates"):
            convert("smp", tmp_path / "saved", Options())


def test_names_of_older_releases(v3, tmp_path):
    old = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1.", "decoder.bn.": "decoder.2."}

    def rename(name):
        return next((o + name.removeprefix(n) for n, o in old.items() if name.startswith(n)), name)

    torch.save({rename(name): tensor for name, tensor in v3.state_dict().items()}, tmp_path / "old.pth")
    converted = convert("smp", tmp_path / "old.pth", Options())
    assert converted.model.config == presets.smp_deeplabv3("resnet18", 4, decoder_channels=16)


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
    with pytest.raises(InputError, match="--atrous-rates needs at least one value"):
        convert("smp", tmp_path / "w", Options(atrous_rates=()))


def test_models_that_are_not_for_rgb_are_refused(tmp_path):
    model = blank_model(presets.smp_deeplabv3plus("resnet18", 2, in_channels=4, decoder_channels=8))
    save_file(smp.to_state_dict(model), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w.safetensors is a model of 4 channels, but a package takes RGB"):
        convert("smp", tmp_path / "w.safetensors", Options())


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
    other = theirs.DeepLabV3Plus("resnet18", encoder_weights=None, classes=4, decoder_channels=16).state_dict()
    head = {name: tensor for name, tensor in weights.items() if not name.startswith("encoder.")}
    torch.save({**{n: t for n, t in other.items() if n.startswith("encoder.")}, **head}, path)


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
    assert cli.main() == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert "w.pth" in errors
    assert re.search(message, errors), errors
    assert sorted(tmp_path.rglob("*")) == before
