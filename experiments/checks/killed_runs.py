"""Kills ten training runs with SIGKILL, half of them while a checkpoint is being written, and lets them go on.

    python experiments/checks/killed_runs.py --out FOLDER

Every run is killed three times at random moments before it may end. Then its package, the last checkpoint and all
logged losses are compared with those of a run that nobody killed, bit by bit. After each kill it must have gone on from
the newest checkpoint that was whole.
"""

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

from deeplab_jax.config import Experiment
from deeplab_jax.data.generate import generate
from deeplab_jax.demo import demo_experiment
from deeplab_jax.serialization import to_dict
from deeplab_jax.train.checkpoint import Checkpoints
from deeplab_jax.train.sharding import make_shardings
from deeplab_jax.train.step import init_state
from deeplab_jax.train.tracking.tracker import read_records

RUNS, KILLS, STEPS, SAVE_EVERY = 10, 3, 40, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--seed", type=int, help="of the moments; by default another every time")
    out, seed = (options := parser.parse_args()).out, options.seed
    seed = random.randrange(10**6) if seed is None else seed
    print(f"moments drawn from seed {seed}")
    out.mkdir()
    generate(out / "data", 32)
    base = demo_experiment(out / "data")
    train = replace(base.train, steps=STEPS, batch_size=4, log_every=3, validate_every=10, save_every=SAVE_EVERY)
    experiment = replace(
        base,
        preprocess=replace(base.preprocess, size=(32, 32)),
        augment=replace(base.augment, crop=(32, 32)),
        optim=replace(base.optim, ema_decay=0.9),
        train=train,
    )
    recipe = out / "recipe.py"
    recipe.write_text(
        "import json\nfrom deeplab_jax.config import Experiment, from_dict\n"
        f"config = from_dict(Experiment, json.loads({json.dumps(to_dict(experiment))!r}))\n"
    )
    assert start(recipe, out / "whole").wait() == 0
    expected, equal = dict(contents(experiment, out / "whole")), 0
    for number in range(RUNS):
        chance, run = random.Random(f"{seed} {number}"), out / f"run{number}"
        moments = [kill_once(recipe, run, chance, while_saving=number % 2 == 1) for _ in range(KILLS)]
        assert start(recipe, run).wait() == 0
        actual = dict(contents(experiment, run))
        differing = [name for name in expected if not np.array_equal(expected[name], actual[name])]
        equal += not differing and actual.keys() == expected.keys()
        result = "equal" if not differing else f"DIFFERS in {', '.join(differing)}"
        print(f"run {number}: killed {'; '.join(moments)}: {len(actual)} arrays {result}", flush=True)
    print(f"{equal} of {RUNS} runs equal to the unbroken one, bit by bit")
    sys.exit(equal != RUNS)


def start(recipe: Path, run: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "deeplab_jax", "train", str(recipe), "--out", str(run)]
    with (recipe.parent / f"{run.name}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def kill_once(recipe: Path, run: Path, chance: random.Random, while_saving: bool) -> str:
    """Starts the run and kills it; returns when that was."""
    log, before = recipe.parent / f"{run.name}.log", whole_checkpoints(run)
    length = log.stat().st_size if log.exists() else 0
    process = start(recipe, run)
    goal = before[-1] + chance.randint(1, 9) if before else chance.randint(1, 9)
    while process.poll() is None and last_step(run) < goal:
        time.sleep(0.005)
    if while_saving:
        while process.poll() is None and not list((run / "checkpoints").glob("*.orbax-checkpoint-tmp*")):
            pass
    time.sleep(chance.uniform(0, 0.05 if while_saving else 1.0))
    process.send_signal(signal.SIGKILL)
    process.wait()
    stated, newest = log.read_text()[length:], before[-1] if before else 0
    resumed = re.search(r"going on after step (\d+)", stated)
    if resumed or re.search(r"^step \d", stated, re.MULTILINE):  # else it was killed before it said or did anything
        assert (int(resumed[1]) if resumed else 0) == newest, f"{run} did not go on after step {newest}"
    saving = " while saving" if list((run / "checkpoints").glob("*.orbax-checkpoint-tmp*")) else ""
    return f"after step {last_step(run)}{saving}"


def whole_checkpoints(run: Path) -> list[int]:
    return sorted(int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit())


def last_step(run: Path) -> int:
    """That was logged or saved."""
    return max([record["step"] for record in read_records(run)] + whole_checkpoints(run), default=0)


def contents(experiment: Experiment, run: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of the package and of the last checkpoint, and the losses that were logged."""
    for name, array in load_file(run / "package" / "weights.safetensors").items():
        yield f"package {name}", array
    checkpoints = Checkpoints(run / "checkpoints")
    restored = checkpoints.restore(init_state(experiment, make_shardings(jax.devices()[:1]))[1])
    checkpoints.close()
    assert restored
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored[0]):
        yield f"checkpoint {jax.tree_util.keystr(path)}", np.asarray(leaf)
    yield "losses", np.array([record["loss"] for record in read_records(run)])


if __name__ == "__main__":
    main()
