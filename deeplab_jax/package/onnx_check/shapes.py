"""The shapes that come of operators which work value by value or move values about."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab_jax.package.onnx_check.graph import (
    FLOAT,
    FLOATS,
    INT64,
    Node,
    Shape,
    Tensor,
    argument,
    axis,
    fits,
    flag,
    required,
    value_of,
)


def same(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    return [inputs[0].shape]


def broadcast(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    if node.op in ("Div", "Mod") and inputs[0].type not in FLOATS:  # some versions crash where a number is divided by 0
        value_of(inputs[0], "integer dividend")
        fits(bool((value_of(inputs[1], "integer divisor") > 0).all()), "integers are divided by what is not positive")
    return [np.broadcast_shapes(*(tensor.shape for tensor in inputs))]


def concat(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    first = inputs[0].shape
    at = axis(node.attributes["axis"], len(first))
    alike = all((*t.shape[:at], *t.shape[at + 1 :]) == (*first[:at], *first[at + 1 :]) for t in inputs)
    fits(alike and all(len(t.shape) == len(first) for t in inputs), "the other sides differ")
    return [(*first[:at], sum(tensor.shape[at] for tensor in inputs), *first[at + 1 :])]


def reshape(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    old, wanted = inputs[0].shape, required(argument(node, inputs, 1, "shape"))
    if not flag(node, "allowzero"):
        wanted = [old[place] if side == 0 else side for place, side in enumerate(wanted)]
    count, rest = math.prod(old), math.prod(side for side in wanted if side != -1)
    if wanted.count(-1) == 1 and rest > 0:
        wanted = [count // rest if side == -1 else side for side in wanted]
    fits(math.prod(wanted) == count and min(wanted, default=0) >= 0, f"{old} to {wanted}")
    return [tuple(wanted)]


def flatten(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    shape, at = inputs[0].shape, node.attributes.get("axis", 1)
    fits(abs(at) <= len(shape), f"axis {at}")
    return [(math.prod(shape[:at]), math.prod(shape[at:]))]


def transpose(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    shape = inputs[0].shape
    order = node.attributes.get("perm", list(range(len(shape)))[::-1])
    fits(sorted(order) == list(range(len(shape))), f"perm is {order}")
    return [tuple(shape[place] for place in order)]


def squeeze(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    shape, axes = inputs[0].shape, argument(node, inputs, 1, "axes")
    gone = {place for place, side in enumerate(shape) if side == 1}
    if axes is not None:
        wanted = {axis(at, len(shape)) for at in axes}
        fits(wanted <= gone, f"the sides {wanted} of {shape}")
        gone = wanted
    return [tuple(side for place, side in enumerate(shape) if place not in gone)]


def unsqueeze(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    axes = required(argument(node, inputs, 1, "axes"))
    rank = len(inputs[0].shape) + len(axes)
    new, old = {axis(at, rank) for at in axes}, iter(inputs[0].shape)
    fits(len(new) == len(axes), f"axes are {axes}")
    return [tuple(1 if place in new else next(old) for place in range(rank))]


def shape_of(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    return [(len(shape_part(node, inputs)),)]


def size_of(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    return [()]


def shape_part(node: Node, inputs: Sequence[Any]) -> Shape:
    return inputs[0].shape[node.attributes.get("start", 0) : node.attributes.get("end")]


def gather(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    shape = inputs[0].shape
    at = axis(node.attributes.get("axis", 0), len(shape))
    return [(*shape[:at], *inputs[1].shape, *shape[at + 1 :])]


def slices(node: Node, inputs: Sequence[Any]) -> list[slice]:
    shape = inputs[0].shape
    starts, ends = (required(argument(node, inputs, *place)) for place in ((1, "starts"), (2, "ends")))
    axes = argument(node, inputs, 3, "axes") or list(range(len(starts)))
    steps = argument(node, inputs, 4, "steps") or [1] * len(starts)
    result = [slice(None)] * len(shape)
    for start, end, at, step in zip(starts, ends, axes, steps, strict=True):
        result[axis(at, len(shape))] = slice(start, end, step)
    return result


def slice_shape(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    parts = zip(slices(node, inputs), inputs[0].shape, strict=True)
    return [tuple(len(range(*part.indices(side))) for part, side in parts)]


def split(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    shape, count = inputs[0].shape, len(node.outputs)
    at = axis(node.attributes.get("axis", 0), len(shape))
    sides = argument(node, inputs, 1, "split")
    if sides is None:
        each = -(-shape[at] // count)
        sides = [each] * (count - 1) + [shape[at] - each * (count - 1)]
    fits(len(sides) == count and sum(sides) == shape[at], f"{shape[at]} into {sides}")
    return [(*shape[:at], side, *shape[at + 1 :]) for side in sides]


def expand(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    return [np.broadcast_shapes(inputs[0].shape, tuple(required(argument(node, inputs, 1, "shape"))))]


def tile(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    counts = required(argument(node, inputs, 1, "repeats"))
    return [tuple(side * count for side, count in zip(inputs[0].shape, counts, strict=True))]


def constant(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    return [constant_tensor(node).shape]


def constant_tensor(node: Node) -> Tensor:
    (name, value), *others = node.attributes.items()
    fits(not others, "it has several values")
    if isinstance(value, Tensor):
        return value
    fits(name in ("value_float", "value_floats", "value_int", "value_ints"), f"{name} is not read here")
    kind = INT64 if "int" in name else FLOAT
    return Tensor(kind, np.shape(value), np.asarray(value, np.int64 if kind == INT64 else np.float32))


def constant_of_shape(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    fits(filling(node).shape == (1,), "it has several values")
    return [tuple(required(argument(node, inputs, 0, "shape")))]


def filling(node: Node) -> Tensor:
    return node.attributes.get("value", Tensor(FLOAT, (1,), np.zeros(1, np.float32)))


def pad(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    sides = list(inputs[0].shape)
    pads = required(argument(node, inputs, 1, "pads"))
    axes = argument(node, inputs, 3, "axes") or list(range(len(sides)))
    most = 1 << 31 if node.attributes.get("mode", b"constant") == b"constant" else min(sides, default=0)
    fits(all(0 <= width < most for width in pads), f"pads are {pads[:9]}")  # others crash ONNX Runtime 1.22
    for at, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        sides[axis(at, len(inputs[0].shape))] += before + after
    return [tuple(sides)]


def resize(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    sides = list(inputs[0].shape)
    scales, sizes = (inputs[place] if place < len(inputs) else None for place in (2, 3))
    if len(inputs) == 2:  # opset 10
        scales = inputs[1]
    by_size = sizes is not None and sizes.shape != (0,)
    fits(node.attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch", "it keeps the aspect ratio")
    crop = node.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    fits(not crop, "it crops")  # which crashes ONNX Runtime 1.22 where the region holds no numbers
    numbers = [float(number) for number in value_of(sizes if by_size else scales, "size")]
    fits(all(0 < number < 1 << 31 for number in numbers), f"its size is {numbers[:9]}")
    for at, number in zip(node.attributes.get("axes", range(len(sides))), numbers, strict=True):
        place = axis(at, len(sides))
        sides[place] = int(number if by_size else sides[place] * number)
    return [tuple(sides)]


def reduce(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    shape = inputs[0].shape
    axes = [node.attributes.get("axis", 0)] if node.op.startswith("Arg") else argument(node, inputs, 1, "axes")
    if not axes and flag(node, "noop_with_empty_axes"):
        return [shape]
    gone = {axis(at, len(shape)) for at in axes} if axes else set(range(len(shape)))
    if flag(node, "keepdims", 1):
        return [tuple(1 if place in gone else side for place, side in enumerate(shape))]
    return [tuple(side for place, side in enumerate(shape) if place not in gone)]


def range_shape(node: Node, inputs: Sequence[Any]) -> list[Shape]:
    start, limit, delta = (value_of(tensor, "ends").item() for tensor in inputs)
    return [(max(math.ceil((limit - start) / delta), 0),)]
