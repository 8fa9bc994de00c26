"""One engine for every weight converter: a table of module names, applied in both directions.

A rule pairs a module of this project with one of another library. `{name}` stands for one path element and `{name+2}`
for the number that lies 2 after it:

    ("aspp.atrous.{i}.conv", "decoder.aspp.0.convs.{i+1}.0")

The first rule that matches a module of the model names it; what its parameters are called there, and how their axes
lie, follows from the kind of module alone and is a `Dialect`. Both directions come from that one list of names, so
every tensor is mapped exactly once or there is an error that lists what is missing, unexpected or misshapen.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float, Float32, Shaped

from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.models import DeepLab
from deeplab_jax.models.layers import DepthwiseConv
from deeplab_jax.models.state import Path, abstract_model, check_complete, fill, flat_state

Rules = Sequence[tuple[str, str]]
Weights = dict[str, Shaped[np.ndarray, "..."]]  # under the names of another library


@dataclass(frozen=True)
class Dialect:
    """How another framework writes the parameters of a module."""

    separator: str  # between module and parameter
    convolution: Mapping[str, str]  # our parameter's name -> the other's
    depthwise: Mapping[str, str]
    norm: Mapping[str, str]
    kernel_axes: tuple[int, int, int, int]  # where the other library has our (height, width, in, out)
    depthwise_axes: tuple[int, int, int, int]
    counter: str | None = None  # of the batches that BatchNorm has seen: an integer that we have no use for


TORCH = Dialect(
    separator=".",
    convolution={"kernel": "weight", "bias": "bias"},
    depthwise={"kernel": "weight"},
    norm={"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"},
    kernel_axes=(3, 2, 0, 1),
    depthwise_axes=(3, 2, 0, 1),
    counter="num_batches_tracked",
)

TENSORFLOW = Dialect(
    separator="/",
    convolution={"kernel": "weights", "bias": "biases"},
    depthwise={"kernel": "depthwise_weights"},
    norm={"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"},
    kernel_axes=(0, 1, 2, 3),
    depthwise_axes=(0, 1, 3, 2),
)


@dataclass(frozen=True)
class Tensor:
    """One parameter: where it is in the model, what it is called there, and how its axes lie there."""

    path: Path
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = field(default=())

    def to_other(self, array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return np.ascontiguousarray(array.transpose(self.axes))

    def to_own(self, array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return array.transpose(np.argsort(self.axes))


def tensors(model: DeepLab, rules: Rules, dialect: Dialect, part: str = "") -> list[Tensor]:
    """Every parameter of the model, or of one part, under its name there.

    Raises InputError where they have no name for a module: they build no such model.
    """
    result = []
    for path, leaf in flat_state(model).items():
        if part and path[0] != part:
            continue
        module: Any = model
        for step in path[:-1]:
            module = module[step] if isinstance(step, int) else getattr(module, step)
        axes = tuple(range(leaf.ndim))
        if isinstance(module, nnx.BatchNorm):
            parameters = dialect.norm
        elif isinstance(module, DepthwiseConv):
            parameters, axes = dialect.depthwise, dialect.depthwise_axes
        else:
            parameters, axes = dialect.convolution, dialect.kernel_axes if leaf.ndim == 4 else axes
        name = dialect.separator.join((rename(".".join(map(str, path[:-1])), rules), parameters[path[-1]]))
        result.append(Tensor(path, name, tuple(leaf.shape[axis] for axis in axes), axes))
    names = [tensor.name for tensor in result]
    if len(set(names)) != len(names):
        raise LookupError(f"two parameters share a name: {sorted({n for n in names if names.count(n) > 1})}")
    return result


def rename(module: str, rules: Rules) -> str:
    for own, other in rules:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^.]+)", re.escape(own))
        if match := re.fullmatch(pattern, module):
            return re.sub(r"\{(\w+)(?:\+(\d+))?\}", lambda m: _element(match[m[1]], m[2]), other)
    raise InputError(f"the other library has no name for {module}: it builds no such model")


def _element(text: str, offset: str | None) -> str:
    return str(int(text) + int(offset)) if offset else text


def check_rates(rates: Sequence[int], branches: int) -> None:
    """Raises InputError unless there is one atrous rate for every branch of the pyramid in the weights."""
    if len(rates) != branches:
        given = ", ".join(map(str, rates)) or "none"
        raise InputError(
            f"the weights have {branches} atrous branches; give as many rates (--atrous-rates), not {given}"
        )


def load(config: ModelConfig, rules: Rules, weights: Mapping[str, Any], dialect: Dialect) -> DeepLab:
    """A model in evaluation mode from names there and arrays or tensors.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    model = abstract_model(config)
    return fill(model, read(tensors(model, rules, dialect), weights, dialect))


def read(
    expected: Sequence[Tensor], weights: Mapping[str, Any], dialect: Dialect
) -> dict[Path, Float32[np.ndarray, "..."]]:
    """Our arrays by path. BatchNorm's counters are left aside: they have no bearing on what a model computes."""
    counter = f"{dialect.separator}{dialect.counter}"
    shapes = {name: tuple(w.shape) for name, w in weights.items() if not name.endswith(counter)}
    check_complete({tensor.name: tensor.shape for tensor in expected}, shapes)
    arrays = {}
    for tensor in expected:
        array = to_numpy(weights[tensor.name])
        if not np.isfinite(array).all():
            raise InputError(
                f"the weights hold values that are not finite in float32 ({tensor.name}); they are of no use"
            )
        if tensor.path[-1] == "var" and array.min(initial=0) < 0:
            raise InputError(f"{tensor.name} holds negative variances; the weights are of no use")
        arrays[tensor.path] = tensor.to_own(array)
    return arrays


def save(model: DeepLab, rules: Rules, dialect: Dialect, part: str = "") -> Weights:
    """The model's weights, or those of one part, under the names there; BatchNorm's counters, where there are, as 0."""
    flat, weights = flat_state(model), {}
    for tensor in tensors(model, rules, dialect, part):
        weights[tensor.name] = tensor.to_other(np.array(flat[tensor.path][...]))
        if dialect.counter and tensor.path[-1] == "var":
            weights[tensor.name.removesuffix(dialect.norm["var"]) + dialect.counter] = np.array(0, np.int64)
    return weights


def to_numpy(array: Any) -> Float32[np.ndarray, "..."]:
    """From a numpy, JAX or PyTorch one of any float type. Raises InputError for other numbers."""
    if hasattr(array, "detach"):
        if not array.is_floating_point():
            raise InputError(f"the weights must be floating-point numbers, not {array.dtype}")
        array = array.detach().cpu().float()
    array = np.asarray(array)
    if array.dtype.kind in "biucOSU":
        raise InputError(f"the weights must be floating-point numbers, not {array.dtype}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)
