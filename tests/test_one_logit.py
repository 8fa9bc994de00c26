"""Models of one logit, whose sigmoid tells a class from background: scored, trained, continued, and taken back."""

import json
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from flax import nnx
from PIL import Image

from deeplab_jax import AutoModel
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.cli import main
from deeplab_jax.config import InitConfig, LossConfig, PreprocessConfig
from deeplab_jax.data.dataset import Files, Sample
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.evaluate import evaluate
from deeplab_jax.models import build_model
from deeplab_jax.package import jax_weights
from deeplab_jax.train.experiment import load_experiment
from deeplab_jax.train.loop import train
from deeplab_jax.train.warm_start import continue_training
from helpers.fixtures import blank_model, changed, random_images, randomize_statistics, randomize_torch

NAMES = ("background", "cell")
TWO = Classes(NAMES, default_palette(2))
IMAGES = random_images((49, 65), (60, 40), (30, 90))


@dataclass(frozen=True)
class Labeled:
    """A data set in memory."""

    samples: list[Sample]
    classes: Classes = TWO
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def save(folder: Path, model, names=NAMES) -> Path:
    jax_weights.save(folder, model, Classes(names, default_palette(len(names))), PreprocessConfig(size=(49, 65)))
    return folder


@pytest.fixture(scope="module")
def config(tiny_config):
    return replace(tiny_config, num_classes=1)


@pytest.fixture(scope="module")
def packages(config, tmp_path_factory):
    """Of an untrained model that takes about half of the pixels for foreground, for JAX and for ONNX Runtime."""
    from converters.export.onnx_graph.onnx_package import export

    folder, model = tmp_path_factory.mktemp("one"), randomize_statistics(build_model(config, rngs=nnx.Rngs(0)))
    images = np.random.default_rng(0).normal(size=(2, 49, 65, 3)).astype(np.float32)
    model.classifier.bias[...] -= np.median(np.asarray(nnx.jit(lambda model, x: model(x))(model, images)))
    export(save(folder / "jax", model, ("cell",)), folder / "onnx")
    return {"jax": folder / "jax", "onnx": folder / "onnx"}


@pytest.mark.parametrize("engine", ["jax", "onnx"])
def test_a_model_s_own_masks_score_1(packages, engine):
    """Its masks at the usual threshold of 0.5, as PyTorch's users make them."""
    model = AutoModel.from_pretrained(packages[engine])
    masks = [model(image)[0].segmentation_map.astype(np.uint8) for image in IMAGES]
    assert 0.05 < np.mean(np.concatenate([mask.ravel() for mask in masks])) < 0.95
    samples = [Sample(image[..., ::-1], mask, "") for image, mask in zip(IMAGES, masks, strict=True)]
    result = evaluate(model, Labeled(samples))
    assert (result.miou, result.per_class_iou) == (1.0, {"background": 1.0, "cell": 1.0})
    # As in the shared inference API, nothing is less probable than 0.0.
    assert all(result.segmentation_map.all() for result in model(IMAGES, confidence=0.0))


