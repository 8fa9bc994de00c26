"""The device mesh, and where everything lies on it. The one place that knows about shardings and processes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deeplab_jax.config import Experiment
from deeplab_jax.data.loader import Batch, HostShard
from deeplab_jax.errors import InputError, first_line


@dataclass(frozen=True)
class Shardings:
    state: NamedSharding  # a whole copy on every device
    batch: NamedSharding  # images split over the axis `data`
    rows: NamedSharding  # and the rows of each over the axis `spatial`


def make_shardings(devices: Sequence[Any] | None = None, spatial_shards: int = 1) -> Shardings:
    """A mesh of the axes `data` and `spatial` over the given devices or all of them.

    Args:
        devices: by default all that there are, of all processes.
        spatial_shards: how many devices share one image, each some of its rows. What a convolution needs of its
            neighbors' rows is exchanged by XLA.

    Raises:
        InputError: where the devices cannot be grouped so.
    """
    devices = devices or jax.devices()
    if len(devices) % spatial_shards:
        raise InputError(f"train.spatial_shards={spatial_shards} must divide the number of devices, {len(devices)}")
    local = jax.local_device_count()
    if not is_alone() and spatial_shards % local and local % spatial_shards:
        raise InputError(
            f"train.spatial_shards={spatial_shards} must divide the {local} devices of every process, or be a multiple"
        )
    mesh = Mesh(np.array(devices).reshape(-1, spatial_shards), ("data", "spatial"))
    return Shardings(*(NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",), ("data", "spatial"))))


def check_fit(config: Experiment, shardings: Shardings) -> None:
    """Raises InputError where a batch or a crop cannot be split over the mesh."""
    groups, spatial_shards = shardings.batch.mesh.shape.values()
    batch_size, height = config.train.batch_size, config.augment.crop[0]
    if batch_size % groups:
        fitting = max(batch_size // groups, 1) * groups
        what = f"{groups} groups of {spatial_shards} devices" if spatial_shards > 1 else f"{groups} devices"
        raise InputError(f"batch_size={batch_size} must be a multiple of {what}; try {fitting}")
    if height % spatial_shards:
        raise InputError(
            f"augment.crop={config.augment.crop} must have a multiple of train.spatial_shards={spatial_shards} rows; "
            f"try {height // spatial_shards * spatial_shards}"
        )


def host_shard(shardings: Shardings) -> HostShard:
    """What this process reads of every batch: the images of its devices, which it may share with other processes."""
    groups = np.asarray(shardings.batch.mesh.devices)
    mine = [n for n, group in enumerate(groups) if jax.process_index() in {device.process_index for device in group}]
    return HostShard(mine[0] // len(mine), len(groups) // len(mine))


def put(batch: Batch, shardings: Shardings) -> dict[str, Any]:
    """This process's part of a batch, on its devices."""
    return {name: jax.make_array_from_process_local_data(shardings.batch, array) for name, array in batch.items()}


def join_processes() -> None:
    """Makes this one of several processes that train together. Call it before anything else of JAX's.

    Raises:
        InputError: where neither the cluster nor the environment says how many there are, or they are not found.
    """
    names = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
    try:
        count, number = (int(os.environ[name]) if name in os.environ else None for name in names)
        jax.distributed.initialize(os.environ.get("JAX_COORDINATOR_ADDRESS"), count, number)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--distributed: {first_line(error)}; start it under SLURM or on Cloud TPU, or set "
            f"JAX_COORDINATOR_ADDRESS, {' and '.join(names)}"
        ) from None


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether no other process trains with this one."""
    return jax.process_count() == 1


def wait_for_all(what: str) -> None:
    if not is_alone():
        multihost_utils.sync_global_devices(what)


def largest_of_all(value: int) -> int:
    """Of the values that all processes give, at the same step."""
    return value if is_alone() else int(np.max(multihost_utils.process_allgather(np.int32(value))))
