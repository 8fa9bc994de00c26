"""Packages that are too large, that other models are in, or that do not hold together."""

import json
import os
import shutil
import struct

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from deeplab_jax import AutoModel
from deeplab_jax.errors import InputError
from deeplab_jax.package.folder import read_package
from helpers import pixelwise
from helpers.fixtures import random_images


def change(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def sized(height, width, **forward_pass):
    return {
        **pixelwise.config({"training_input_size": {"height": height, "width": width}}),
        "forward_pass": forward_pass,
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sized(20_000, 10), "must be 1 to 16384 pixels a side"),
        (sized(16_384, 16_384), "1 images of 16384x16384 with 7 planes of input and logits take 7168 MiB at once"),
        (sized(10**400, 10), "must be 1 to 16384 pixels a side"),
        (pixelwise.config({"scaling_factor": 10**400}), "scaling_factor: must be of type float"),
        (pixelwise.config({"scaling_factor": -1}), "scaling_factor=-1.0 must be positive"),
        (pixelwise.config({"input_channels": 4}), "input_channels must be 1 or 3, not 4"),
        (
            pixelwise.config({"training_input_size": None}),
            "training_input_size is null, which only a network for any size may have",
        ),
        (pixelwise.config({"scaling_factor": 1e-300}), "beyond float32's range"),
        (pixelwise.config({"normalization": [[1e30], [1]]}), "beyond float32's range"),
        (pixelwise.config(steps={"static-crop": {"enabled": True, "x_min": 0}}), "static_crop"),
        (pixelwise.config(steps={"grayscale": {}, "static-crop": {"enabled": 1}}), "enabled: must be of type bool"),
    ],
)
def test_unusable_configurations_are_refused(tmp_path, config, message):
    folder = pixelwise.write(tmp_path / "p", config)
    with pytest.raises(InputError, match=message) as error:
        read_package(folder)
    assert "inference_config.json" in str(error.value)


def test_batches_are_cut_to_what_memory_allows(tmp_path):
    folder = pixelwise.write(tmp_path / "p", sized(4096, 4096, max_dynamic_batch_size=1000))
    assert read_package(folder).max_batch == 3
    large = pixelwise.write(tmp_path / "static", pixelwise.config(), (30_000, 3, *pixelwise.SIZE))
    with pytest.raises(InputError, match="30000 images of 56x40 with 7 planes"):
        AutoModel.from_pretrained(large)
    change(folder, "inference_config.json", **pixelwise.config(None))
    (folder / "class_names.txt").write_text("\n".join(["background", *map(str, range(5000))]))
    with pytest.raises(InputError, match="lists 5001 classes; at most 4096"):
        read_package(folder)


def test_an_input_of_any_size_is_bounded_too(tmp_path):
    config = pixelwise.config({"training_input_size": None, "dynamic_spatial_size_mode": {"type": "any-size"}})
    model = AutoModel.from_pretrained(pixelwise.write(tmp_path / "p", config))
    with pytest.raises(InputError, match=r"1 images of 8000x8000 with 7 planes .* take 1708 MiB at once"):
        model(np.broadcast_to(np.uint8(0), (8000, 8000, 3)))
    fixed = pixelwise.write(tmp_path / "fixed", config, ("n", 3, 40, 56))
    with pytest.raises(InputError, match=r"takes images of \[40, 56\], not of any size"):
        AutoModel.from_pretrained(fixed)


@pytest.mark.parametrize("file", ["model_config.json", "class_names.txt", "inference_config.json"])
def test_huge_and_deep_files_are_refused(tmp_path, file):
    folder = pixelwise.write(tmp_path / "p", pixelwise.config())
    with (folder / file).open("ab") as stream:
        stream.truncate(5 << 20)
    with pytest.raises(InputError, match=rf"{file} has 5242880 bytes, more than the 4194304 that are read"):
        read_package(folder)
    (folder / file).write_text("[" * 100_000)
    with pytest.raises(InputError, match=file):
        read_package(folder)
    for depth in range(880, 1000, 5):  # near the limit Python may read them but not print them
        (folder / file).write_text('{"network_input":' + "[" * depth + "]" * depth + "}")
        with pytest.raises(InputError):
            read_package(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task_type": "object-detection"}, "task_type must be 'semantic-segmentation', not 'object-detection'"),
        ({"model_architecture": "yolov8"}, "model_architecture must be 'deep-lab-v3-plus', not 'yolov8'"),
        ({"backend_type": "torch"}, r"deeplab convert smp .*/weights\.pt --out NEW_PACKAGE"),
        ({"backend_type": "hugging-face"}, "cannot be run; it must be one of"),
    ],
)
def test_other_packages_are_refused(tmp_path, values, message):
    folder = pixelwise.write(tmp_path / "p", pixelwise.config())
    change(folder, "model_config.json", **values)
    with pytest.raises(InputError, match=message):
        AutoModel.from_pretrained(folder)


