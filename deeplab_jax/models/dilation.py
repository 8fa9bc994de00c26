"""Where an encoder dilates instead of striding (arXiv:1706.05587, section 3.1): one rule for all of them."""

from collections.abc import Sequence
from typing import NamedTuple

from deeplab_jax.model_config import DilationRule


class Steps(NamedTuple):
    """How one block of an encoder moves over its input."""

    stride: int
    first: int  # dilation of the block's convolution that would stride
    dilation: int  # of its others


def replace_strides(strides: Sequence[int], before: int, output_stride: int, rule: DilationRule) -> list[Steps]:
    """The steps of every block, given the stride that each has in the plain network.

    Once the output stride is reached a block multiplies the dilation instead of striding. By the rule "whole-stage"
    (segmentation_models_pytorch) all of that block dilates already; by "after-strided-block" (timm, torchvision,
    TensorFlow) the convolution that would have strided keeps the dilation so far.

    Args:
        strides: of every block, in order.
        before: stride of what lies before the first block.
        output_stride: of the encoder.
        rule: whether the block that would have strided dilates.
    """
    steps, total, dilation = [], before, 1
    for stride in strides:
        first = dilation
        if total * stride > output_stride:
            dilation, stride = dilation * stride, 1
        total *= stride
        steps.append(Steps(stride, dilation if rule == "whole-stage" else first, dilation))
    return steps
