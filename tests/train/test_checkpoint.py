"""Checkpoints that come back bit by bit, are damaged, or find a full disk."""

import resource
import shutil

import jax
import numpy as np
import pytest

from deeplab_jax.errors import InputError
from deeplab_jax.train.checkpoint import Checkpoints, Progress
from deeplab_jax.train.sharding import make_shardings
from deeplab_jax.train.step import init_state


def saved_states(experiment, folder, steps=(1, 2)):
    """Checkpoints of a few steps, and a state to restore into."""
    _, state = init_state(experiment, make_shardings())
    checkpoints = Checkpoints(folder)
    for step in steps:
        state = state._replace(step=state.step * 0 + step)
        checkpoints.save(state, Progress(0.25, 1, step, [1.5]))
    checkpoints.close()
    return state


@pytest.mark.slow
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