def test_safetensors_of_a_huge_declared_size_are_refused(tiny_package, tmp_path):
    folder = shutil.copytree(tiny_package, tmp_path / "p")
    for shape, end in (([2**20, 2**20], 2**42), ([4], 2**60)):
        header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
        (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
        with pytest.raises(InputError, match=r"weights\.safetensors is not a readable safetensors file"):
            AutoModel.from_pretrained(folder)


def test_graphs_that_give_no_logits_are_refused(tmp_path):
    folder = pixelwise.write(tmp_path / "p", pixelwise.config())
    model = onnx.load(folder / "weights.onnx")
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["ids"], axis=1))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ("n", 1, "h", "w")))
    onnx.save(model, folder / "weights.onnx")
    with pytest.raises(InputError, match="must give logits first, as floats, not tensor"):
        AutoModel.from_pretrained(folder)


def test_devices_and_providers(tmp_path):
    folder = pixelwise.write(tmp_path / "p", pixelwise.config())
    (image,) = random_images((33, 47))
    expected = AutoModel.from_pretrained(folder)(image)[0]
    options = [
        {"device": "cpu"},
        {"providers": ["CPUExecutionProvider"], "threads": 2},
        {"providers": [("CPUExecutionProvider", {})]},
    ]
    for option in options:
        actual = AutoModel.from_pretrained(folder, **option)(image)[0]
        np.testing.assert_array_equal(actual.segmentation_map, expected.segmentation_map)
    for option, message in [
        ({"device": "npu"}, "device 'npu' must be cpu, gpu, cuda or tpu"),
        ({"device": "tpu"}, "ONNX Runtime has no device 'tpu'"),
        ({"providers": ["MoonExecutionProvider"]}, "ONNX Runtime here has no MoonExecutionProvider"),
        ({"providers": "CPUExecutionProvider"}, "must be a list of names, or of pairs"),
        ({"providers": [("CPUExecutionProvider",)]}, "must be a list of names, or of pairs"),
        ({"providers": []}, "must be a list of names, or of pairs"),
        ({"threads": 0}, "threads=0 must be a whole number, 1 to 1024"),
        ({"threads": True}, "threads=True must be a whole number, 1 to 1024"),
        ({"threads": 10**6}, "threads=1000000 must be a whole number, 1 to 1024"),
    ]:
        with pytest.raises(InputError, match=message):
            AutoModel.from_pretrained(folder, **option)


def test_no_other_provider_stands_in_for_one_that_was_asked_for(tmp_path, monkeypatch):
    """ONNX Runtime goes on with the CPU where a GPU's libraries are missing, and says so on standard output at most."""
    folder = pixelwise.write(tmp_path / "p", pixelwise.config())
    gpu, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [gpu, cpu])
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *values, providers, **options: session(*values, providers=[cpu], **options),
    )
    for option in ({"device": "gpu"}, {"providers": [gpu, cpu]}):
        with pytest.raises(InputError, match="cannot be run by CUDAExecutionProvider"):
            AutoModel.from_pretrained(folder, **option)
    assert AutoModel.from_pretrained(folder)(random_images((33, 47)))  # nothing was asked for


def test_a_device_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    folder = pixelwise.write(tmp_path / "p", pixelwise.config())
    assert AutoModel.from_pretrained(folder, device=torch.device("cpu"))(random_images((33, 47)))


@pytest.mark.parametrize("file", ["model_config.json", "inference_config.json", "class_names.txt"])
@pytest.mark.parametrize("endless", ["/dev/zero", "pipe"])
def test_files_without_an_end_are_not_read(tmp_path, file, endless):
    folder = pixelwise.write(tmp_path / "p", pixelwise.config({}))
    (folder / file).unlink()
    if endless == "pipe":
        os.mkfifo(folder / file)
    else:
        (folder / file).symlink_to(endless)
    with pytest.raises(InputError, match=file):
        read_package(folder)
