"""`deeplab export`: several engines, precisions, reports and refusals, through the command."""

import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from PIL import Image

from converters.export import export as converter
from converters.export.onnx_graph import session
from deeplab_jax import AutoModel
from deeplab_jax.cli import main
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.package.folder import read_package
from helpers.fixtures import random_images


@pytest.fixture
def deeplab(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deeplab", *map(str, arguments)])
        status = main()
        return status, *capsys.readouterr()

    return run


def test_int8_is_calibrated_and_measured(deeplab, tiny_package, shapes_folder, tmp_path):
    out = tmp_path / "out"
    status, printed, errors = deeplab(
        "export", tiny_package, "--to", "onnx", "--out", out, "--precision", "int8", "--data.root", shapes_folder
    )
    assert (status, errors) == (0, "")
    assert "of the largest logit" in printed
    assert re.search(r"the same class as in float32 on \d+\.\d\d% of the pixels of 8 images", printed)
    assert "mIoU of 5 images: 0." in printed
    assert " in float32, 0." in printed
    assert "onnx" in printed.splitlines()[-2]
    kinds = {tensor.data_type for tensor in onnx.load(out / "weights.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    graph = onnx.load(out / "weights.onnx")
    names = json.loads(next(entry.value for entry in graph.metadata_props if entry.key == "class_names"))
    assert names == AutoModel.from_pretrained(out).class_names


@pytest.mark.parametrize("engine", ["onnx", "tensorrt"])
def test_a_graph_for_tensorrt_is_measured_without_the_kernels_of_this_cpu(
    engine, tiny_package, onnx_package, shapes_folder, tmp_path, monkeypatch
):
    """It has weights of 8 bits, with which some CPUs saturate; no engine is built here."""
    opened = []

    def open_session(graph, *, exact=False):
        opened.append((any(node.op_type == "QuantizeLinear" for node in graph.graph.node), exact))
        return session.open_session(graph, exact=exact)

    monkeypatch.setattr("converters.export.onnx_graph.onnx_package.open_session", open_session)
    monkeypatch.setattr(converter, "build_engine", lambda source, folder, *_: shutil.copytree(source, folder))
    train, val = (open_dataset(shapes_folder, "folder", split) for split in ("train", "val"))
    options = converter.Options(precision="int8", calibration=converter.Images(train), data=val)
    graph, stated = onnx.load(onnx_package / "weights.onnx"), []
    package = read_package(tiny_package)
    converter.write(engine, tmp_path / "out", graph, package, options, lambda step, actual: stated.append(step))
    assert [exact for reduced, exact in opened if reduced] == [engine == "tensorrt"] * 3  # runs, agreement, mIoU
    assert re.fullmatch(r"mIoU of 5 images: 0\.\d{4} in float32, 0\.\d{4} in int8", stated[-1])


def test_float16_needs_no_images(deeplab, tiny_package, onnx_package, tmp_path):
    status, printed, _ = deeplab(
        "export", tiny_package, "--to", "onnx", "--out", tmp_path / "out", "--precision", "float16"
    )
    assert status == 0
    assert "mIoU" not in printed
    assert re.search(r"on (100\.00|9\d\.\d\d)% of the pixels of 4 random images", printed)
    sizes = [(folder / "weights.onnx").stat().st_size for folder in (tmp_path / "out", onnx_package)]
    assert sizes[0] < 0.8 * sizes[1]
    image = random_images((49, 65))[0]
    own, other = (AutoModel.from_pretrained(p)(image, confidence=0.0)[0] for p in (tmp_path / "out", onnx_package))
    assert (own.segmentation_map == other.segmentation_map).mean() > 0.98


@pytest.mark.parametrize("to", [["onnx"], ["torch"], ["onnx", "torch"]])
def test_other_class_names_than_the_weights_have_leave_nothing(deeplab, tiny_package, tmp_path, to):
    package = shutil.copytree(tiny_package, tmp_path / "package")
    config = json.loads((package / "inference_config.json").read_text())
    config.pop("palette", None)
    (package / "inference_config.json").write_text(json.dumps(config))
    names = (package / "class_names.txt").read_text().split()
    (package / "class_names.txt").write_text("\n".join([*names, "one more", "another"]))
    status, _, errors = deeplab("export", package, "--to", *to, "--out", tmp_path / "out")
    assert status == 1
    assert f"names {len(names) + 2} classes but its weights give {len(names)} logits; class_names.txt must" in errors
    assert not (tmp_path / "out").exists()


def test_a_network_of_other_channels_than_the_package_says_leaves_nothing(deeplab, tiny_package, tmp_path):
    package = shutil.copytree(tiny_package, tmp_path / "package")
    config = json.loads((package / "inference_config.json").read_text())
    config["network_input"] |= {"input_channels": 1, "normalization": [[0.4], [0.2]]}
    (package / "inference_config.json").write_text(json.dumps(config))
    status, _, errors = deeplab("export", package, "--to", "onnx", "--out", tmp_path / "out")
    assert status == 1
    assert "inference_config.json: input_channels must be 3, as the weights take, not 1" in errors
    assert not (tmp_path / "out").exists()


def test_what_one_engine_cannot_take_leaves_nothing(deeplab, tiny_package, tmp_path):
    pytest.importorskip("torch")
    status, _, errors = deeplab("export", tiny_package, "--to", "onnx", "torch", "--out", tmp_path / "out")
    assert status == 1
    assert errors.startswith("error: ")
    assert "export to onnx, which takes every model" in errors
    assert not (tmp_path / "out").exists()


def test_tensorrt_says_what_to_install(deeplab, tiny_package, tmp_path):
    status, _, errors = deeplab("export", tiny_package, "--to", "tensorrt", "--out", tmp_path / "out")
    assert status == 1
    assert "exporting to TensorRT needs" in errors
    assert not (tmp_path / "out").exists()


def test_int8_without_images_is_refused(deeplab, tiny_package, tmp_path):
    status, _, errors = deeplab(
        "export", tiny_package, "--to", "onnx", "--out", tmp_path / "out", "--precision", "int8"
    )
    assert status == 1
    assert "give --calibration or --data.root" in errors


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("--to torch --dynamic-size", "--dynamic-size does nothing here; it goes with --to onnx or tensorrt"),
        ("--to torch --precision float16", "--precision float16 does nothing here"),
        ("--to onnx --calibration .", "--calibration does nothing here; it goes with --precision float16 or int8"),
        ("--to onnx --data.root DATA", "--data.root does nothing here; it goes with --precision float16 or int8"),
        ("--to onnx torch --batch 1 2 4", "--batch does nothing here; it goes with --to tensorrt"),
        ("--to tensorrt --height 32 64 96", "--height does nothing here; it goes with --to tensorrt --dynamic-size"),
        ("--to tensorrt --dynamic-size --height 32 64 96", "needs --height and --width"),
        ("--to onnx tensorrt --batch 4 2 1", "batch (4, 2, 1) must rise"),
        ("--to onnx --precision float16 --data.split test", "do nothing without --data.root"),
    ],
)
def test_what_nothing_would_heed_is_refused(deeplab, tiny_package, shapes_folder, tmp_path, arguments, fault):
    (tmp_path / "a.png").touch()
    given = [{"DATA": shapes_folder, ".": tmp_path}.get(word, word) for word in arguments.split()]
    status, printed, errors = deeplab("export", tiny_package, "--out", tmp_path / "out", *given)
    assert (status, printed) == (1, "")
    assert fault in errors
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_measured_leaves_nothing(deeplab, tiny_package, shapes_folder, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(shapes_folder, data)
    spoiled = sorted((data / "masks/val").iterdir())[-1]
    spoiled.write_bytes(b"no image")
    status, _, errors = deeplab(
        "export", tiny_package, "--to", "onnx", "--out", out, "--precision", "float16", "--data.root", data
    )
    assert status == 1
    assert spoiled.name in errors
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_refused_at_once(deeplab, tiny_package, tmp_path):
    (tmp_path / "file").touch()
    status, printed, errors = deeplab("export", tiny_package, "--to", "onnx", "--out", tmp_path / "file/out")
    assert (status, printed) == (1, "")
    assert f"as {tmp_path / 'file'} is no folder to write into" in errors


@pytest.mark.slow
def test_calibration_takes_files_and_folders(deeplab, tiny_package, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(random_images((40, 50), (60, 30))):
        Image.fromarray(image).save(folder / f"{number}.png")
    command = ("export", tiny_package, "--to", "onnx", "--precision", "int8", "--calibration")
    assert deeplab(*command, folder, "--out", tmp_path / "a")[0] == 0
    assert deeplab(*command, folder / "0.png", folder / "1.png", "--out", tmp_path / "b")[0] == 0
    assert (tmp_path / "a/weights.onnx").read_bytes() == (tmp_path / "b/weights.onnx").read_bytes()
    status, _, errors = deeplab(*command, folder / "none.png", "--out", tmp_path / "c")
    assert status == 1
    assert "none.png does not exist" in errors


def test_images_are_spread_over_the_source(shapes_folder):
    dataset = open_dataset(shapes_folder, "folder", "train")
    images = list(converter.Images(dataset))
    assert len(images) == len(dataset)
    np.testing.assert_array_equal(images[3], dataset[3].image)

    many = replace(dataset, examples=dataset.examples * 30)
    spread = list(converter.Images(many))
    assert len(spread) == converter.CALIBRATION
    np.testing.assert_array_equal(spread[-1], many[63 * len(many) // 64].image)
