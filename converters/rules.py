"""One engine for every weight converter: a table of module names, applied in both directions.

A rule pairs a module of ours with a module of theirs. `{name}` stands for one path element and `{name+1}` for the
number that follows it:

    ("aspp.atrous.{i}.conv", "decoder.aspp.0.convs.{i+1}.0")

The first rule that matches a module of the model names it; what its parameters are called there, and how their axes
lie, follows from the kind of module alone. Both directions come from that one list of names, so every tensor is mapped
exactly once or there is an error that lists what is missing, unexpected or misshapen.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplab_jax.config import ModelConfig
from deeplab_jax.models import DeepLab
from deeplab_jax.models.weights import Path, abstract_model, check_complete, fill, flat_state

Rules = Sequence[tuple[str, str]]

TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


@dataclass(frozen=True)
class Tensor:
    """One parameter: where it is in the model, what it is called there, and its shape there."""

    path: Path
    name: str
    shape: tuple[int, ...]
    is_kernel: bool


def torch_names(model: DeepLab, rules: Rules) -> list[Tensor]:
    """Every parameter of the model under its PyTorch name. Raises LookupError where no rule, or one twice, applies."""
    tensors = []
    for path, leaf in flat_state(model).items():
        module, parameter = ".".join(map(str, path[:-1])), str(path[-1])
        shape = tuple(leaf.shape)
        is_kernel = parameter == "kernel"
        if is_kernel:
            shape = (shape[3], shape[2], shape[0], shape[1])
        tensors.append(Tensor(path, f"{rename(module, rules)}.{TORCH_LEAVES[parameter]}", shape, is_kernel))
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise LookupError(f"two parameters share a name: {sorted({n for n in names if names.count(n) > 1})}")
    return tensors


def rename(module: str, rules: Rules) -> str:
    for ours, theirs in rules:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^.]+)", re.escape(ours))
        if match := re.fullmatch(pattern, module):
            return re.sub(r"\{(\w+)(\+1)?\}", lambda m: _element(match[m[1]], m[2]), theirs)
    raise LookupError(f"no rule names the module {module}")


def _element(text: str, plus_one: str | None) -> str:
    return str(int(text) + 1) if plus_one else text


def load_torch(config: ModelConfig, rules: Rules, weights: Mapping[str, Any]) -> DeepLab:
    """A model in evaluation mode from PyTorch names and arrays or tensors.

    `num_batches_tracked` is left aside: it has no bearing on what a model computes once momentum is fixed.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    model = abstract_model(config)
    tensors = torch_names(model, rules)
    shapes = {n: tuple(w.shape) for n, w in weights.items() if not n.endswith(".num_batches_tracked")}
    check_complete({t.name: t.shape for t in tensors}, shapes)
    values = {}
    for tensor in tensors:
        array = to_numpy(weights[tensor.name])
        values[tensor.path] = array.transpose(2, 3, 1, 0) if tensor.is_kernel else array
    return fill(model, values)


def save_torch(model: DeepLab, rules: Rules) -> dict[str, np.ndarray]:
    """The model's weights under PyTorch names, with `num_batches_tracked` of 0 where PyTorch demands one."""
    flat = flat_state(model)
    weights = {}
    for tensor in torch_names(model, rules):
        array = np.array(flat[tensor.path][...])
        weights[tensor.name] = np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if tensor.is_kernel else array
        if tensor.path[-1] == "var":
            weights[tensor.name.removesuffix("running_var") + "num_batches_tracked"] = np.array(0, np.int64)
    return weights


def to_numpy(array: Any) -> np.ndarray:
    """A float32 numpy array from a numpy, JAX or PyTorch one of any float type."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().float()
    return np.asarray(array, np.float32)
