"""The training loop, and what a run leaves behind."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import IGNORE, DataConfig, LossConfig, OptimConfig, TrainConfig
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.evaluate import evaluate
from deeplab_jax.inference.auto_model import AutoModel
from deeplab_jax.serialization import to_dict
from deeplab_jax.train import loop, step
from deeplab_jax.train.loop import train
from deeplab_jax.train.run_dir import check_same_classes, open_run
from deeplab_jax.train.sharding import make_shardings
from deeplab_jax.train.step import init_state
from deeplab_jax.train.tracking.tracker import Tracker, read_records
from helpers.fixtures import CLASSES, changed


def test_balance_weighs_classes_by_how_rare_they_are_in_the_training_set(tiny_experiment, tmp_path):
    class Stop(Exception):
        pass

    def stop(config, *_):
        raise Stop(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_step", stop)
        with pytest.raises(Stop) as stopped:
            train(replace(tiny_experiment, loss=LossConfig(balance=True)), tmp_path / "run")
    masks = [np.asarray(Image.open(path)) for path in (tiny_experiment.data.root / "masks" / "train").iterdir()]
    frequencies = [
        sum((mask == i).sum() for mask in masks) / sum((mask != IGNORE).sum() for mask in masks if (mask == i).any())
        for i in range(5)
    ]
    expected = np.median(frequencies) / frequencies
    assert stopped.value.args[0].loss.class_weights == pytest.approx(expected.tolist())
    assert expected.max() > 2 * expected.min()


@pytest.mark.slow
def test_the_validation_step_equals_the_evaluation_of_the_package(tiny_experiment, tmp_path):
    """Same weights, two code paths: the jitted confusion matrix, and AutoModel at the images' own size."""
    experiment = changed(tiny_experiment, steps=2, validate_every=2, save_every=2)
    best = train(experiment, tmp_path / "run").best
    dataset = open_dataset(experiment.data.root, "folder", "val")
    result = evaluate(AutoModel.from_pretrained(tmp_path / "run" / "package"), dataset)
    assert result.miou == pytest.approx(best, abs=1e-6)
    assert result.images == 5


def test_run_folder(tiny_experiment, tmp_path):
    run = tmp_path / "run"
    train(tiny_experiment, run)
    assert {path.name.split(".")[0] for path in run.iterdir()} == {
        "", "checkpoints", "config", "curves", "dataset", "events", "metrics", "package", "predictions",
    }  # fmt: skip
    records = read_records(run)
    assert [r["step"] for r in records if r["split"] == "train"] == list(range(1, 13))
    assert [r["step"] for r in records if r["split"] == "val"] == [6, 12]
    assert {"loss", "lr", "grad_norm", "images_per_second"} < set(records[0])
    assert {"miou", "pixel_accuracy", "iou/disc"} < set(records[-1])


def test_another_run_in_the_folder_is_left_alone(tiny_experiment, tmp_path):
    run = tmp_path / "run"

    def open_and_close(experiment, folder=run):
        with open_run(experiment, folder, CLASSES):
            pass

    open_and_close(tiny_experiment)
    (run / "package").mkdir()
    elsewhere = r"choose another --out; init\.package .*run/package takes its weights there"
    with pytest.raises(InputError, match=rf"run holds a run with train\.batch_size=8, not 16; {elsewhere}"):
        open_and_close(changed(tiny_experiment, batch_size=16, steps=13))
    with pytest.raises(
        InputError, match=rf"run of 12 steps, which can become longer but not 11; give train.steps=12, or {elsewhere}"
    ):
        open_and_close(changed(tiny_experiment, steps=11))
    # What has no bearing on the weights may change; so may everything before there is anything to lose.
    elsewhere = DataConfig(tmp_path, "folder", threads=7, workers=2)
    open_and_close(replace(changed(tiny_experiment, log_every=7, patience=3), data=elsewhere))
    (run / "package").rmdir()
    open_and_close(changed(tiny_experiment, steps=11))
    (run / "config.json").write_text('{"architectures": ["Mine"]}')
    with pytest.raises(InputError, match="run exists and holds no run"):
        open_and_close(tiny_experiment)
    assert "Mine" in (run / "config.json").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="other exists and holds no run"):
        open_and_close(tiny_experiment, tmp_path / "other")


def test_a_folder_is_one_process_s_at_a_time(tiny_experiment, tmp_path):
    with (
        open_run(tiny_experiment, tmp_path, CLASSES),
        pytest.raises(InputError, match="another process is training in"),
        open_run(tiny_experiment, tmp_path, CLASSES),
    ):
        pass
    with open_run(tiny_experiment, tmp_path, CLASSES):
        pass


