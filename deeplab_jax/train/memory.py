"""What to do about a run that takes too much memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from deeplab_jax.config import Experiment
from deeplab_jax.errors import InputError, first_line


@contextmanager
def explain_lack_of_memory(config: Experiment) -> Iterator[None]:
    """Raises InputError, which names sizes that help, where the host's or a device's memory is full."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        of_host = isinstance(error, MemoryError)
        if not of_host and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        batch, (height, width) = config.train.batch_size, config.augment.crop
        raise InputError(
            f"{'the' if of_host else 'a device of this'} machine has too little memory for train.batch_size={batch} "
            f"with augment.crop={height} {width} and preprocess.size={' '.join(map(str, config.preprocess.size))} "
            f"({first_line(error)}); lower one of them, or try train.remat, train.precision=bfloat16, or a smaller "
            "batch with optim.grad_accum_steps"
        ) from error
