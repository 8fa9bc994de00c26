"""Runs that survive: signals, kills, damaged checkpoints, a full disk; and runs that end early."""

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from conftest import QUICK_TO_COMPILE
from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import Experiment, InitConfig, OptimConfig, TrainConfig
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import train_batches
from deeplab_jax.errors import InputError
from deeplab_jax.serialization import load_json, to_dict
from deeplab_jax.train import best, validate
from deeplab_jax.train.checkpoint import Checkpoints, Progress
from deeplab_jax.train.loop import train
from deeplab_jax.train.preemption import Preempted
from deeplab_jax.train.run_dir import extension, fit_to_data, last_checkpoint, open_run
from deeplab_jax.train.sharding import make_shardings, put
from deeplab_jax.train.step import init_state, make_train_step
from deeplab_jax.train.tracking.tracker import Tracker, read_records
from helpers.fixtures import changed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved_at_that_step(tiny_experiment, tmp_path, number):
    run = tmp_path / "run"

    def interrupt(self, step, figures):
        if step == 5:
            signal.raise_signal(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "train", interrupt)
        before = signal.getsignal(number)
        with pytest.raises(Preempted) as error:
            train(changed(tiny_experiment, save_every=100), run)
    assert error.value.exit_status == 128 + number
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["5"]
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_a_signal_during_validation_leaves_and_validates_next_time(tiny_experiment, tmp_path):
    """A validation may take longer than a cluster waits: it is left at once, and its figures are not lost."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny_experiment, whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "put", lambda *arguments: signal.raise_signal(signal.SIGTERM) or put(*arguments))
        for _ in range(2):
            with pytest.raises(Preempted):
                train(tiny_experiment, broken)
            assert {record["split"] for record in read_records(broken)} == {"train"}
            assert max(int(path.name) for path in (broken / "checkpoints").iterdir()) == 6
    for _ in range(2):
        train(tiny_experiment, broken)
        records = [[(r["step"], r["split"], r["loss"]) for r in read_records(run)] for run in (whole, broken)]
        assert records[0] == records[1]


@pytest.mark.slow
def test_logged_losses_are_those_of_an_unbroken_run(tiny_experiment, tmp_path):
    """Also where the interval of the log does not divide that of the checkpoints."""
    experiment = changed(tiny_experiment, steps=6, log_every=5, save_every=3, validate_every=6)
    train(experiment, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "6")
    train(experiment, tmp_path / "broken")
    figures = ("step", "loss", "lr", "grad_norm")
    whole, broken = ([[r.get(f) for f in figures] for r in read_records(tmp_path / n)] for n in ("whole", "broken"))
    assert whole == broken


def saved_states(experiment, folder, steps=(1, 2)):
    """Checkpoints of a few steps, and a state to restore into."""
    _, state = init_state(experiment, make_shardings())
    checkpoints = Checkpoints(folder)
    for step in steps:
        state = state._replace(step=state.step * 0 + step)
        checkpoints.save(state, Progress(0.25, 1, step, [1.5]))
    checkpoints.close()
    return state


def test_checkpoints_restore_every_bit(tiny_experiment, tmp_path):
    state = saved_states(tiny_experiment, tmp_path)
    checkpoints = Checkpoints(tmp_path)
    restored, progress, notes = checkpoints.restore(init_state(tiny_experiment, make_shardings())[1])
    checkpoints.close()
    assert (progress, notes) == (Progress(0.25, 1, 2, [1.5]), [])
    for old, new in zip(*(jax.tree.leaves(s) for s in (state, restored)), strict=True):
        np.testing.assert_array_equal(old, new)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_progress(step):
    (path,) = (path for path in (step / "progress").iterdir() if "1.5" in path.read_text())
    path.write_text(path.read_text().replace("1.5", "1.6"))


DAMAGE = {
    "a file cut short": lambda step: cut(max(step.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)),
    "every file cut short": lambda step: [cut(path) for path in step.rglob("*") if path.is_file()],
    "a folder missing": lambda step: shutil.rmtree(step / "state"),
    "no progress": lambda step: shutil.rmtree(step / "progress"),
    "one bit": lambda step: turn_a_bit(max(step.glob("state/**/*"), key=lambda path: path.stat().st_size)),
    "another loss": lambda step: change_progress(step),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tiny_experiment, tmp_path, damage):
    state = saved_states(tiny_experiment, tmp_path)
    DAMAGE[damage](tmp_path / "2")
    checkpoints = Checkpoints(tmp_path)
    restored, _, notes = checkpoints.restore(state)
    assert int(restored.step) == 1
    assert notes[0].startswith("warning: the checkpoint of step 2 is damaged (")
    checkpoints.save(restored._replace(step=restored.step + 1), Progress(0.25, 1, 2, [1.5]))
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "damaged-2"]

    DAMAGE[damage](tmp_path / "1")
    DAMAGE[damage](tmp_path / "2")
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(InputError, match=r"no checkpoint can be read \(of step 2: .*; put a copy back, or remove"):
        checkpoints.restore(state)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "damaged-2"]


def test_a_full_disk_names_the_checkpoint_that_is_whole(tiny_experiment, tmp_path):
    """A limit on the size of files stands in for it: writing fails half-way, with an error of the system."""
    state = saved_states(tiny_experiment, tmp_path, steps=(1,))
    checkpoints = Checkpoints(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            InputError, match=r"step 2 cannot be written \(File too large\); the one of step 1 is whole. Make"
        ):
            checkpoints.save(state._replace(step=state.step + 1), Progress())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    restored, _, notes = checkpoints.restore(state)
    checkpoints.close()
    assert (int(restored.step), notes) == (1, [])


@pytest.mark.slow
def test_patience_ends_a_run_that_no_longer_gains(tiny_experiment, tmp_path, capsys):
    """Figures are made up: the second of four is the best, and two without a gain follow."""
    experiment = changed(tiny_experiment, steps=12, validate_every=2, save_every=100, patience=2)
    made_up, true_scores = iter([0.2, 0.4, float("nan"), 0.3]), validate.scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "scores", lambda *arguments: replace(true_scores(*arguments), miou=next(made_up)))
        progress = train(experiment, tmp_path / "run")
    assert (progress.best, progress.without_gain) == (0.4, 2)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["8"]
    assert "no better validation in 2: stopped after step 8" in capsys.readouterr().out
    train(experiment, tmp_path / "run")  # it stays ended
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["8"]


def restored(experiment, run):
    checkpoints = Checkpoints(run / "checkpoints")
    state = checkpoints.restore(init_state(experiment, make_shardings())[1])[0]
    checkpoints.close()
    return state


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_an_extended_run_goes_on_under_the_longer_schedule(tiny_experiment, tmp_path, capsys):
    """To the bit what the steps of the longer run make of the state that the shorter one ended with."""
    run, data = tmp_path / "run", tiny_experiment.data
    short = changed(tiny_experiment, steps=4, validate_every=4, save_every=2)
    long = changed(short, steps=7)
    train(short, run)
    begun = restored(short, run)
    capsys.readouterr()
    train(long, run)
    stated = capsys.readouterr().out.replace("\n", "")
    rates = [0.05 * (1 - step / steps) ** 0.9 for step, steps in ((3, 4), (4, 7))]
    assert f"extended from 4 to 7 steps: the learning rate was {rates[0]:.3g} and goes on with {rates[1]:.3g}" in stated
    assert "it ends with other weights than a run of 7 steps in one go" in stated

    shardings = make_shardings()
    step = make_train_step(long, init_state(long, shardings)[0], shardings)
    dataset = open_dataset(data.root, data.format, "train")
    state = begun
    for batch in train_batches(dataset, long.preprocess, 8, range(4, 7), long.train.seed, data):
        state, _ = step(state, put(batch, shardings))
    assert_equal(restored(long, run), state)
    assert [r["step"] for r in read_records(run) if r["split"] == "train"] == list(range(1, 8))
    assert load_json(Experiment, run / "config.json").train.steps == 7
    assert load_json(Experiment, run / "config-until-step-4.json").train.steps == 4

    train(long, run)  # it stays ended
    stated = capsys.readouterr().out
    assert "going on after step 7; all steps are done, a larger train.steps would go on" in stated
    assert "extended" not in stated


@pytest.mark.slow
def test_under_a_constant_rate_an_extended_run_is_the_longer_one(tiny_experiment, tmp_path, capsys):
    """Also where it is extended before it has ended."""
    constant = replace(tiny_experiment, optim=OptimConfig(lr=0.05, schedule="constant", ema_decay=0.9))
    short, long = (changed(constant, steps=steps, validate_every=6, save_every=2) for steps in (3, 4))
    train(long, tmp_path / "whole")
    train(short, tmp_path / "extended")
    shutil.rmtree(tmp_path / "extended" / "checkpoints" / "3")  # as if it had been killed
    capsys.readouterr()
    train(long, tmp_path / "extended")
    stated = capsys.readouterr().out.replace("\n", "")
    assert "going on after step 2" in stated
    assert "extended from 3 to 4 steps: the learning rate is constant, so it ends with the weights of" in stated
    assert_equal(*(restored(long, tmp_path / name) for name in ("whole", "extended")))


def test_an_extension_holds_until_a_step_is_saved(tiny_experiment, tmp_path):
    """A run that is killed soon after is extended again, from the same step or an older one, and to the same end."""
    short, long = changed(tiny_experiment, steps=6, patience=3), changed(tiny_experiment, steps=9, patience=3)
    run = tmp_path / "run"
    for experiment in (short, long, long):
        with open_run(experiment, run):
            (run / "checkpoints" / "4").mkdir(parents=True, exist_ok=True)
    assert extension(run, long, 5) == []
    for step in (4, 2):
        lines = extension(run, long, step)
        last, following = (0.05 * (1 - at / steps) ** 0.9 for at, steps in ((step - 1, 6), (step, 9)))
        assert lines[0].startswith(f"extended from 6 to 9 steps: the learning rate was {last:.3g} and goes on with")
        assert f"{following:.3g}, to fall to 0 by step 9" in lines[0]
        assert lines[1] == "train.patience counts from here"
    (run / "checkpoints" / "8").mkdir()
    with open_run(changed(long, steps=20), run):
        pass
    assert extension(run, changed(long, steps=20), 8)[0].startswith("extended from 9 to 20 steps")


@pytest.mark.slow
def test_a_run_that_lost_patience_goes_on_when_it_is_extended(tiny_experiment, tmp_path, capsys):
    experiment = changed(tiny_experiment, steps=6, validate_every=1, save_every=100, patience=1)
    made_up, true_scores = iter([0.4, 0.3, 0.5, 0.6, 0.1]), validate.scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "scores", lambda *arguments: replace(true_scores(*arguments), miou=next(made_up)))
        assert train(experiment, tmp_path / "run").without_gain == 1
        progress = train(changed(experiment, steps=7), tmp_path / "run")
    assert (progress.best, progress.without_gain) == (0.6, 1)
    assert last_checkpoint(tmp_path / "run") == 5
    assert "train.patience counts from here" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("best_by", ["miou", "loss"])
def test_the_package_is_of_the_best_validation(tiny_experiment, tmp_path, best_by):
    experiment = changed(tiny_experiment, validate_every=2, best_by=best_by)
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best.jax_backend, "save", lambda *_: saved.append(len(read_records(tmp_path / "run"))))
        progress = train(experiment, tmp_path / "run")
    records = read_records(tmp_path / "run")
    actual = [(n, r[best_by]) for n, r in enumerate(records) if r["split"] == "val"]
    better = max if best_by == "miou" else min
    expected = [n for i, (n, value) in enumerate(actual) if all(better(value, v) != v for _, v in actual[:i])]
    assert saved == expected
    assert progress.best == pytest.approx(better(value for _, value in actual))


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


def start(experiment: Path, run: Path, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "deeplab_jax", "train", str(experiment), "--out", str(run)]
    command += ["--distributed"] if environment else []
    environment = os.environ | {"XLA_FLAGS": QUICK_TO_COMPILE} | environment
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_recipe(folder: Path, experiment) -> Path:
    recipe = folder / "tiny.py"
    recipe.write_text(
        "import json\nfrom deeplab_jax.config import Experiment\nfrom deeplab_jax.serialization import from_dict\n"
        f"config = from_dict(Experiment, json.loads({json.dumps(to_dict(experiment))!r}))\n"
    )
    return recipe


def start_two(experiment: Path, run: Path) -> list[subprocess.Popen]:
    """On loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    where = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(experiment, run, **where, JAX_PROCESS_ID=str(i)) for i in range(2)]


