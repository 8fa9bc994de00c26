"""Which validation is the best, and when no better one is waited for."""

from dataclasses import replace

import jax.numpy as jnp
import pytest
from flax import nnx

from deeplab_jax.errors import InputError
from deeplab_jax.package import jax_weights
from deeplab_jax.train import validate
from deeplab_jax.train.best import MODES, Best
from deeplab_jax.train.checkpoint import Progress
from deeplab_jax.train.loop import train
from deeplab_jax.train.step import TrainState
from deeplab_jax.train.tracking.tracker import read_records
from helpers.fixtures import changed

NAN, INFINITE = float("nan"), float("inf")


def state_of(step: int = 0) -> TrainState:
    return TrainState(jnp.array(step), nnx.State({}), nnx.State({}), None, None)


def best_of(figures, mode, progress=None):
    """The progress after these validations, at steps 1, 2, ..., and the steps whose state was kept."""
    kept = []
    progress = progress or Progress()
    best = Best(progress, "figure", mode, lambda state: kept.append(int(state.step)))
    for step, figure in enumerate(figures, 1):
        best.update(step, {"other": -float(step), "figure": figure}, state_of(step))
    return progress, kept


@pytest.mark.parametrize(
    ("mode", "figures", "kept", "best"),
    [
        ("max", [0.2, 0.1, 0.3, 0.25], [1, 3], 0.3),
        ("min", [0.2, 0.1, 0.3, 0.05], [1, 2, 4], 0.05),
        ("max", [0.0, 0.0, 0.5, 0.5], [1, 3], 0.5),  # one that equals the best is not better
        ("min", [0.0, 0.0, -1.0, -1.0], [1, 3], -1.0),
        ("max", [NAN, 0.1, NAN, 0.2], [2, 4], 0.2),  # nor is one that is no number
        ("min", [NAN, 0.2, NAN, 0.1], [2, 4], 0.1),
        ("min", [INFINITE, 3.0, INFINITE], [1, 2], 3.0),
        ("max", [NAN, NAN], [], None),
    ],
)
def test_the_best_is_kept(mode, figures, kept, best):
    progress, actual = best_of(figures, mode)
    assert actual == kept
    assert progress.best == best
    assert progress.without_gain == len(figures) - (kept[-1] if kept else 0)
    assert progress.validated == len(figures)


@pytest.mark.parametrize(("mode", "kept"), [("max", [2]), ("min", [1])])
def test_a_run_that_goes_on_knows_its_best(mode, kept):
    before = Progress(best=0.4, without_gain=3)
    progress, actual = best_of([0.3, 0.5], mode, before)
    assert progress is before
    assert actual == kept
    assert progress.without_gain == 2 - kept[0]


def test_patience_counts_validations_since_the_best():
    progress = Progress()
    best = Best(progress, "miou", "max", lambda _: None, patience=2)
    ended = []
    for figure in (0.1, 0.3, 0.3, 0.4, 0.2, NAN):
        ended.append(best.is_final)
        best.update(1, {"miou": figure}, state_of())
    assert (ended, best.is_final) == ([False] * 6, True)
    assert Best(progress, "miou", "max", lambda _: None, patience=3).is_final is False
    assert Best(progress, "miou", "max", lambda _: None).is_final is False


def test_a_package_that_cannot_be_written_leaves_the_validation_owed():
    def fail(_):
        raise InputError("the disk is full")

    progress = Progress(best=0.4, validated=5)
    with pytest.raises(InputError):
        Best(progress, "miou", "max", fail).update(10, {"miou": 0.5}, state_of())
    assert progress == Progress(best=0.4, validated=5)


def test_every_figure_to_choose_by_has_its_mode():
    assert MODES == {"miou": "max", "loss": "min"}


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


@pytest.mark.slow
@pytest.mark.parametrize("best_by", ["miou", "loss"])
def test_the_package_is_of_the_best_validation(tiny_experiment, tmp_path, best_by):
    experiment = changed(tiny_experiment, validate_every=2, best_by=best_by)
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_weights, "save", lambda *_: saved.append(len(read_records(tmp_path / "run"))))
        progress = train(experiment, tmp_path / "run")
    records = read_records(tmp_path / "run")
    actual = [(n, r[best_by]) for n, r in enumerate(records) if r["split"] == "val"]
    better = max if best_by == "miou" else min
    expected = [n for i, (n, value) in enumerate(actual) if all(better(value, v) != v for _, v in actual[:i])]
    assert saved == expected
    assert progress.best == pytest.approx(better(value for _, value in actual))
