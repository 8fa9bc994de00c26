"""MobileNetV2 with dilation (arXiv:1801.04381), as torchvision and as TensorFlow build it."""

from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.model_config import MobileNetV2Config
from deeplab_jax.models.dilation import Steps, replace_strides
from deeplab_jax.models.features import Block, Channels, Features, Taps, run_blocks
from deeplab_jax.models.layers import ConvNorm, DepthwiseConv, norm


class InvertedResidual(Block):
    """A 1x1 that widens, a depthwise 3x3, a 1x1 that narrows without ReLU; added to its input where they fit."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        steps: Steps,
        config: MobileNetV2Config,
        *,
        rngs: nnx.Rngs,
    ):
        wide = expanded_channels(in_channels, expansion)
        self.expand = ConvNorm(in_channels, wide, epsilon=config.epsilon, rngs=rngs) if expansion > 1 else None
        options = {"stride": steps.stride, "dilation": steps.first, "padding": config.padding}
        self.depthwise = DepthwiseConv(wide, **options, rngs=rngs)
        self.depthwise_norm = norm(wide, config.epsilon, rngs=rngs)
        self.project = ConvNorm(wide, out_channels, epsilon=config.epsilon, rngs=rngs)
        self.adds = in_channels == out_channels and steps.stride == 1

    def begin(self, x: Float[Array, "b h w c_in"]) -> tuple[Float[Array, "b h w c_in"], Float[Array, "b h2 w2 wide"]]:
        y = nnx.relu6(self.expand(x)) if self.expand else x
        return x, nnx.relu6(self.depthwise_norm(self.depthwise(y)))

    def finish(self, x: Float[Array, "b h w c_in"], y: Float[Array, "b h2 w2 wide"]) -> Float[Array, "b h2 w2 c_out"]:
        y = self.project(y)
        return x + y if self.adds else y


def expanded_channels(in_channels: int, expansion: int) -> int:
    """A multiple of 8, as TensorFlow rounds it; where channels are multiples of 8 the plain product."""
    if expansion == 1:
        return in_channels
    wide = in_channels * expansion
    rounded = max(8, (wide + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wide else rounded + 8


class MobileNetV2(nnx.Module):
    def __init__(self, config: MobileNetV2Config, *, rngs: nnx.Rngs):
        options = {"epsilon": config.epsilon, "rngs": rngs}
        self.stem = ConvNorm(config.in_channels, config.stem, 3, stride=2, padding=config.padding, **options)
        layers = [
            (expansion, channels, stride if index == 0 else 1)
            for expansion, channels, count, stride in config.stages
            for index in range(count)
        ]
        strides = [stride for *_, stride in layers]
        blocks, in_channels = [], config.stem
        steps = replace_strides(strides, 2, config.output_stride, config.dilation_rule)
        for (expansion, out_channels, _), step in zip(layers, steps, strict=True):
            blocks.append(InvertedResidual(in_channels, out_channels, expansion, step, config, rngs=rngs))
            in_channels = out_channels
        self.blocks = nnx.List(blocks)
        self.head = ConvNorm(in_channels, config.head, **options) if config.head else None
        _, second, *_, last = (index for index, stride in enumerate(strides) if stride == 2)
        self.taps = Taps(second - 1, config.low_level == "expansion", last - 1)
        _, low_level, _ = layers[self.taps.low_level]
        if self.taps.within:
            low_level = blocks[self.taps.low_level].project.conv.kernel.shape[2]
        self.channels = Channels(low_level, layers[self.taps.aux_features][1], config.head or in_channels)

    def __call__(self, images: Float[Array, "b h w c_in"]) -> Features:
        features = run_blocks(nnx.relu6(self.stem(images)), self.blocks, self.taps)
        if self.head is None:
            return features
        return features._replace(high_level=nnx.relu6(self.head(features.high_level)))
