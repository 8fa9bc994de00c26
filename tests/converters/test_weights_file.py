"""`converters.readers.weights_file`: the containers that people keep weights in, and what lies beside the weights."""

from collections import defaultdict

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters import smp
from converters.convert import Options, convert
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets
from helpers.fixtures import blank_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
pytest.importorskip("segmentation_models_pytorch")


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
    "Lightning with loss and normalization": lambda w, path: torch.save(
        {"state_dict": beside_a_loss(w), "pytorch-lightning_version": "2.4.0", "hyper_parameters": {"lr": 0.1}}, path
    ),
    "training state around": lambda w, path: torch.save(
        {"epoch": torch.tensor(3), "weights": {"class": torch.ones(4)}, "model": w, "log": defaultdict(list, a=[1])},
        path,
    ),
    "compiled parts": lambda w, path: torch.save(
        {
            name.replace("encoder.", "encoder._orig_mod.").replace("decoder.", "decoder.module."): t
            for name, t in w.items()
        },
        path,
    ),
    "odd key": lambda w, path: torch.save({"state_dict": w, 1: "x"}, path),
    "list": lambda w, path: torch.save([w, {"epoch": 3}], path),
    "counters of operations": lambda w, path: torch.save({**w, "total_ops": torch.ones(1)}, path),
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
    aside = {
        "Lightning with loss and normalization": ["loss_fn.weight"],
        "training state around": ["weights"],
        "counters of operations": ["total_ops"],
    }
    assert converted.beside == aside.get(container, [])
    assert any("--output-stride" in line and "--atrous-rates" in line for line in converted.summary())


ASIDE = {  # what is listed as left aside
    "average under another key": (lambda w: {"state_dict_ema": zeros(w), "state_dict": w}, ["state_dict_ema"]),
    "average inside": (
        lambda w: {**w, "ema.segmentation_head.0.weight": torch.ones(1)},
        ["ema.segmentation_head.0.weight"],
    ),
    "average under another prefix": (
        lambda w: {**prefixed({"decoder.block1.0.weight": torch.ones(1)}, "ema."), **prefixed(w, "model.")},
        ["ema.decoder.block1.0.weight"],
    ),
    "teacher": (
        lambda w: {**prefixed(zeros(w), "teacher."), **prefixed(w, "model.")},
        lambda w: [f"teacher.{name}" for name in w],
    ),
    "student and teacher": (lambda w: {"teacher": {"state_dict": zeros(w)}, "student": w}, ["teacher.state_dict"]),
    "averaged model": (lambda w: {**prefixed(w, "module."), "n_averaged": torch.tensor(3)}, ["n_averaged"]),
    "metrics and numbers": (
        lambda w: {
            **prefixed(w, "model."),
            "train_iou.confmat": torch.ones(4),
            "epoch": 3,
            "normalize.mean": torch.ones(3),
        },
        ["epoch", "train_iou.confmat", "normalize.mean"],
    ),
    "normalization in the model": (lambda w: {**w, "normalize.mean": torch.ones(3)}, ["normalize.mean"]),
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


def other_pairs(weights):
    return {
        "prefixes": {**prefixed(weights, "one."), **prefixed(weights, "two.")},
        "wrapper and none": {**weights, **prefixed(weights, "module.")},
        "usual keys": {"state_dict": zeros(weights), "model": weights},
        "other keys": {"last": weights, "best": zeros(weights)},
        "a usual prefix and another": {**prefixed(weights, "net."), **prefixed(weights, "student.")},
    }


@pytest.mark.parametrize("pair", other_pairs({}))
def test_two_models_in_one_file_are_refused(v3plus, tmp_path, pair):
    torch.save(other_pairs(v3plus.state_dict())[pair], tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w.pth holds (several models|.* twice).*; save one"):
        convert("smp", tmp_path / "w.pth", Options())


def test_an_average_alone_is_taken_and_named(v3plus, tmp_path):
    headless = {name: t for name, t in v3plus.state_dict().items() if "segmentation_head" not in name}
    torch.save({"state_dict": headless, "ema": v3plus.state_dict()}, tmp_path / "w.pth")
    converted = convert("smp", tmp_path / "w.pth", Options())
    assert " tensors of ema: " in converted.summary()[0]
    assert converted.beside == ["state_dict"]


def test_a_tensor_by_an_old_and_a_new_name_is_refused(v3, tmp_path):
    weights = v3.state_dict()
    twice = {**weights, "decoder.0.project.0.weight": weights["decoder.aspp.project.0.weight"]}
    torch.save(twice, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"decoder.0.project.0.weight and decoder.aspp.project.0.weight are the same"):
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


@pytest.mark.slow
def test_torchscript_archive(v3plus, tmp_path):
    with torch.inference_mode(), pytest.warns():  # tracing is on its way out of PyTorch, and says so
        torch.jit.trace(v3plus, torch.zeros(1, 3, 64, 64)).save(tmp_path / "w.pt")
    back = smp.to_state_dict(convert("smp", tmp_path / "w.pt", Options()).model)
    weights = arrays(v3plus.state_dict())
    assert all(np.array_equal(back[name], weights[name]) for name in weights if "num_b" not in name)
