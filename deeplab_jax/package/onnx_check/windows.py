"""The shapes that come of operators which add up products: convolutions, pools and matrix products; and their cost."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab_jax.package.onnx_check.graph import Node, Shape, axis, fits, flag, positive


def per_channel(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    """A normalization, whose other inputs have one value a channel."""
    channels = inputs[0].shape[1]
    fits(not flag(node, "training_mode"), "it trains")
    fits(all(tensor.shape == (channels,) for tensor in inputs[1:]), f"its weights are not {channels} each")
    return [inputs[0].shape]


def layer_norm(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    """A normalization over all sides from an axis on, whose other inputs have their shape."""
    shape = inputs[0].shape
    normalized = shape[axis(node.attributes.get("axis", -1), len(shape)) :]
    fits(len(node.outputs) == 1, "it gives means and deviations too")
    fits(all(tensor.shape == normalized for tensor in inputs[1:]), f"its weights are not {normalized} each")
    return [shape]


def convolution(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    image, weights, bias = convolution_inputs(node, inputs)
    outputs, channels, *kernel = weights.shape
    groups = positive(node, "group", 1)[0]
    fits(image.shape[1] == channels * groups and outputs % groups == 0, f"{image.shape} under {weights.shape}")
    fits(node.attributes.get("kernel_shape", kernel) == kernel, f"kernel_shape is not that of {weights.shape}")
    fits(bias is None or bias.shape == (outputs,), f"{outputs} channels have another number of biases")
    return [(image.shape[0], outputs, *windows(node, image.shape[2:], tuple(kernel)))]


def convolution_inputs(node: Node, inputs: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Image, weights and bias, which is None where there is none."""
    places = (0, 3, 8) if node.op == "QLinearConv" else (0, 1, 2)
    image, weights, bias = (inputs[place] if place < len(inputs) else None for place in places)
    return image, weights, bias


def windows(node: Node, sides: Shape, kernel: Shape) -> Shape:
    """The sides that a kernel gives as it moves over an input of these sides."""
    rank = len(sides)
    strides, dilations = positive(node, "strides", rank), positive(node, "dilations", rank)
    fits(len(kernel) == rank and all(side > 0 for side in kernel), f"its kernel is {kernel}")
    auto_pad = node.attributes.get("auto_pad", b"NOTSET")
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        fits(node.op not in ("AveragePool", "MaxPool") or set(dilations) <= {1}, "ONNX Runtime forgets its dilations")
        return tuple(-(-side // stride) for side, stride in zip(sides, strides, strict=True))
    before, after = paddings(node, rank) if auto_pad == b"NOTSET" else ([0] * rank, [0] * rank)
    spread = [dilation * (side - 1) + 1 for side, dilation in zip(kernel, dilations, strict=True)]
    room = [sum(part) for part in zip(sides, before, after, (-reach for reach in spread), strict=True)]
    fits(all(side >= 0 for side in room), f"the kernel {kernel} is larger than its input {sides}")
    counts = [side // stride + 1 for side, stride in zip(room, strides, strict=True)]
    if flag(node, "ceil_mode"):  # one more, if it is not all in the padding
        axes = zip(counts, room, strides, sides, before, strict=True)
        counts = [n + (left % step > 0 and n * step < side + pad) for n, left, step, side, pad in axes]
    return tuple(counts)


def paddings(node: Node, rank: int) -> tuple[list[int], list[int]]:
    pads = positive(node, "pads", 2 * rank, at_least=0) if "pads" in node.attributes else [0] * 2 * rank
    return pads[:rank], pads[rank:]


def pool(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    sides = inputs[0].shape[2:]
    kernel = tuple(positive(node, "kernel_shape", len(sides)))
    fits("kernel_shape" in node.attributes, "it has no kernel_shape")
    fits(all(pad < k for part in paddings(node, len(sides)) for pad, k in zip(part, kernel, strict=True)), "padding")
    return [(*inputs[0].shape[:2], *windows(node, sides, kernel))]


def global_pool(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    return [(*inputs[0].shape[:2], *(1 for _ in inputs[0].shape[2:]))]


def matmul(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    left, right = inputs[0].shape, inputs[1].shape
    fits(min(len(left), len(right)) >= 2 and left[-1] == right[-2], f"{left} times {right}")
    return [(*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])]


def gemm(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    left, right = (
        tensor.shape[:: -1 if flag(node, name) else 1]
        for tensor, name in zip(inputs, ("transA", "transB"), strict=False)
    )
    fits(len(left) == len(right) == 2 and left[1] == right[0], f"{left} times {right}")
    shape = left[0], right[1]
    fits(len(inputs) < 3 or np.broadcast_shapes(inputs[2].shape, shape) == shape, "its bias has another shape")
    return [shape]


def einsum(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    terms, result = einsum_terms(node)
    sides = einsum_sides(terms, inputs)
    return [tuple(sides[letter] for letter in result)]


def einsum_terms(node: Node) -> tuple[list[str], str]:
    left, arrow, result = node.attributes["equation"].decode("ascii").replace(" ", "").partition("->")
    fits(arrow == "->" and (left + result).replace(",", "").isalpha() and len(set(result)) == len(result), "equation")
    return left.split(","), result


def einsum_sides(terms: list[str], inputs: Sequence[Any]) -> dict[str, int]:
    sides: dict[str, int] = {}
    for term, tensor in zip(terms, inputs, strict=True):
        for letter, side in zip(term, tensor.shape, strict=True):
            fits(sides.setdefault(letter, side) == side, f"{letter} is {side} and {sides[letter]}")
    return sides


def convolution_cost(node: Node, inputs: Sequence[Any]) -> int:
    return math.prod(convolution_inputs(node, inputs)[1].shape[1:])


def pool_cost(node: Node, inputs: Sequence[Any]) -> int:
    return math.prod(positive(node, "kernel_shape", len(inputs[0].shape) - 2))


def matmul_cost(node: Node, inputs: Sequence[Any]) -> int:
    return max(inputs[0].shape)


def einsum_cost(node: Node, inputs: Sequence[Any]) -> int:
    terms, result = einsum_terms(node)
    return math.prod(side for letter, side in einsum_sides(terms, inputs).items() if letter not in result)


def lrn_cost(node: Node, inputs: Sequence[Any]) -> int:
    return positive(node, "size", 1)[0]
