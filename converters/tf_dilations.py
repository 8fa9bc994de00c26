"""What a frozen graph of research/deeplab records of its dilations, which variables do not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deeplab_jax.errors import InputError
from deeplab_jax.model_config import DPCConfig


@dataclass(frozen=True)
class Dilations:
    """What only a frozen graph records."""

    output_stride: int | None = None
    atrous_rates: tuple[int, ...] | None = None
    multi_grid: tuple[int, ...] | None = None
    cell: tuple[tuple[int, int], ...] | None = None  # rates of every branch of the dense prediction cell


def recorded(rates: Mapping[str, tuple[int, int]]) -> Dilations:
    """Read off the dilations of every convolution of a frozen graph, by the node's name.

    Raises:
        InputError: where they are not those of output stride 8 or 16.
    """

    def of(pattern: str) -> list[tuple[int, int]]:
        """The largest dilations in each numbered place of the network."""
        result: dict[int, tuple[int, int]] = {}
        for name, pair in rates.items():
            if match := re.search(pattern, name):
                result[int(match[1])] = max(pair, result.get(int(match[1]), (1, 1)))
        return [pair for _, pair in sorted(result.items())]

    before = (
        of(r"block3/unit_(\d+)/.*/conv2/")
        or of(r"middle_flow/block1/unit_(\d+)/.*_depthwise")
        or of(r"MobilenetV2/expanded_conv_(13)/")
    )
    last = (
        of(r"block4/unit_(\d+)/.*/conv2/")
        or of(r"exit_flow/block2/unit_1/.*/separable_conv(\d+)_depthwise")
        or of(r"MobilenetV2/expanded_conv_(16)/")
    )
    pyramid = tuple(rows for rows, _ in of(r"^aspp([1-9]\d*)[_/]")) or None
    cell = tuple(of(r"^meta_architecture/branch(\d+)_")) or None
    if not before or not last:
        return Dilations(None, pyramid, None, cell)
    base = 2 * before[0][0]  # of the last stage, whose multi-grid multiplies it
    if base not in (2, 4) or any(rate % base for pair in last for rate in pair):
        raise InputError(
            "the graph's dilations are not those of output stride 8 or 16, the only ones that are supported"
        )
    return Dilations(32 // base, pyramid, tuple(rows // base for rows, _ in last) if len(last) > 1 else None, cell)


def check_cell(config: DPCConfig, result: tuple[tuple[int, int], ...] | None) -> None:
    """Raises InputError where a graph's dense prediction cell has other rates than the published one."""
    if result not in (None, config.atrous_rates):
        raise InputError(
            f"the dense prediction cell has the rates {result}; only the published {config.atrous_rates} are known"
        )
