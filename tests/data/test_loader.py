"""Batches: their order, their ends, their parts, and who reads them."""

import subprocess
import sys

import numpy as np
import pytest

from deeplab_jax.config import IGNORE, DataConfig, PreprocessConfig
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import HostShard, eval_batches, train_batches

PREPROCESS = PreprocessConfig(size=(40, 56))


def test_batches_are_a_function_of_the_step(shapes_folder):
    dataset = open_dataset(shapes_folder, "folder", "train")
    whole = list(train_batches(dataset, PREPROCESS, 8, range(0, 6), 3, DataConfig(threads=2)))
    rest = list(train_batches(dataset, PREPROCESS, 8, range(4, 6), 3, DataConfig(threads=4)))
    assert len(whole) == 6
    assert len(rest) == 2
    for unbroken, resumed in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(unbroken["image"], resumed["image"])
        np.testing.assert_array_equal(unbroken["mask"], resumed["mask"])
    assert list(train_batches(dataset, PREPROCESS, 8, range(6, 6), 3, DataConfig(threads=2))) == []


def test_epochs_hold_every_image_once_in_new_orders(shapes_folder):
    dataset = open_dataset(shapes_folder, "folder", "train")
    batches = list(train_batches(dataset, PREPROCESS, 4, range(6), 0, DataConfig()))
    sums = np.concatenate([batch["image"].astype(int).sum((1, 2, 3)) for batch in batches])
    assert sorted(sums[:12]) == sorted(sums[12:])
    assert list(sums[:12]) != list(sums[12:])


def test_the_last_validation_batch_is_filled_with_void(shapes_folder):
    dataset = open_dataset(shapes_folder, "folder", "val")
    batches = list(eval_batches(dataset, PREPROCESS, 4, DataConfig()))
    assert [batch["image"].shape for batch in batches] == [(4, 40, 56, 3)] * 2
    assert (batches[1]["mask"][1:] == IGNORE).all()
    assert (batches[1]["mask"][0] != IGNORE).any()


def test_parts_of_batches_make_up_the_whole(shapes_folder):
    """What several processes read, side by side, is what one reads; the last batch of an evaluation is filled up."""
    dataset = open_dataset(shapes_folder, "folder", "val")
    for read in (
        lambda part: train_batches(dataset, PREPROCESS, 4, range(1, 4), 3, DataConfig(), part),
        lambda part: eval_batches(dataset, PREPROCESS, 4, DataConfig(), part),
    ):
        halves = zip(*(list(read(HostShard(i, 2))) for i in range(2)), strict=True)
        for whole, (one, two) in zip(read(HostShard()), halves, strict=True):
            for name in whole:
                np.testing.assert_array_equal(whole[name], np.concatenate([one[name], two[name]]))


WORKERS = """
import sys
from pathlib import Path
from deeplab_jax.config import DataConfig, PreprocessConfig
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import train_batches
from deeplab_jax.errors import InputError

if __name__ == "__main__":
    dataset = open_dataset(Path(sys.argv[1]), "folder", "train")
    def read(workers, steps=range(2, 9)):
        config = DataConfig(workers=workers)
        return [b["image"].sum() for b in train_batches(dataset, PreprocessConfig((16, 16)), 4, steps, 0, config)]
    assert read(2) == read(0)
    assert read(2, range(5, 5)) == []
    (Path(sys.argv[1]) / "masks/train/0.png").write_text("damaged")
    try:
        read(2)
    except InputError as error:
        print("fault:", error)
"""


@pytest.mark.slow
def test_worker_processes_read_the_same_and_pass_on_faults(broken, tmp_path):
    script = tmp_path / "read.py"
    script.write_text(WORKERS)
    done = subprocess.run([sys.executable, script, broken], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fault: ")
    assert "masks/train/0.png cannot be read as an image" in done.stdout
    assert "leaked" not in done.stderr