@pytest.mark.slow
def test_two_processes_train_as_one(tiny_experiment, tmp_path):
    """Each reads its half of every batch; or, where both share every image, all of it."""
    gentle = replace(
        tiny_experiment,
        optim=OptimConfig(lr=0.01),
        augment=replace(tiny_experiment.augment, crop=(96, 96)),  # as in test_one_device_and_eight_train_alike
    )
    experiment = changed(gentle, steps=5, batch_size=8, validate_every=5, save_every=5)
    train(experiment, tmp_path / "one")
    for space in (1, 2):
        recipe = write_recipe(tmp_path, changed(experiment, spatial_shards=space))
        run = tmp_path / f"two-{space}"
        assert [process.wait(timeout=300) for process in start_two(recipe, run)] == [0, 0]
        one, two = read_records(tmp_path / "one"), read_records(run)
        assert [(r["step"], r["split"]) for r in one] == [(r["step"], r["split"]) for r in two]
        np.testing.assert_allclose([r["loss"] for r in one], [r["loss"] for r in two], rtol=1e-4)
        weights = [load_file(folder / "package" / "weights.safetensors") for folder in (tmp_path / "one", run)]
        for name, array in weights[0].items():
            np.testing.assert_allclose(weights[1][name], array, rtol=0, atol=1e-4 * np.abs(array).max(), err_msg=name)


