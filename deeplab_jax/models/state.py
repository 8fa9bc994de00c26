"""A model's parameters and BatchNorm statistics as named arrays, and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models.deeplab import DeepLab, build_model

Path = tuple[Any, ...]  # attribute names and list indices, from the model down
VARIABLES = (nnx.Param, nnx.BatchStat)


class SameKey(nnx.Rngs):
    """For shapes alone. Counting keys, as Rngs does, takes most of the time that a deep model's shapes take."""

    def params(self) -> jax.Array:
        return jax.random.key(0)


def abstract_model(config: ModelConfig) -> DeepLab:
    """The model with shapes in place of arrays: nothing is computed."""
    return nnx.eval_shape(lambda: build_model(config, rngs=SameKey()))


def flat_state(model: DeepLab) -> dict[Path, Any]:
    """Every parameter and statistic by its path in the model."""
    return dict(nnx.to_flat_state(nnx.state(model, VARIABLES)))


def fill(model: DeepLab, values: Mapping[Path, Any]) -> DeepLab:
    """The abstract model with `values` as its arrays, in evaluation mode."""
    graph, state = nnx.split(model)
    filled = [(path, leaf.replace(jnp.asarray(values[path]))) for path, leaf in nnx.to_flat_state(state)]
    model = nnx.merge(graph, nnx.from_flat_state(filled))
    model.eval()
    return model


def to_arrays(model: DeepLab) -> dict[str, np.ndarray]:
    """Arrays by dotted path, as in `encoder.stage1.0.conv1.kernel`."""
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat_state(model).items()}


def from_arrays(config: ModelConfig, arrays: Mapping[str, np.ndarray]) -> DeepLab:
    """The inverse of `to_arrays`, in evaluation mode. Raises InputError that lists what does not fit."""
    model = abstract_model(config)
    leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in flat_state(model).items()}
    shapes = {name: tuple(leaf.shape) for name, (_, leaf) in leaves.items()}
    check_complete(shapes, {name: array.shape for name, array in arrays.items()})
    return fill(model, {path: arrays[name] for name, (path, _) in leaves.items()})


def check_complete(expected: Mapping[str, tuple[int, ...]], result: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError unless both hold the same names and shapes."""
    shapes = [f"{n} {result[n]} instead of {expected[n]}" for n in expected if n in result and result[n] != expected[n]]
    faults = [
        _count("missing", [name for name in expected if name not in result]),
        _count("unexpected", [name for name in result if name not in expected]),
        _count("misshapen", shapes),
    ]
    if any(faults):
        raise InputError(
            f"the weights do not fit the model of {len(expected)} tensors: {'; '.join(filter(None, faults))}. "
            "Check encoder, architecture and class count"
        )


def _count(what: str, names: Iterable[str], most: int = 5) -> str:
    names = [ascii(name)[1:-1] for name in names]  # of files: without line breaks
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what} ({', '.join(names[:most])}{more})" if names else ""
