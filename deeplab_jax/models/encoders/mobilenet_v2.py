"""MobileNetV2 with dilation (arXiv:1801.04381), as torchvision and as TensorFlow build it."""

from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.model_config import MobileNetV2Config
from deeplab_jax.models.dilation import Steps, replace_strides
from deeplab_jax.models.features import Channels, Features
from deeplab_jax.models.layers import ConvNorm, DepthwiseConv, kept, norm


class InvertedResidual(nnx.Module):
    """A 1x1 that widens, a depthwise 3x3, a 1x1 that narrows without ReLU; added to its input where they fit."""

    def __init__(self, cin: int, cout: int, expansion: int, steps: Steps, config: MobileNetV2Config, *, rngs: nnx.Rngs):
        wide = expanded_channels(cin, expansion)
        self.expand = ConvNorm(cin, wide, epsilon=config.epsilon, rngs=rngs) if expansion > 1 else None
        options = {"stride": steps.stride, "dilation": steps.first, "padding": config.padding}
        self.depthwise = DepthwiseConv(wide, **options, rngs=rngs)
        self.depthwise_norm = norm(wide, config.epsilon, rngs=rngs)
        self.project = ConvNorm(wide, cout, epsilon=config.epsilon, rngs=rngs)
        self.adds = cin == cout and steps.stride == 1

    def begin(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h2 w2 wide"]:
        y = nnx.relu6(self.expand(x)) if self.expand else x
        return nnx.relu6(self.depthwise_norm(self.depthwise(y)))

    def finish(self, x: Float[Array, "b h w cin"], y: Float[Array, "b h2 w2 wide"]) -> Float[Array, "b h2 w2 cout"]:
        y = self.project(y)
        return x + y if self.adds else y

    def __call__(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h2 w2 cout"]:
        return self.finish(x, self.begin(x))


def expanded_channels(cin: int, expansion: int) -> int:
    """A multiple of 8, as TensorFlow rounds it; where channels are multiples of 8 the plain product."""
    if expansion == 1:
        return cin
    wide = cin * expansion
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
        units, cin = [], config.stem
        steps = replace_strides(strides, 2, config.output_stride, config.dilation_rule)
        for (expansion, cout, _), step in zip(layers, steps, strict=True):
            units.append(InvertedResidual(cin, cout, expansion, step, config, rngs=rngs))
            cin = cout
        self.units = nnx.List(units)
        self.head = ConvNorm(cin, config.head, **options) if config.head else None
        _, second, *_, last = (index for index, stride in enumerate(strides) if stride == 2)
        self.low_level, self.tap, self.middle = config.low_level, second - 1, last - 1
        _, tap_channels, _ = layers[self.tap]
        if config.low_level == "expansion":
            tap_channels = units[self.tap].project.conv.kernel.shape[2]
        self.channels = Channels(tap_channels, layers[self.middle][1], config.head or cin)

    def __call__(self, images: Float[Array, "b h w cin"]) -> Features:
        x = kept(nnx.relu6(self.stem(images)))
        for index, unit in enumerate(self.units):
            y = unit.begin(x)
            x = kept(unit.finish(x, y))
            if index == self.tap:
                low_level = y if self.low_level == "expansion" else x
            if index == self.middle:
                middle = x
        return Features(low_level, middle, nnx.relu6(self.head(x)) if self.head else x)
