"""Runs in processes of their own: killed ones, and two that train together."""

import json
import os
import random
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
from deeplab_jax.config import InitConfig, OptimConfig
from deeplab_jax.serialization import to_dict
from deeplab_jax.train.checkpoint import Checkpoints
from deeplab_jax.train.loop import train
from deeplab_jax.train.sharding import make_shardings
from deeplab_jax.train.step import init_state
from deeplab_jax.train.tracking.tracker import read_records
from helpers.fixtures import changed


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
