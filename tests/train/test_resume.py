"""Runs that are interrupted or extended, and go on."""

import shutil
import signal
from dataclasses import replace

import jax
import numpy as np
import pytest

from deeplab_jax.config import Experiment, OptimConfig
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import train_batches
from deeplab_jax.serialization import load_json
from deeplab_jax.train import validate
from deeplab_jax.train.checkpoint import Checkpoints
from deeplab_jax.train.loop import train
from deeplab_jax.train.preemption import Preempted
from deeplab_jax.train.run_dir import last_checkpoint
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