@pytest.fixture(scope="module")
def cells(shapes_folder, tmp_path_factory):
    """The shapes as the commonest of binary data sets: masks of 0 and 255."""
    root = shutil.copytree(shapes_folder, tmp_path_factory.mktemp("cells") / "data")
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray(np.where(np.array(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    (root / "classes.txt").write_text("background 0 0 0\ncell 255 255 255\n")
    return root


@pytest.fixture(scope="module")
def experiment(tiny_experiment, config, cells):
    settings = changed(tiny_experiment, steps=2, validate_every=2, save_every=2)
    return replace(settings, model=config, data=replace(settings.data, root=cells))


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory):
    """A run with every term of the loss, and its best validation."""
    out, loss = tmp_path_factory.mktemp("run") / "out", LossConfig(focal=0.5, dice=1.0, lovasz=0.5, balance=True)
    return out, train(replace(experiment, loss=loss), out).best


@pytest.mark.slow
def test_training_writes_a_package_that_scores_as_the_validation_did(run, experiment):
    out, best = run
    dataset = open_dataset(experiment.data.root, "folder", "val")
    model = AutoModel.from_pretrained(out / "package")
    assert model.class_names == list(NAMES)
    assert json.loads((out / "package" / "architecture.json").read_text())["num_classes"] == 1
    actual = evaluate(model, dataset)
    assert actual.miou == pytest.approx(best, abs=1e-6)
    assert set(actual.per_class_iou) == set(NAMES)
    assert (out / "predictions.png").is_file()


@pytest.mark.parametrize("named", ["cell", "foreground"])
@pytest.mark.parametrize("background", ["background", "Background"])
def test_a_converted_model_may_go_on(config, tmp_path, named, background):
    """Under the name that it was given or, where nobody gave it one, under the data set's."""
    source, target = blank_model(config), blank_model(config)
    source.classifier.bias[...] = 0.75
    continue_training(target, save(tmp_path / "package", source, (named,)), (background, "cell"))
    assert target.classifier.bias[...] == 0.75


def test_a_training_file_of_supervisely_s_keeps_the_one_logit(config, tmp_path):
    classes = [{"title": "cell", "shape": "polygon", "color": "#00FF00"}]
    (tmp_path / "ds" / "img").mkdir(parents=True)
    (tmp_path / "ds" / "ann").mkdir()
    (tmp_path / "meta.json").write_text(json.dumps({"classes": classes}))
    for number in range(3):
        Image.new("RGB", (9, 9)).save(tmp_path / f"ds/img/{number}.png")
        document = {"size": {"height": 9, "width": 9}, "tags": [], "objects": []}
        (tmp_path / f"ds/ann/{number}.png.json").write_text(json.dumps(document))
    (tmp_path / "training.json").write_text('{"weights_init_type": "continue_training"}')
    package = save(tmp_path / "package", blank_model(config))
    given = ["--data.root", str(tmp_path), "--init.package", str(package)]
    assert load_experiment(tmp_path / "training.json", given).model.num_classes == 1


def classes_called(*lines):
    return lambda root: (root / "classes.txt").write_text("\n".join(lines))


MISFITS = {
    "no background": (classes_called("bg 0 0 0", "cell 255 255 255"), {}, "class 0 of .* called background, not 'bg'"),
    "background last": (classes_called("cell 0 0 0", "background 255 255 255"), {}, "called background, not 'cell'"),
    "one class": (classes_called("cell"), {}, "has one class; segmentation needs two, such as background and cell"),
    "three classes": (classes_called("background", "a", "b"), {}, "has 3 classes but the model 1; set num_classes=3"),
    "three weights": (None, {"loss": LossConfig(class_weights=(1.0, 2.0, 3.0))}, "3 loss.class_weights but 2 classes"),
    "another class": (None, {"init": "roof"}, "class 1 is 'cell' in the data set but 'roof' in .*transfer_learning"),
    "two logits": (None, {"init": "two"}, "gives 2 logits but the model here 1; to continue .* set num_classes=2"),
    "no package": (None, {"init": "absent"}, "absent does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_before_a_file_is_decoded(case, experiment, cells, tmp_path, monkeypatch):
    spoil, changes, message = MISFITS[case]
    root = shutil.copytree(cells, tmp_path / "data")
    if spoil:
        spoil(root)
    if name := changes.get("init"):
        model, names = experiment.model, ("background", name)
        if name == "two":
            model, names = replace(model, num_classes=2), NAMES
        if name != "absent":
            save(tmp_path / name, blank_model(model), names)
        changes = {"init": InitConfig(tmp_path / name, "continue_training")}
    monkeypatch.setattr(Files, "__getitem__", lambda self, index: pytest.fail("a file is decoded"))
    with pytest.raises(InputError, match=message):
        train(replace(experiment, data=replace(experiment.data, root=root), **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_masks_in_which_255_is_void_teach_nothing(experiment, cells, tmp_path):
    root = shutil.copytree(cells, tmp_path / "data")
    (root / "classes.txt").write_text("background\ncell\n")
    data = replace(experiment.data, root=root)
    with pytest.raises(InputError, match=r"background is all that is labeled, so nothing .* data check --data\.root"):
        train(replace(experiment, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def deeplab(monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["deeplab", *map(str, arguments)])
        status = main()
        printed, errors = capsys.readouterr()
        assert (status, errors) == (0, "")
        return printed

    return command


@pytest.mark.slow
def test_int8_is_measured_by_the_sigmoid_and_spares_what_it_would_spoil(deeplab, packages, tmp_path):
    """The truth is the model's own masks; its weights are random, and in 8 bits all of them would lose too much."""
    model, data = AutoModel.from_pretrained(packages["jax"]), tmp_path / "data"
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (data / kind / split).mkdir(parents=True)
        for number, image in enumerate(IMAGES):
            Image.fromarray(image[..., ::-1].copy()).save(data / f"images/{split}/{number}.png")
            mask = model(image)[0].segmentation_map
            Image.fromarray(mask.astype(np.uint8)).save(data / f"masks/{split}/{number}.png")
    (data / "classes.txt").write_text("\n".join(NAMES))
    given = ("--to", "onnx", "--precision", "int8", "--data.root", data, "--out", tmp_path / "int8")
    stated = deeplab("export", packages["jax"], *given)
    before, after = map(float, re.search(r"(\d\.\d+) in float32, (\d\.\d+) in int8", stated).groups())
    assert before == pytest.approx(1.0, abs=1e-3)  # ONNX Runtime's sums are in another order than JAX's
    assert before - 0.02 <= after <= 1
    spared = tuple(f"{part}." for part in re.search(r"of mIoU: (.*) stay in float32", stated)[1].split(", "))
    graph = onnx.load(tmp_path / "int8" / "weights.onnx").graph
    weights = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv":
            assert (node.input[1] in weights) == node.name.startswith(("classifier", *spared)), node.name
    score = deeplab("evaluate", tmp_path / "int8", "--data.root", data)
    assert f"mIoU {after:.4f}" in score


@pytest.mark.slow
def test_from_smp_through_training_and_back(deeplab, cells, tmp_path):
    """Converted, trained on, exported, predicted, and taken back: PyTorch gives the same masks."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    other = randomize_torch(smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=1))
    images = [np.array(Image.open(path)) for path in sorted((cells / "images/val").iterdir())]
    usual = PreprocessConfig()
    batch = np.stack([((image / 255 - usual.mean) / usual.std).transpose(2, 0, 1) for image in images])
    batch = torch.from_numpy(batch.astype(np.float32))
    with torch.no_grad():
        other.segmentation_head[0].bias -= other(batch).median()
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("cell\n")
    named = ("--class-names", tmp_path / "names.txt", "--size", 48, 48)
    deeplab("convert", "smp", tmp_path / "weights.pth", "--out", tmp_path / "converted", *named)
    (tmp_path / "experiment.py").write_text(
        "from deeplab_jax.config import AugmentConfig, Experiment, OptimConfig, PreprocessConfig, TrainConfig\n"
        "from deeplab_jax.models import presets\n"
        "config = Experiment(presets.smp_deeplabv3plus('resnet18', classes=1), preprocess=PreprocessConfig((48, 48)),\n"
        "    augment=AugmentConfig(crop=(48, 48)), train=TrainConfig(steps=2, batch_size=8),\n"
        "    optim=OptimConfig(lr=1e-3, freeze_norms=True))\n"
    )
    going_on = ("--init.package", tmp_path / "converted", "--init.mode", "continue_training")
    stated = deeplab("train", tmp_path / "experiment.py", "--data.root", cells, "--out", tmp_path / "run", *going_on)
    assert f"starting from the weights of {tmp_path / 'converted'}\n" in stated  # and all of them
    deeplab("export", tmp_path / "run/package", "--to", "onnx", "torch", "--out", tmp_path / "exported")
    deeplab("predict", tmp_path / "exported/onnx", cells / "images/val", "--out", tmp_path / "predicted")

    before = other.segmentation_head[0].weight.clone()
    other.load_state_dict(torch.load(tmp_path / "exported/torch/weights.pt", weights_only=True), strict=True)
    assert not torch.equal(before, other.segmentation_head[0].weight)
    with torch.no_grad():
        expected = (torch.sigmoid(other(batch))[:, 0] >= 0.5).numpy()
    masks = [np.array(Image.open(path)) for path in sorted((tmp_path / "predicted").glob("*_mask.png"))]
    assert 0.1 < np.mean(masks) < 0.9
    assert np.mean(masks == expected) >= 0.9999
