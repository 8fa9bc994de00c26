"""What a run leaves to look at."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.metrics import confusion_matrix, scores
from deeplab_jax.train.tracking.charts import GAP, beside_truth
from deeplab_jax.train.tracking.tracker import Tracker, read_records
from deeplab_jax.train.validate import Validation
from helpers.fixtures import changed

CLASSES = Classes(("sky", "road", "car"), ((0, 0, 255), (128, 128, 128), (255, 0, 0)))
METRICS = {"loss": 1.0, "lr": 0.5, "grad_norm": 4.0}


def validation(miou_of: int = 0, size=(30, 40)) -> Validation:
    """Of two gray images, whose truth is road above void and whose prediction is car."""
    images = np.full((2, *size, 3), 100, np.uint8)
    truth, maps = np.ones((2, *size), np.uint8), np.full((2, *size), 2, np.uint8)
    truth[:, size[0] // 2 :] = IGNORE
    return Validation(scores(confusion_matrix(truth, maps, 3), CLASSES.names, 2), 0.5, images, truth, maps)


def events(folder):
    """Those that TensorBoard reads: length, its checksum, the event, its checksum."""
    (path,) = folder.glob("events.*")
    data, actual = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        actual.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return actual


def test_every_validation_leaves_figures_and_images(tiny_experiment, tmp_path):
    with Tracker(tmp_path, 0, 0, tiny_experiment, CLASSES) as track:
        for step in (5, 10):
            track.train(step, METRICS)
            track.validate(step, validation())
    values = {(event.step, value.tag): value for event in events(tmp_path) for value in event.summary.value}
    for step in (5, 10):
        assert values[step, "val/iou/car"].simple_value == 0
        assert values[step, "val/miou"].simple_value == 0
        for name, value in METRICS.items():
            assert values[step, f"train/{name}"].simple_value == value
        for number in (0, 1):
            image = values[step, f"val/predictions/{number}"].image
            assert (image.height, image.width) == (30, 3 * 40 + 2 * GAP)
    assert (5, "val/iou/sky") not in values  # it occurs in neither
    assert read_records(tmp_path)[1]["iou/sky"] is None
    with Image.open(tmp_path / "predictions.png") as sheet:
        assert sheet.height >= 60
        assert sheet.width > 3 * 40
    with Image.open(tmp_path / "curves.png") as curves:
        assert np.asarray(curves).std() > 10


def test_truth_and_prediction_lie_beside_the_image():
    (row, _) = beside_truth(validation(), CLASSES)
    image, truth, predicted = row[:, :40], row[:, 40 + GAP : 80 + GAP], row[:, 80 + 2 * GAP :]
    assert (image == 100).all()
    assert (truth[:15] == [116, 116, 116]).all()  # 0.4 of the gray image and 0.6 of road
    assert (truth[15:] == 100).all()
    assert (predicted == [193, 40, 40]).all()
    (large, _) = beside_truth(validation(size=(640, 960)), CLASSES)
    assert large.shape == (213, 3 * 320 + 2 * GAP, 3)


def test_many_classes_are_drawn(tiny_experiment, tmp_path):
    names = tuple(f"$\\frac{{{i}$" for i in range(150))  # no formulas
    truth = np.random.default_rng(0).integers(0, 150, (1, 50, 50), np.uint8)
    actual = Validation(
        scores(confusion_matrix(truth, truth, 150), names, 1), 0.1, np.zeros((1, 50, 50, 3), np.uint8), truth, truth
    )
    with Tracker(tmp_path, 0, 0, tiny_experiment, Classes(names, default_palette(150))) as track:
        track.validate(1, actual)
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.height > 3000


class FakeWandb(SimpleNamespace):
    """In place of a library that talks to a server."""

    class Error(Exception):
        pass

    def __init__(self, calls, fault=None):
        super().__init__(calls=calls, fault=fault)

    def init(self, **options):
        if self.fault:
            raise self.Error(self.fault)
        self.calls.append(("init", options))
        return self

    def log(self, values, step):
        self.calls.append(("log", step, values))

    def finish(self, exit_code):
        self.calls.append(("finish", exit_code))

    def Image(self, image):
        return image.shape


def test_weights_and_biases_gets_the_same_once_it_is_asked(tiny_experiment, tmp_path, monkeypatch):
    experiment, calls = changed(tiny_experiment, wandb="project"), []
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(calls))
    with Tracker(tmp_path, 0, 0, experiment, CLASSES) as track:
        track.train(5, METRICS)
        track.validate(5, validation())
    (_, options), (_, step, figures), (_, _, validated), (_, _, images), finish = calls
    assert (options["project"], options["resume"], options["config"]["train"]["steps"]) == ("project", "allow", 12)
    assert (step, figures["train/loss"], validated["val/miou"]) == (5, 1.0, 0.0)
    assert images == {"val/predictions": [(30, 132, 3)] * 2}
    assert finish == ("finish", 0)
    with pytest.raises(KeyError), Tracker(tmp_path, 5, 5, experiment, CLASSES):
        raise KeyError
    assert calls[5][1]["id"] == options["id"]  # the same run goes on
    assert calls[6] == ("finish", 1)


def test_weights_and_biases_says_what_is_missing(tiny_experiment, tmp_path, monkeypatch):
    experiment = changed(tiny_experiment, wandb="project")
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb([], "no API key configured"))
    with pytest.raises(InputError, match=r"train\.wandb=project: no API key configured; run `wandb login`, or set"):
        Tracker(tmp_path, 0, 0, experiment, CLASSES)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"train\.wandb needs another package: pip install 'deeplab_jax\[wandb\]'"):
        Tracker(tmp_path, 0, 0, experiment, CLASSES)
