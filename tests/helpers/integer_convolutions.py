"""Convolutions of 8 bits in an ONNX graph, computed in whole numbers: exactly, and as CPUs without VNNI do.

The latter (x86 with AVX2 or AVX512: `vpmaddubsw`) multiply unsigned values by signed weights and add two neighboring
products in 16 bits, which saturate; everything else is in 32 bits. ONNX Runtime's kernels lay neighbors out by the row
and column of the filter, then by channel. Depthwise convolutions have kernels of their own, without such sums.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class IntegerConvolution:
    input: str  # the tensors of 8 bits
    output: str
    weights: np.ndarray  # (o, i, kh, kw) int8
    bias: np.ndarray | int  # (o,) int32
    scale: np.ndarray  # (o,) float32, from sums of products to steps of the output
    zeros: tuple[int, int]  # what is 0 in the input and in the output
    groups: int
    strides: list[int]
    dilations: list[int]
    pads: list[int] | None  # top, left, bottom, right; None: for an output of input / stride, rounded up

    @property
    def depthwise(self) -> bool:
        return self.weights.shape[:2] == (self.groups, 1)

    def extreme_pairs(self) -> tuple[int, int]:
        """The least and the largest sum of any two products of one filter, whatever the input."""
        if self.depthwise:
            return 0, 0
        filters = np.sort(self.weights.reshape(len(self.weights), -1).astype(int), axis=1)
        least, largest = filters[:, :2].clip(max=0).sum(1).min(), filters[:, -2:].clip(min=0).sum(1).max()
        return 255 * int(least), 255 * int(largest)

    def sums(self, values: np.ndarray, saturating: bool = False) -> np.ndarray:
        """(1, c, h, w) uint8 to (1, o, h, w): what the filters give, with the bias."""
        sums, parts = [], (np.split(self.patches(values[0]), self.groups, -1), np.split(self.weights, self.groups))
        for columns, filters in zip(*parts, strict=True):
            rows = columns.reshape(*columns.shape[:2], -1).astype(np.int32)
            packed = filters.transpose(2, 3, 1, 0).reshape(-1, len(filters)).astype(np.int32)
            products = self.pair_sums(rows, packed) if saturating else (rows.astype(float) @ packed).astype(int)
            sums.append(products - self.zeros[0] * packed.sum(0))
        return (np.concatenate(sums, -1) + self.bias).transpose(2, 0, 1)[None]

    def pair_sums(self, rows: np.ndarray, packed: np.ndarray) -> np.ndarray:
        """(h, w, k) by (k, o), two products at a time in 16 bits."""
        if self.depthwise:
            return rows @ packed
        odd = len(packed) % 2
        rows, packed = np.pad(rows, [(0, 0), (0, 0), (0, odd)]), np.pad(packed, [(0, odd), (0, 0)])
        pairs = rows[..., ::2, None] * packed[::2] + rows[..., 1::2, None] * packed[1::2]
        return pairs.clip(INT16.min, INT16.max).sum(-2)

    def patches(self, values: np.ndarray) -> np.ndarray:
        """(c, h, w) to the (h, w, kh, kw, c) that the filter lies on; outside is the input's zero."""
        extent = [(side - 1) * step + 1 for side, step in zip(self.weights.shape[2:], self.dilations, strict=True)]
        top, left, bottom, right = self.pads or self.same_pads(values.shape[1:], extent)
        padded = np.pad(values, [(0, 0), (top, bottom), (left, right)], constant_values=self.zeros[0])
        windows = np.lib.stride_tricks.sliding_window_view(padded, extent, (1, 2))
        (down, across), (far, wide) = self.strides, self.dilations
        return windows[:, ::down, ::across, ::far, ::wide].transpose(1, 2, 3, 4, 0)

    def same_pads(self, sides: tuple[int, ...], extent: list[int]) -> list[int]:
        """More at the end, where the number is odd."""
        total = [
            max((-(-side // step) - 1) * step + reach - side, 0)
            for side, step, reach in zip(sides, self.strides, extent, strict=True)
        ]
        return [pad // 2 for pad in total] + [pad - pad // 2 for pad in total]

    def quantize(self, sums: np.ndarray) -> np.ndarray:
        """The sums in the steps of the output, uint8."""
        steps = sums.astype(np.float32) * self.scale[:, None, None]
        return (np.rint(steps).astype(int) + self.zeros[1]).clip(0, 255).astype(np.uint8)


def integer_convolutions(graph: onnx.GraphProto) -> dict[str, IntegerConvolution]:
    """By the name of the node: all that read, weigh and write 8 bits."""
    makers = {output: node for node in graph.node for output in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    actual = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] in makers and node.input[1] in makers:
            data, weights, *biases = (makers[name] for name in node.input)
            output = readers[node.output[0]]
            assert {each.op_type for each in (data, weights, *biases)} == {"DequantizeLinear"}
            assert output.op_type == "QuantizeLinear"
            (scale, zero), (steps, _), (out_scale, out_zero) = (
                [values[name] for name in each.input[1:]] for each in (data, weights, output)
            )
            settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            actual[node.name] = IntegerConvolution(
                data.input[0],
                output.output[0],
                values[weights.input[0]],
                values[biases[0].input[0]] if biases else 0,
                scale * steps / out_scale,
                (int(zero), int(out_zero)),
                settings.get("group", 1),
                settings.get("strides", [1, 1]),
                settings.get("dilations", [1, 1]),
                None if settings.get("auto_pad") == b"SAME_UPPER" else settings.get("pads", [0] * 4),
            )
    return actual
