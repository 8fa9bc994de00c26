"""The device mesh, and where everything lies on it. The one place that knows about shardings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deeplab_jax.data.pipeline import Batch
from deeplab_jax.errors import InputError


@dataclass(frozen=True)
class Shardings:
    state: NamedSharding  # a whole copy on every device
    batch: NamedSharding  # pictures split over the devices


def make_shardings(devices: Sequence[Any] | None = None) -> Shardings:
    """One mesh axis, `data`, over the given devices or all of them."""
    mesh = Mesh(devices or jax.devices(), ("data",))
    return Shardings(NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data")))


def check_batch_size(batch_size: int, shardings: Shardings) -> None:
    devices = shardings.batch.mesh.size
    if batch_size < 1 or batch_size % devices:
        fitting = max(batch_size // devices, 1) * devices
        raise InputError(f"batch_size={batch_size} must be a multiple of {devices} devices; try {fitting}")


def put(batch: Batch, shardings: Shardings) -> dict[str, Any]:
    """A host's batch, on its devices."""
    return {name: jax.make_array_from_process_local_data(shardings.batch, array) for name, array in batch.items()}
