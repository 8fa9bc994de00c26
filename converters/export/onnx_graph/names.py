"""Names that tell where in the model a node comes from: `encoder.stage1.0.conv1`."""

from typing import Any

import numpy as np
import onnx_ir as ir
from flax import nnx

from converters.export.onnx_graph.graph import GraphError, add_constant, constant, nodes
from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab
from deeplab_jax.models.layers import Conv


def numbered(model: DeepLab) -> DeepLab:
    """A copy in which the first weight of every layer is its number, by which `name_layers` knows it in a graph."""
    model = nnx.clone(model)
    for number, weight in enumerate(weights(model).values()):
        weight[...] = weight[...].at[(0,) * weight.ndim].set(number)
    return model


def weights(model: DeepLab) -> dict[str, Any]:
    """Kernels of the convolutions and scales of the BatchNorms that make the logits, by the path of the module."""
    return {
        ".".join(map(str, path)): module.kernel if isinstance(module, Conv) else module.scale
        for path, module in nnx.iter_modules(model)
        if isinstance(module, (Conv, nnx.BatchNorm)) and path[0] != "aux_head"
    }


def name_layers(graph: ir.Graph, model: DeepLab) -> None:
    """In the graph of a numbered copy, convolutions and BatchNorms take the paths of their modules, and all weights.

    Raises InputError unless every one is there once.
    """
    paths = dict(enumerate(weights(model).items()))
    for node in (*nodes(graph, "Conv"), *nodes(graph, "BatchNormalization")):
        path, weight = paths.pop(int(constant(node.inputs[1]).flat[0]), (None, None))
        if weight is None:
            raise GraphError(node, "holds weights that are not the model's, or another holds them too")
        node.name = path
        array = np.asarray(weight[...])
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        node.replace_input_with(1, add_constant(graph, f"{path}.weight", array))
    if paths:
        raise InputError(f"the traced graph lacks {', '.join(path for path, _ in paths.values())}")


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