def test_class_count_must_fit_the_data(tiny_experiment, tmp_path):
    model = replace(tiny_experiment.model, num_classes=7)
    with pytest.raises(InputError, match="has 5 classes but the model 7; set num_classes=5"):
        train(replace(tiny_experiment, model=model), tmp_path / "run")
    root = shutil.copytree(tiny_experiment.data.root, tmp_path / "one")
    (root / "classes.txt").write_text("road")
    one = replace(
        tiny_experiment,
        model=replace(tiny_experiment.model, num_classes=1),
        data=replace(tiny_experiment.data, root=root),
    )
    with pytest.raises(InputError, match="has one class; segmentation needs two, such as background and road"):
        train(one, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_both_splits_must_have_the_same_classes():
    train_set, val_set = (Classes(names, default_palette(len(names))) for names in (("a", "b"), ("a", "c", "b")))
    check_same_classes("train", train_set, "val", train_set)
    with pytest.raises(InputError, match="val has the classes a, c, b, but train a, b; ids must stand for the same"):
        check_same_classes("train", train_set, "val", val_set)


@pytest.mark.slow
def test_a_bad_mask_costs_no_step(tiny_experiment, tmp_path):
    """In the validation set it shows before the first step; in the training set the steps so far are kept."""
    experiment = changed(tiny_experiment, steps=200, save_every=200, validate_every=200)
    bad, run = np.full((48, 48), 9, np.uint8), tmp_path / "run"
    for split in ("val", "train"):
        root = shutil.copytree(tiny_experiment.data.root, tmp_path / split)
        data = replace(experiment.data, root=root)
        if split == "val":
            Image.fromarray(bad).save(root / "masks" / split / "2.png")
            with pytest.raises(InputError, match=r"masks/val/2\.png holds the value 9"):
                train(replace(experiment, data=data), run)
            assert not read_records(run)
    # Damaged between two runs, the validation set stops the second before it does a step or marks one as done.
    train(changed(tiny_experiment, steps=2, save_every=2, validate_every=2), tmp_path / "resumed")
    assert (tmp_path / "resumed" / "package").is_dir()
    broken = replace(changed(tiny_experiment, steps=2, save_every=2, validate_every=2), data=data)
    Image.fromarray(bad).save(root / "masks" / "val" / "2.png")
    with pytest.raises(InputError, match=r"masks/val/2\.png holds the value 9"):
        train(broken, tmp_path / "resumed")
    assert [path.name for path in (tmp_path / "resumed" / "checkpoints").iterdir()] == ["2"]
    shutil.copy(tiny_experiment.data.root / "masks" / "val" / "2.png", root / "masks" / "val" / "2.png")

    steps = iter(range(1, 200))

    def damage(self, step, figures):
        if next(steps) == 3:
            for number in range(12):
                Image.fromarray(bad).save(root / "masks" / "train" / f"{number}.png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "train", damage)
        with pytest.raises(InputError, match="holds the value 9"):
            train(replace(experiment, data=data), run)
    assert [int(path.name) >= 3 for path in (run / "checkpoints").iterdir()] == [True]

    def damage_validation(self, step, figures):
        Image.fromarray(bad).save(root / "masks" / "val" / "2.png")

    mask = tiny_experiment.data.root / "masks" / "train"
    shutil.copytree(mask, root / "masks" / "train", dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "train", damage_validation)
        with pytest.raises(InputError, match=r"masks/val/2\.png holds the value 9"):
            train(replace(changed(experiment, validate_every=4), data=data), tmp_path / "validated")
    assert [path.name for path in (tmp_path / "validated" / "checkpoints").iterdir()] == ["4"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tiny_experiment, tmp_path):
    hot = replace(tiny_experiment, optim=OptimConfig(lr=1e30))
    experiment = changed(hot, steps=12, log_every=4, save_every=12, validate_every=12)
    with pytest.raises(
        InputError, match=r"is not finite by step 4; begin again in another --out with a lower optim\.lr, from"
    ):
        train(experiment, tmp_path / "run")
    assert not (tmp_path / "run" / "package").exists()


@pytest.mark.slow
def test_weights_that_are_not_finite_are_neither_saved_nor_packaged(tiny_experiment, tmp_path):
    """The loss of a step is that of the weights before it: these may be lost while it still looks well."""
    experiment = changed(tiny_experiment, steps=4, save_every=2, validate_every=4)
    with pytest.MonkeyPatch.context() as patch:
        finite = step.is_finite
        patch.setattr(step, "is_finite", lambda state: finite(state) and int(state.step) < 4)
        with pytest.raises(InputError, match="not finite by step 4"):
            train(experiment, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]
    assert not (tmp_path / "run" / "package").exists()
    _, state = init_state(tiny_experiment, make_shardings(jax.devices()[:1]))
    assert finite(state)
    lost = jax.tree.map(lambda leaf: leaf, state.params)
    lost["decoder"] = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.inf), state.params["decoder"])
    assert not finite(state._replace(params=lost))


def test_a_package_half_written_by_a_killed_run_is_cleared_away(tiny_experiment, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(tiny_experiment)))
    (tmp_path / ".deeplab-partial-abc" / "new").mkdir(parents=True)
    (tmp_path / ".deeplab-partial-abc" / "old").mkdir()
    with open_run(tiny_experiment, tmp_path, CLASSES):
        pass
    # Killed between putting the old package aside and the new one in its place, the old one comes back.
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json", "package"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (TrainConfig, {"steps": 0}),
        (TrainConfig, {"batch_size": 0}),
        (TrainConfig, {"seed": -1}),
        (TrainConfig, {"log_every": 0}),
        (OptimConfig, {"lr": float("nan")}),
        (OptimConfig, {"momentum": 1.0}),
        (OptimConfig, {"grad_clip_norm": 0.0}),
        (OptimConfig, {"grad_accum_steps": 0}),
    ],
)
def test_settings_that_cannot_be_are_named(kind, fields):
    (name,) = fields
    with pytest.raises(InputError, match=f"{name}={fields[name]} must"):
        kind(**fields)
