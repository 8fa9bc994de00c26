"""`deeplab train`. Like every command it imports what it needs when it runs."""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import AvoidSubcommands, arg

from deeplab_jax.cli.terminal import print_error, say
from deeplab_jax.config import Experiment
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.train.experiment import load_experiment


def train(arguments: Sequence[str]) -> None:
    """Train EXPERIMENT.py; run again with the same --out to go on after an interruption."""
    if arguments and arguments[0] in ("-h", "--help"):
        return say(
            "usage: deeplab train EXPERIMENT.py [--out RUN] [--train.steps N] ...; EXPERIMENT.py --help lists all. A "
            "training file of Supervisely's (.json) is an experiment too"
        )
    if not arguments or arguments[0].startswith("-"):
        raise InputError("name an experiment: deeplab train EXPERIMENT.py [--help]")
    experiment = Path(arguments[0])
    recipe = load_experiment(experiment, arguments[1:])

    def run(
        config: Annotated[AvoidSubcommands[Experiment], arg(name="")] = recipe,
        out: Path = Path("runs", experiment.stem),
        distributed: bool = False,
    ) -> None:
        """Trains; run again with the same --out to go on after an interruption.

        Args:
            config: the experiment's fields.
            out: the run folder.
            distributed: one of several processes that train together (SLURM, Cloud TPU, or as the environment says in
                JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID).
        """
        from deeplab_jax.train import loop
        from deeplab_jax.train.sharding import is_main, join_processes

        with leaving_at_once() if distributed else nullcontext():
            if distributed:
                join_processes()
            try:
                best = loop.train(config, out).best or 0.0
            except OSError as error:
                where = error.filename or out
                raise InputError(f"{where}: {error.strerror or error}; mend that and run the same command") from None
        figure = f"mIoU {best:.4f}" if config.train.best_by == "miou" else f"loss {best:.4f}"
        if is_main():
            say(f"best validation {figure}; package: {out / 'package'}; curves: {out / 'curves.png'}")

    tyro.cli(run, prog=f"deeplab train {experiment}", args=arguments[1:])


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """On an error this process ends without waiting for the others, which would wait for it in turn."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, InputError | OSError | RuntimeError):
            traceback.print_exc()
        print_error(first_line(error))
        if isinstance(error, RuntimeError):
            print_error("another process may have ended; see what it said")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
