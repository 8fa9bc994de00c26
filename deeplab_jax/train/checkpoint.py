"""Checkpoints of a run. The only file that imports Orbax."""

import json
import logging
import re
import shutil
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from deeplab_jax.errors import InputError, first_line
from deeplab_jax.train.sharding import is_main, wait_for_all
from deeplab_jax.train.step import TrainState


@dataclass
class Progress:
    """What a run knows of itself besides its state."""

    best: float | None = None  # of validations, by train.best_by: the largest mIoU, or the smallest loss
    without_gain: int = 0  # validations since the best one
    validated: int = 0  # the step of the last one
    losses: list[Any] = field(default_factory=list)  # of the steps since the last record of them


class Checkpoints:
    """The newest two states of a run and its progress.

    Orbax writes into a temporary folder and renames it when it is whole: a killed run leaves the last one readable.
    """

    def __init__(self, folder: Path):
        for left_by_a_killed_run in folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(left_by_a_killed_run, ignore_errors=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Nothing where that step is saved already. Raises InputError where it cannot be, such as on a full disk."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        progress.losses[:] = map(float, progress.losses)
        record = {"progress": asdict(progress), "checksum": checksum(state, progress)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(record))
        before = self._manager.latest_step()
        try:
            with _quiet():
                self._manager.save(step, args=items)
        except (OSError, ValueError, RuntimeError) as error:  # of the file system, by way of TensorStore or not
            kept = f"the one of step {before} is whole" if before is not None else "there is none yet"
            raise InputError(
                f"{self._folder}: the checkpoint of step {step} cannot be written ({_reason(error)}); {kept}. Make "
                "room and run the same command again"
            ) from None

    def restore(self, state: TrainState) -> tuple[TrainState, Progress, list[str]] | None:
        """The newest state that can be read, laid out like the given one, its progress, and what to say of newer ones.

        None where there is no checkpoint. Those that cannot be read are put aside once an older one is.

        Raises:
            InputError: where there are some and none can be read.
        """
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore())
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=items)
                result, progress = TrainState(*restored["state"]), Progress(**restored["progress"]["progress"])
                if checksum(result, progress) != restored["progress"]["checksum"]:
                    raise ValueError("it is not what was saved")
            except Exception as error:  # damage has as many kinds as there are files in a checkpoint
                damaged[step] = _reason(error)
                continue
            self._put_aside(damaged)
            return result, progress, [f"warning: the checkpoint of step {n} is damaged ({damaged[n]})" for n in damaged]
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise InputError(
                f"{self._folder}: no checkpoint can be read (of step {step}: {reason}); put a copy back, or remove the "
                "folder to begin again"
            )
        return None

    def _put_aside(self, steps: Collection[int]) -> None:
        if steps and is_main():
            for step in steps:
                aside = self._folder / f"damaged-{step}"
                shutil.rmtree(aside, ignore_errors=True)
                (self._folder / str(step)).rename(aside)
        if steps:
            wait_for_all("damaged checkpoints")
            self._manager.reload()

    def close(self) -> None:
        self._manager.close()


def checksum(state: TrainState, progress: Progress) -> int:
    """Of every bit, in all processes alike: each holds a whole copy."""
    total = zlib.crc32(json.dumps(asdict(progress)).encode())
    for leaf in jax.tree.leaves(state):
        total = zlib.crc32(np.asarray(leaf).tobytes(), total)
    return total


def _reason(error: Exception) -> str:
    """What the system says, where TensorStore wraps it; else the first line."""
    system = re.search(r"([A-Z][\w ']+) \[os_error_code", str(error))
    return system[1] if system else first_line(error)[:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Orbax logs no tracebacks: what fails is raised as well."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
