"""Names that tell where in the model a node comes from: `encoder.stage1.0.conv1`."""

from collections import defaultdict
from typing import Any

import numpy as np
import onnx_ir as ir
from flax import nnx

from converters.export.compare import running_order
from converters.export.onnx_graph.graph import GraphError, constant, nodes
from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab
from deeplab_jax.models.layers import Conv


def name_layers(graph: ir.Graph, model: DeepLab) -> None:
    """Convolutions and BatchNorms take the paths of the modules whose weights they hold.

    Modules of the same weights are told apart by the order in which they run. Raises InputError unless every one that
    runs is there once.
    """
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    paths = defaultdict(list)
    for path in running_order(model):
        module: Any = modules[path]
        if isinstance(module, Conv):
            paths[fingerprint(np.asarray(module.kernel[...]).transpose(3, 2, 0, 1))].append(path)
        else:
            paths[fingerprint(module.scale, module.bias, module.mean, module.var)].append(path)
    for node in (*nodes(graph, "Conv"), *nodes(graph, "BatchNormalization")):
        arrays = [constant(value) for value in node.inputs[1:]]
        result = paths[fingerprint(*arrays[: 1 if node.op_type == "Conv" else 4])]
        if not result:
            raise GraphError(node, "holds weights that are not the model's")
        node.name = result.pop(0)
    absent = [path for left in paths.values() for path in left]
    if absent:
        raise InputError(f"the traced graph lacks {', '.join(absent)}")


def fingerprint(*arrays) -> tuple:
    arrays = [np.asarray(array) for array in arrays]
    return tuple((array.shape, array.tobytes()) for array in arrays)


def name_all(graph: ir.Graph) -> None:
    """Everything else is called after the convolution that it follows, and every tensor after its node."""
    scopes, taken = {}, set()
    for node in graph:
        if node.op_type == "Conv":
            scope = name = node.name
        else:
            scope = next((scopes[value] for value in node.inputs if value in scopes), "images")
            name = node.name if node.op_type == "BatchNormalization" else f"{scope}.{node.op_type.lower()}"
        numbered = (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3)))
        node.name = next(name for name in numbered if name not in taken)
        taken.add(node.name)
        (output,) = node.outputs
        scopes[output] = scope
        if not output.is_graph_output():
            output.name = node.name
    for name, value in tuple(graph.initializers.items()):
        reader, index = next(iter(value.uses()))
        del graph.initializers[name]
        value.name = f"{reader.name}.{ROLES[reader.op_type][index - 1]}"
        graph.register_initializer(value)


ROLES = {
    "Conv": ("weight", "bias"),
    "BatchNormalization": ("scale", "bias", "mean", "variance"),
    "Clip": ("min", "max"),
    "Resize": ("roi", "scales", "sizes"),
}
