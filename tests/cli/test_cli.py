"""The command line: what it prints, writes and returns."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.cli import commands, terminal
from helpers.fixtures import random_smp


@pytest.fixture
def deeplab(monkeypatch, capsys):
    """Runs the command in this process; returns exit code, output and errors."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deeplab", *map(str, arguments)])
        try:
            code = commands.main()
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    monkeypatch.setattr(terminal.console, "width", 200)
    return run


@pytest.fixture
def recipe(tiny_experiment, tmp_path):
    from deeplab_jax.serialization import save_json

    save_json(tiny_experiment, tmp_path / "tiny.json")
    path = tmp_path / "tiny.py"
    path.write_text(
        "from pathlib import Path\nfrom deeplab_jax.config import Experiment\n"
        "from deeplab_jax.serialization import load_json\n"
        "config = load_json(Experiment, Path(__file__).with_suffix('.json'))\n"
    )
    return path


def test_train_evaluate_export_predict(deeplab, recipe, shapes_folder, tmp_path):
    run = tmp_path / "run"
    sizes = ("--train.steps", 2, "--train.validate-every", 2, "--train.batch-size", 8)
    code, output, _ = deeplab("train", recipe, "--data.root", shapes_folder, *sizes, "--out", run)
    assert code == 0
    assert f"package: {run / 'package'}" in output
    assert json.loads((run / "config.json").read_text())["train"]["steps"] == 2

    data = ("--data.root", shapes_folder, "--data.format", "folder", "--data.split", "val")
    code, output, _ = deeplab("evaluate", run / "package", *data, "--json", tmp_path / "jax.json")
    assert code == 0
    assert "polygon" in output
    figures = json.loads((tmp_path / "jax.json").read_text())
    assert set(figures) == {"miou", "mean_accuracy", "pixel_accuracy", "per_class_iou", "images"}
    assert figures["images"] == 5

    code, output, _ = deeplab("export", run / "package", "--to", "onnx", "--out", tmp_path / "onnx")
    assert code == 0
    assert "of the largest logit" in output
    code, _, _ = deeplab("evaluate", tmp_path / "onnx", *data, "--json", tmp_path / "onnx.json")
    assert json.loads((tmp_path / "onnx.json").read_text())["miou"] == pytest.approx(figures["miou"], abs=1e-3)

    image = shapes_folder / "images" / "val" / "0.png"
    code, output, _ = deeplab("predict", tmp_path / "onnx", image, image.parent, "--out", tmp_path / "out")
    assert code == 0
    assert "6 of 6 images predicted" in output
    with Image.open(tmp_path / "out" / "0_mask.png") as mask:
        assert mask.size == (48, 48)


def test_convert(deeplab, tmp_path):
    torch = pytest.importorskip("torch")

    from converters import smp
    from deeplab_jax.package import jax_weights

    weights = random_smp("DeepLabV3Plus", "resnet18", 16, classes=3).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    (tmp_path / "names.txt").write_text("Background\nroof\ndoor\n")
    names = ("--class-names", tmp_path / "names.txt")
    code, output, _ = deeplab("convert", "smp", tmp_path / "w.pth", "--out", tmp_path / "p", *names, "--size", 64, 96)
    assert code == 0
    count = sum("num_batches_tracked" not in name for name in weights)
    assert f"{count} tensors: DeepLabV3+ with resnet18, 3 classes, output stride 16" in output
    assert (tmp_path / "p" / "class_names.txt").read_text() == "Background\nroof\ndoor\n"
    back = smp.to_state_dict(jax_weights.load_model(tmp_path / "p"))
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor.numpy(), back[name])

    for arguments, message in [
        ((*names, "--encoder", "resnet34"), "do not fit the model"),
        ((*names, "--encoder", "vgg16"), "encoder 'vgg16' is not known"),
        (("--class-names", recipe_of(tmp_path, "background\nroof\n")), "names 2 classes but"),
    ]:
        code, _, errors = deeplab("convert", "smp", tmp_path / "w.pth", "--out", tmp_path / "q", *arguments)
        assert code == 1
        assert message in errors
        assert not (tmp_path / "q").exists()


