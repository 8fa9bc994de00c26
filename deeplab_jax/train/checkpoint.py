"""Checkpoints of a run. The only file that imports Orbax."""

import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from deeplab_jax.train.step import TrainState


class Checkpoints:
    """The newest two states of a run, each with a few plain figures beside it.

    Orbax writes into a temporary folder and renames it when it is whole: a killed run leaves the last one readable.
    """

    def __init__(self, folder: Path):
        for left_by_a_killed_run in folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(left_by_a_killed_run)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, state: TrainState, figures: dict[str, Any]) -> None:
        step = int(state.step)
        if step not in self._manager.all_steps():
            items = ocp.args.Composite(state=ocp.args.StandardSave(state), figures=ocp.args.JsonSave(figures))
            self._manager.save(step, args=items)

    def restore(self, state: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state, laid out like the given one, and its figures; None where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), figures=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return TrainState(*restored["state"]), restored["figures"]

    def close(self) -> None:
        self._manager.close()
