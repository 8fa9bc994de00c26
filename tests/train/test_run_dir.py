"""How many steps a run has: of epochs, of whole updates, of an extension."""

from dataclasses import replace
from pathlib import Path

import pytest

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import OptimConfig, TrainConfig
from deeplab_jax.data.dataset import Example, Files
from deeplab_jax.errors import InputError
from deeplab_jax.train.run_data import remember_data
from deeplab_jax.train.run_dir import extension, fit_to_data, open_run
from helpers.fixtures import CLASSES, changed

BLACK, WHITE = CLASSES.palette


def test_an_extension_holds_until_a_step_is_saved(tiny_experiment, tmp_path):
    """A run that is killed soon after is extended again, from the same step or an older one, and to the same end."""
    short, long = changed(tiny_experiment, steps=6, patience=3), changed(tiny_experiment, steps=9, patience=3)
    run = tmp_path / "run"
    for experiment in (short, long, long):
        with open_run(experiment, run, CLASSES):
            (run / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
    assert extension(run, long, 5) == []
    for step in (4, 2):
        lines = extension(run, long, step)
        last, following = (0.05 * (1 - at / steps) ** 0.9 for at, steps in ((step - 1, 6), (step, 9)))
        assert lines[0].startswith(f"extended from 6 to 9 steps: the learning rate was {last:.3g} and goes on with")
        assert f"{following:.3g}, to fall to 0 by step 9" in lines[0]
        assert lines[1] == "train.patience counts from here"
    (run / "checkpoints" / "8").mkdir()
    with open_run(changed(long, steps=20), run, CLASSES):
        pass
    assert extension(run, changed(long, steps=20), 8)[0].startswith("extended from 9 to 20 steps")


@pytest.mark.parametrize(
    ("names", "colors", "message"),
    [
        (
            ("background", "cell"),
            (WHITE, BLACK),
            r"class 0 was background \(0, 0, 0\), .* background .255, 255, 255.; rest",
        ),
        (("background", "nucleus"), (BLACK, WHITE), r"class 1 was cell .* is nucleus .*; .* choose another --out"),
        (("background",), (BLACK,), r"class 1 was cell .* is absent"),
    ],
)
def test_a_run_goes_on_with_the_classes_it_began_with(tiny_experiment, tmp_path, names, colors, message):
    def remember(images, resumed=True):
        train_set, val_set = (
            Files(CLASSES, [Example(Path("image"), Path("mask"))] * count, lambda *_: None) for count in (images, 8)
        )
        return remember_data(tmp_path, train_set, val_set, resumed=resumed)

    with open_run(tiny_experiment, tmp_path, CLASSES):
        assert remember(23, resumed=False) == []
        assert remember(24, resumed=False) == []
        (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    before = (tmp_path / "config.json").read_text()
    with (
        pytest.raises(InputError, match=message),
        open_run(changed(tiny_experiment, steps=20), tmp_path, Classes(names, colors)),
    ):
        pass
    assert (tmp_path / "config.json").read_text() == before
    with open_run(tiny_experiment, tmp_path, CLASSES):
        assert remember(27) == ["warning: 27 images to train on, but 24 before"]
        assert remember(27) == []


def test_damaged_files_of_a_run_are_named(tiny_experiment, tmp_path):
    with open_run(tiny_experiment, tmp_path, CLASSES):
        (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "dataset.json").write_text(
        '{"classes": {"names": ["background", "cell"], "palette": [[0, 0, 0]]}, "train_images": 1, "val_images": 1}'
    )
    with (
        pytest.raises(InputError, match=r"dataset.json.*2 class names need as many colors, not 1"),
        open_run(tiny_experiment, tmp_path, CLASSES),
    ):
        pass
    (tmp_path / "config.json").write_text('{"model": 3}')
    with (
        pytest.raises(InputError, match=r"exists and holds no run \(.*config.json.*\); choose another --out"),
        open_run(tiny_experiment, tmp_path, CLASSES),
    ):
        pass


def test_epochs_and_parts_of_them_become_steps(tiny_experiment):
    classes = Classes(("a", "b", "c", "d", "e"), default_palette(5))
    experiment = changed(tiny_experiment, batch_size=8, epochs=2.5, validate_epochs=0.25)
    fitted = fit_to_data(experiment, classes, 100).train
    assert (fitted.steps, fitted.validate_every) == (31, 3)
    assert (fitted.epochs, fitted.validate_epochs) == (None, None)
    for fields in ({"epochs": 0.0}, {"validate_epochs": -1.0}, {"patience": 0}):
        (name,) = fields
        with pytest.raises(InputError, match=f"{name}={fields[name]} must be positive"):
            TrainConfig(**fields)


def test_the_last_update_is_whole_and_after_the_warm_up(tiny_experiment):
    classes = Classes(("a", "b", "c", "d", "e"), default_palette(5))

    def fitted(steps, **optim):
        return fit_to_data(
            replace(changed(tiny_experiment, **steps), optim=OptimConfig(**optim)), classes, 100
        ).train.steps

    with pytest.raises(InputError, match=r"10 steps must be a multiple of optim\.grad_accum_steps=4; try 12"):
        fitted({"steps": 10}, grad_accum_steps=4)
    assert fitted({"steps": 12}, grad_accum_steps=4) == 12
    assert fitted({"epochs": 1.0, "batch_size": 10}, grad_accum_steps=4) == 12
    with pytest.raises(InputError, match=r"optim\.warmup=3 must be below the 3 updates of the run"):
        fitted({"steps": 12}, grad_accum_steps=4, warmup=3)
