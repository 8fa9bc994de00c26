"""What the passes over an ONNX graph have in common."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from jaxtyping import Shaped

from deeplab_jax.errors import InputError


class GraphError(InputError):
    """A traced graph that the passes do not know how to rewrite: a fault of this project's, or a newer tracer."""

    def __init__(self, node: ir.Node, fault: str):
        super().__init__(f"the traced graph cannot be exported: {node.op_type} {node.name!r} {fault}")


def is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def constant(value: ir.Value | None) -> Shaped[np.ndarray, "..."]:
    """What an initializer holds."""
    if value is None or value.const_value is None:
        raise InputError(f"the traced graph cannot be exported: {value} depends on the image")
    return value.const_value.numpy()


def sizes(value: ir.Value | None) -> list[int]:
    """Of a tensor, every axis of which is of known size."""
    if value is None or value.shape is None:
        raise InputError(f"the traced graph cannot be exported: the shape of {value} is unknown")
    return [*value.shape.numpy()]


def add_constant(graph: ir.Graph, name: str | None, array: Shaped[np.ndarray, "..."] | np.generic) -> ir.Value:
    """A new initializer; the name gets a number where it is taken."""
    names = (name or "constant", *(f"{name}_{number}" for number in range(1, len(graph.initializers) + 1)))
    free = next(name for name in names if name not in graph.initializers)
    tensor = ir.tensor(np.ascontiguousarray(array), name=free)
    value = ir.Value(
        name=free, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Removes a node whose only output is now `value`."""
    output = node.outputs[0]
    if value.shape is None:
        value.shape, value.type = output.shape, output.type
    if output.is_graph_output():
        value.name = output.name
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def insert(graph: ir.Graph, before: ir.Node, op_type: str, inputs: list[ir.Value | None], **attributes) -> ir.Value:
    """The output of a new node just before another."""
    node = ir.node(op_type, inputs, attributes)
    graph.insert_before(before, node)
    return node.outputs[0]


def source(node: ir.Node) -> ir.Value:
    """The first input."""
    value = node.inputs[0]
    if value is None:
        raise GraphError(node, "reads nothing")
    return value


def producer(value: ir.Value | None) -> ir.Node:
    node = value.producer() if value else None
    if node is None:
        raise InputError(f"the traced graph cannot be exported: no node makes {value}")
    return node


def sole_consumer(value: ir.Value, op_type: str) -> ir.Node | None:
    """The node of that type which alone reads this value."""
    consumers = value.consumers()
    alone = len(consumers) == 1 and not value.is_graph_output()
    return consumers[0] if alone and consumers[0].op_type == op_type else None


def nodes(graph: ir.Graph, op_type: str) -> Iterator[ir.Node]:
    """Nodes of a type, of a copy: they may be removed on the way."""
    return (node for node in tuple(graph) if node.op_type == op_type and node.graph is graph)


def infer_shapes(model: ir.Model) -> ir.Model:
    """All shapes anew, from those of the input and the output."""
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))


def described(proto: onnx.ModelProto) -> onnx.ModelProto:
    """With the shape and type of every tensor that a node makes, in place; it has passed onnx.checker's full check."""
    del proto.graph.value_info[:]
    weights = {tensor.name for tensor in proto.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    proto.graph.value_info.extend(info for info in inferred.graph.value_info if info.name not in weights)
    onnx.checker.check_model(proto, full_check=True)
    return proto
