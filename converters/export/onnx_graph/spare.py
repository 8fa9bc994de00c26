"""Which parts of a network 8 bits spoil most."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from converters.export.onnx_graph.onnx_package import agreement
from converters.export.onnx_graph.session import OneImage

PART = re.compile(r"encoder\.(blocks\.\d+|\w+)|\w+")  # of a node's name: the module that it belongs to


def parts_of(graph: Any) -> list[str]:
    """The modules of a graph in the order of its nodes, but for the classifier, which is in float32 anyway.

    Nodes that are named after the input belong to none.
    """
    result = [match[0] for node in graph.graph.node if (match := PART.match(node.name))]
    return [part for part in dict.fromkeys(result) if part not in ("classifier", "images")]


def worst_first(graph: Any, quantize: Callable[[Sequence[str]], Any], inputs: list[OneImage]) -> list[str]:
    """The parts by how many pixels change their class where that part alone is in 8 bits.

    Args:
        graph: in float32.
        quantize: from the names of parts that stay in float32 to the graph in 8 bits.
        inputs: on which the classes are compared.
    """
    parts = parts_of(graph)
    same = {part: agreement(graph, quantize([p for p in parts if p != part]), inputs, exact=True) for part in parts}
    return sorted(parts, key=same.__getitem__)