def recipe_of(folder, text):
    (folder / "short.txt").write_text(text)
    return folder / "short.txt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "absent.py"), "the experiment absent.py does not exist"),
        (("train",), "name an experiment"),
        (("evaluate", "absent", "--data.root", "."), "the package absent does not exist or is no folder"),
        (("evaluate", "absent", "--data.root", "nowhere"), "the data folder nowhere does not exist"),
        (("predict", "absent", "no.jpg", "--out", "o"), "no.jpg does not exist"),
        (("export", "absent", "--to", "onnx", "--out", "o"), "the package absent does not exist"),
        (("convert", "smp", "absent.pth", "--out", "o"), "the weights file absent.pth does not exist"),
    ],
)
def test_one_clear_line_and_exit_code_1(deeplab, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("background\na\n")
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "a.png")
    Image.new("L", (2, 2)).save(tmp_path / "masks" / "a.png")
    for name in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / name).mkdir()
            Image.new("L", (2, 2)).save(tmp_path / kind / name / "a.png")
    code, _, errors = deeplab(*arguments)
    assert code == 1
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (", "line 2: SyntaxError"),
        ("x = 1\nfrom deeplab_jax.config import Experiment\nExperiment(modle=1)", "line 3: TypeError"),
        ("import sys\nsys.exit(0)", "line 2: SystemExit"),
        ("config = 3", "must set `config` to a deeplab_jax.config.Experiment"),
    ],
)
def test_experiments_with_faults(deeplab, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jax.py").write_text(text)  # a name that must not stand in for the library
    code, _, errors = deeplab("train", "jax.py")
    assert code == 1
    assert hasattr(sys.modules["jax"], "jit")
    assert message in errors
    assert errors.count("\n") == 1


def test_what_cannot_be_written_is_named(deeplab, tiny_package, shapes_folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    data = ("--data.root", shapes_folder, "--data.format", "folder")
    image = shapes_folder / "images" / "val" / "0.png"
    for arguments in [
        ("predict", tiny_package, image, "--out", tmp_path / "file"),
        ("predict", tiny_package, image, "--out", tmp_path / "file" / "x"),
        ("export", tiny_package, "--to", "onnx", "--out", tmp_path / "file" / "x"),
        ("evaluate", tiny_package, *data, "--json", tmp_path / "absent" / "x.json"),
        ("evaluate", tiny_package, *data, "--json", tmp_path),
    ]:
        code, _, errors = deeplab(*arguments)
        assert code == 1, arguments
        assert errors.startswith("error: ")
        assert str(tmp_path) in errors
        assert errors.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_names_are_no_markup(deeplab, tiny_package, shapes_folder, tmp_path):
    """Brackets in class names and paths are printed as they are."""
    package, data = (shutil.copytree(p, tmp_path / n) for p, n in ((tiny_package, "[red]"), (shapes_folder, "data")))
    for path in (package / "class_names.txt", data / "classes.txt"):
        path.write_text(path.read_text().replace("disc", "[/b]"))
    code, output, _ = deeplab("evaluate", package, "--data.root", data)
    assert code == 0
    assert "[/b]" in output
    out = tmp_path / "[/i]"
    code, output, _ = deeplab("predict", package, data / "images" / "val", "--out", out)
    assert code == 0
    assert str(out) in output


def test_help_and_unknown_command(deeplab):
    code, output, _ = deeplab()
    assert code == 0
    assert all(f"deeplab {name} " in output for name in commands.COMMANDS)
    code, _, errors = deeplab("tarin")
    assert code == 2
    assert "there is no command 'tarin'" in errors


@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("utf-8", "[bold]:smile:.png ü", "[bold]:smile:.png ü"),
        ("ascii", "ü.png", "\\xfc.png"),
        ("utf-8", "a\udcff.png", "a\\udcff.png"),  # a file's name that is no UTF-8
    ],
)
def test_any_name_is_printed_as_it_is(monkeypatch, encoding, name, shown):
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", out)
    terminal.say(name)
    out.flush()
    assert out.buffer.getvalue().decode(encoding) == f"{shown}\n"
