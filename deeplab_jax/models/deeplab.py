"""DeepLabV3 (arXiv:1706.05587) and DeepLabV3+ (arXiv:1802.02611)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.config import DecoderConfig, ModelConfig
from deeplab_jax.models.aspp import ASPP
from deeplab_jax.models.layers import Conv, ConvNormReLU, resize_bilinear
from deeplab_jax.models.resnet import ResNet


class Decoder(nnx.Module):
    """Upsamples the pyramid to the low-level features and fuses the two (arXiv:1802.02611, figure 2)."""

    def __init__(self, low_level: int, pyramid: int, config: DecoderConfig, align_corners: bool, *, rngs: nnx.Rngs):
        reduced, epsilon = config.low_level_channels, config.epsilon
        self.reduce = ConvNormReLU(low_level, reduced, epsilon=epsilon, rngs=rngs)
        self.fuse = ConvNormReLU(pyramid + reduced, config.channels, 3, kind=config.fuse, epsilon=epsilon, rngs=rngs)
        self.align_corners = align_corners

    def __call__(
        self, low_level: Float[Array, "b h w c"], pyramid: Float[Array, "b h2 w2 c2"]
    ) -> Float[Array, "b h w cout"]:
        pyramid = resize_bilinear(pyramid, low_level.shape[1:3], align_corners=self.align_corners)
        return self.fuse(jnp.concatenate([pyramid, self.reduce(low_level)], -1))


class DeepLab(nnx.Module):
    """Normalised float32 NHWC pictures of any size to logits of the same size.

    In training mode `rngs` feeds dropout; without it nothing is dropped.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = ResNet(config.encoder, rngs=rngs)
        low_level, *_, high_level = self.encoder.out_channels
        self.aspp = ASPP(high_level, config.aspp, rngs=rngs)
        channels = config.aspp.channels
        if config.decoder:
            self.decoder = Decoder(low_level, channels, config.decoder, config.align_corners, rngs=rngs)
            channels = config.decoder.channels
        else:
            self.decoder = None
        self.classifier = Conv(channels, config.num_classes, use_bias=True, rngs=rngs)

    def __call__(
        self, images: Float[Array, "b h w cin"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w classes"]:
        low_level, *_, high_level = self.encoder(images)
        x = self.aspp(high_level, rngs)
        if self.decoder:
            x = self.decoder(low_level, x)
        return resize_bilinear(self.classifier(x), images.shape[1:3], align_corners=self.config.align_corners)


def build_model(config: ModelConfig, *, rngs: nnx.Rngs) -> DeepLab:
    """A freshly initialised model in training mode; `model.eval()` switches BatchNorm and dropout to inference."""
    return DeepLab(config, rngs=rngs)
