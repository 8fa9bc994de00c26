"""ResNet and ResNeXt with dilation (arXiv:1512.03385, arXiv:1611.05431), as torchvision and TensorFlow build them."""

from collections.abc import Callable
from itertools import chain, islice, pairwise

from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.model_config import Padding, ResNetConfig
from deeplab_jax.models.cpu_forms import subsample
from deeplab_jax.models.dilation import Steps, replace_strides
from deeplab_jax.models.features import Block, Channels, Features, Taps, run_blocks
from deeplab_jax.models.layers import Conv, ConvNorm, max_pool, norm


class ResidualBlock(Block):
    """A residual beside a shortcut."""

    expansion: int  # channels of the output, in widths
    residual: Callable[[Float[Array, "b h w c_in"]], Float[Array, "b h2 w2 c_out"]]
    shortcut: nnx.Module

    def begin(self, x: Float[Array, "b h w c_in"]) -> tuple[Float[Array, "b h w c_in"], Float[Array, "b h2 w2 c_out"]]:
        return x, self.residual(x)

    def finish(
        self, x: Float[Array, "b h w c_in"], residual: Float[Array, "b h2 w2 c_out"]
    ) -> Float[Array, "b h2 w2 c_out"]:
        return nnx.relu(residual + self.shortcut(x))


class BasicBlock(ResidualBlock):
    expansion = 1

    def __init__(self, in_channels: int, width: int, steps: Steps, config: ResNetConfig, *, rngs: nnx.Rngs):
        self.conv1 = Conv(in_channels, width, 3, stride=steps.stride, dilation=steps.first, rngs=rngs)
        self.norm1 = norm(width, config.epsilon, rngs=rngs)
        self.conv2 = Conv(width, width, 3, dilation=steps.dilation, rngs=rngs)
        self.norm2 = norm(width, config.epsilon, rngs=rngs)
        self.shortcut = shortcut(in_channels, width, steps.stride, config.epsilon, rngs=rngs)

    def residual(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        x = nnx.relu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))


class Bottleneck(ResidualBlock):
    expansion = 4

    def __init__(self, in_channels: int, width: int, steps: Steps, config: ResNetConfig, *, rngs: nnx.Rngs):
        out_channels = width * self.expansion
        inner = width * config.group_width // 64 * config.groups
        self.conv1 = Conv(in_channels, inner, rngs=rngs)
        self.norm1 = norm(inner, config.epsilon, rngs=rngs)
        self.conv2 = Conv(inner, inner, 3, stride=steps.stride, dilation=steps.first, groups=config.groups, rngs=rngs)
        self.norm2 = norm(inner, config.epsilon, rngs=rngs)
        self.conv3 = Conv(inner, out_channels, rngs=rngs)
        self.norm3 = norm(out_channels, config.epsilon, rngs=rngs)
        self.shortcut = shortcut(in_channels, out_channels, steps.stride, config.epsilon, rngs=rngs)

    def residual(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.relu(self.norm2(self.conv2(x)))
        return self.norm3(self.conv3(x))


def shortcut(in_channels: int, out_channels: int, stride: int, epsilon: float, *, rngs: nnx.Rngs) -> nnx.Module:
    """A 1x1 projection where the number of channels changes; otherwise the identity."""
    return (
        Subsample(stride)
        if in_channels == out_channels
        else ConvNorm(in_channels, out_channels, stride=stride, epsilon=epsilon, rngs=rngs)
    )


class Subsample(nnx.Module):
    """The identity, at every stride-th pixel."""

    def __init__(self, stride: int):
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return subsample(x, self.stride)


class Stem(nnx.Module):
    """A 7x7 convolution, or several 3x3, the first of which strides; then a max-pool: stride 4 in all."""

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        kernel, widths = (3, config.deep_stem) if config.deep_stem else (7, (config.width,))
        convs, in_channels, stride = [], config.in_channels, 2
        for out_channels in widths:
            convs.append(ConvNorm(in_channels, out_channels, kernel, stride=stride, epsilon=config.epsilon, rngs=rngs))
            in_channels, stride = out_channels, 1
        self.convs = nnx.List(convs)
        self.out_channels = in_channels
        self.pool_padding: Padding = config.pool_padding

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c"]:
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return max_pool(x, self.pool_padding)


class ResNet(nnx.Module):
    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        block = Bottleneck if config.bottleneck else BasicBlock
        self.stem = Stem(config, rngs=rngs)
        stages, in_channels = [], self.stem.out_channels
        for index, stage_steps in enumerate(plan(config)):
            width, blocks = config.width * 2**index, []
            for steps in stage_steps:
                blocks.append(block(in_channels, width, steps, config, rngs=rngs))
                in_channels = width * block.expansion
            stages.append(nnx.List(blocks))
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        within = config.low_level == "residual"  # of the block before the last, which strides already
        last1, last3 = config.blocks[0] - 1, sum(config.blocks[:3]) - 1
        self.taps = Taps(last1 - within, within, last3)
        self.channels = Channels(*(config.width * block.expansion * factor for factor in (1, 4, 8)))

    def __call__(self, images: Float[Array, "b h w c_in"]) -> Features:
        blocks = (*self.stage1, *self.stage2, *self.stage3, *self.stage4)
        return run_blocks(self.stem(images), blocks, self.taps)


def plan(config: ResNetConfig) -> list[list[Steps]]:
    """The steps of every block, stage by stage."""
    strides = [[1] * blocks for blocks in config.blocks]
    for before, stage in pairwise(strides):
        if config.stride_block == "first":
            stage[0] = 2
        else:
            before[-1] = 2
    steps = iter(replace_strides([*chain(*strides)], 4, config.output_stride, config.dilation_rule))
    *stages, last = ([*islice(steps, blocks)] for blocks in config.blocks)
    if config.multi_grid:
        last = [Steps(s.stride, s.first * f, s.dilation * f) for s, f in zip(last, config.multi_grid, strict=True)]
    return [*stages, last]