@pytest.mark.slow
def test_a_fault_in_one_process_ends_both(tiny_experiment, broken, tmp_path):
    for mask in (broken / "masks" / "train").iterdir():
        Image.fromarray(np.full((48, 48), 9, np.uint8)).save(mask)
    recipe = write_recipe(tmp_path, replace(tiny_experiment, data=replace(tiny_experiment.data, root=broken)))
    statuses = [process.wait(timeout=100) for process in start_two(recipe, tmp_path / "run")]
    assert 0 not in statuses
    assert 1 in statuses


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tiny_experiment, tiny_package, tmp_path):
    experiment = changed(tiny_experiment, steps=24, validate_every=10, save_every=4, log_every=3)
    recipe = write_recipe(tmp_path, replace(experiment, init=InitConfig(tiny_package)))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(recipe, whole).wait(timeout=300) == 0

    step = random.randrange(5, 21)
    process = start(recipe, broken)
    while process.poll() is None and not any(record["step"] >= step for record in read_records(broken)):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"the run was over before step {step}"
    assert start(recipe, broken).wait(timeout=300) == 0, f"killed at step {step}"

    for name, array in load_file(whole / "package" / "weights.safetensors").items():
        np.testing.assert_array_equal(array, load_file(broken / "package" / "weights.safetensors")[name], f"{step}")
    losses = [[(r["step"], r["split"], r["loss"]) for r in read_records(run)] for run in (whole, broken)]
    assert losses[0] == losses[1], f"killed at step {step}"
    states = []
    for run in (whole, broken):
        checkpoints = Checkpoints(run / "checkpoints")
        template = init_state(tiny_experiment, make_shardings(jax.devices()[:1]))[1]
        states.append(checkpoints.restore(template)[0])
        checkpoints.close()
    for one, two in zip(*(jax.tree.leaves(state) for state in states), strict=True):
        np.testing.assert_array_equal(one, two, f"killed at step {step}")
