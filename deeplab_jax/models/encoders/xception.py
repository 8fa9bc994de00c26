"""Aligned Xception with dilation (arXiv:1802.02611, figure 4), as TensorFlow and as timm build it."""

from collections.abc import Callable
from functools import partial

from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.model_config import XceptionConfig
from deeplab_jax.models.dilation import replace_strides
from deeplab_jax.models.encoders.resnet import Subsample
from deeplab_jax.models.features import Block, Channels, Features, Taps, run_blocks
from deeplab_jax.models.layers import Conv, ConvNorm, SeparableConv, norm

Triple = tuple[int, int, int]


class SeparableNorm(nnx.Module):
    """Separable convolution with BatchNorm, or BatchNorm and ReLU, after both of its parts."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int,
        relu: bool,
        epsilon: float,
        rngs: nnx.Rngs,
    ):
        between = "norm-relu" if relu else "norm"
        self.conv = SeparableConv(
            in_channels, out_channels, stride=stride, dilation=dilation, between=between, epsilon=epsilon, rngs=rngs
        )
        self.norm = norm(out_channels, epsilon, rngs=rngs)
        self.relu = relu

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        x = self.norm(self.conv(x))
        return nnx.relu(x) if self.relu else x


def three(
    conv: Callable[..., nnx.Module], in_channels: int, out_channels: Triple, stride: int, dilations: Triple
) -> nnx.List:
    """Convolutions one after the other, the last of which strides."""
    (a, b, c), (i, j, k) = out_channels, dilations
    return nnx.List(
        [
            conv(in_channels, a, stride=1, dilation=i),
            conv(a, b, stride=1, dilation=j),
            conv(b, c, stride=stride, dilation=k),
        ]
    )


class SeparableBlock(Block):
    """Three separable convolutions, each after a ReLU, beside a shortcut."""

    def __init__(
        self,
        in_channels: int,
        out_channels: Triple,
        stride: int,
        dilations: Triple,
        epsilon: float,
        *,
        projects: bool,
        rngs: nnx.Rngs,
    ):
        conv = partial(SeparableNorm, relu=False, epsilon=epsilon, rngs=rngs)
        self.convs = three(conv, in_channels, out_channels, stride, dilations)
        if projects:
            self.shortcut = ConvNorm(in_channels, out_channels[-1], stride=stride, epsilon=epsilon, rngs=rngs)
        else:
            self.shortcut = Subsample(stride)

    def begin(self, x: Float[Array, "b h w c_in"]) -> tuple[Float[Array, "b h w c_in"], Float[Array, "b h w c"]]:
        first, second, _ = self.convs
        return x, second(nnx.relu(first(nnx.relu(x))))

    def finish(self, x: Float[Array, "b h w c_in"], y: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c_out"]:
        return self.convs[2](nnx.relu(y)) + self.shortcut(x)


class LastBlock(Block):
    """Three separable convolutions with ReLU after all of their parts, and no shortcut."""

    def __init__(self, in_channels: int, out_channels: Triple, dilations: Triple, epsilon: float, *, rngs: nnx.Rngs):
        conv = partial(SeparableNorm, relu=True, epsilon=epsilon, rngs=rngs)
        self.convs = three(conv, in_channels, out_channels, 1, dilations)

    def begin(self, x: Float[Array, "b h w c_in"]) -> tuple[Float[Array, "b h w c_in"], Float[Array, "b h w c"]]:
        first, second, _ = self.convs
        return x, second(first(x))

    def finish(self, x: Float[Array, "b h w c_in"], y: Float[Array, "b h w c"]) -> Float[Array, "b h w c_out"]:
        return self.convs[2](y)


class PreActivationBlock(Block):
    """Three times BatchNorm, ReLU and a separable convolution; the shortcut begins after the first ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: Triple,
        stride: int,
        dilations: Triple,
        epsilon: float,
        *,
        projects: bool,
        rngs: nnx.Rngs,
    ):
        self.norms = nnx.List(norm(channels, epsilon, rngs=rngs) for channels in (in_channels, *out_channels[:2]))
        conv = partial(SeparableConv, epsilon=epsilon, rngs=rngs)
        self.convs = three(conv, in_channels, out_channels, stride, dilations)
        self.shortcut = Conv(in_channels, out_channels[-1], stride=stride, rngs=rngs) if projects else Subsample(stride)

    def begin(self, x: Float[Array, "b h w c_in"]) -> tuple[Float[Array, "b h w c_in"], Float[Array, "b h w c"]]:
        x = nnx.relu(self.norms[0](x))
        y = nnx.relu(self.norms[1](self.convs[0](x)))
        return x, self.convs[1](y)

    def finish(self, x: Float[Array, "b h w c_in"], y: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c_out"]:
        return self.convs[2](nnx.relu(self.norms[2](y))) + self.shortcut(x)


class LastPreActivationBlock(PreActivationBlock):
    """The same without stride and shortcut."""

    def __init__(self, in_channels: int, out_channels: Triple, dilations: Triple, epsilon: float, *, rngs: nnx.Rngs):
        super().__init__(in_channels, out_channels, 1, dilations, epsilon, projects=False, rngs=rngs)

    def finish(self, x: Float[Array, "b h w c_in"], y: Float[Array, "b h w c"]) -> Float[Array, "b h w c_out"]:
        return self.convs[2](nnx.relu(self.norms[2](y)))


class Stem(nnx.Module):
    """Two 3x3 convolutions, the first of which strides."""

    def __init__(self, config: XceptionConfig, *, rngs: nnx.Rngs):
        first, second = config.stem
        self.first = ConvNorm(config.in_channels, first, 3, stride=2, epsilon=config.epsilon, rngs=rngs)
        self.second = Conv(first, second, 3, rngs=rngs)
        self.norm = None if config.pre_activation else norm(second, config.epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c"]:
        x = self.second(nnx.relu(self.first(x)))
        return nnx.relu(self.norm(x)) if self.norm else x


class Xception(nnx.Module):
    """Entry flow, middle flow and exit flow, in one list of blocks."""

    def __init__(self, config: XceptionConfig, *, rngs: nnx.Rngs):
        self.stem = Stem(config, rngs=rngs)
        width = config.entry[-1][0]
        flows = [(channels, channels, channels) for channels, _ in config.entry]
        flows += [(width, width, width)] * config.middle
        flows += config.exit
        plain = [stride for _, stride in config.entry] + [1] * config.middle + [2, 1]
        steps = replace_strides(plain, 2, config.output_stride, "after-strided-block")
        block, last_block = SeparableBlock, LastBlock
        if config.pre_activation:
            block, last_block = PreActivationBlock, LastPreActivationBlock

        blocks, in_channels = [], config.stem[1]
        for out_channels, step, stride in zip(flows[:-1], steps, plain, strict=False):
            projects = in_channels != out_channels[-1] or (stride if config.keeps_projections else step.stride) > 1
            dilations = (step.first, step.first, step.first)
            blocks.append(
                block(in_channels, out_channels, step.stride, dilations, config.epsilon, projects=projects, rngs=rngs)
            )
            in_channels = out_channels[-1]
        i, j, k = config.multi_grid or (1, 1, 1)
        dilation = steps[-1].first
        dilations = (dilation * i, dilation * j, dilation * k)
        blocks.append(last_block(in_channels, flows[-1], dilations, config.epsilon, rngs=rngs))
        self.blocks = nnx.List(blocks)
        # Within the block that would stride from 4 to 8; and before the exit flow.
        before8 = [index for index, stride in enumerate(plain) if stride == 2][1]
        self.taps = Taps(before8, True, len(blocks) - 3)
        self.low_level = config.low_level
        self.channels = Channels(flows[self.taps.low_level][1], width, flows[-1][-1])

    def __call__(self, images: Float[Array, "b h w c_in"]) -> Features:
        features = run_blocks(self.stem(images), self.blocks, self.taps)
        if self.low_level == "before-relu":
            return features
        return features._replace(low_level=nnx.relu(features.low_level))
