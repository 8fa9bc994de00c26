"""DeepLabV3 (arXiv:1706.05587) and DeepLabV3+ (arXiv:1802.02611)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.errors import InputError
from deeplab_jax.model_config import (
    ASPPConfig,
    DPCConfig,
    MobileNetV2Config,
    ModelConfig,
    ResNetConfig,
    XceptionConfig,
)
from deeplab_jax.models.aspp import ASPP, DensePredictionCell
from deeplab_jax.models.aux_head import AuxHead
from deeplab_jax.models.decoder import Decoder
from deeplab_jax.models.encoders.mobilenet_v2 import MobileNetV2
from deeplab_jax.models.encoders.resnet import ResNet
from deeplab_jax.models.encoders.xception import Xception
from deeplab_jax.models.features import Features
from deeplab_jax.models.layers import Conv, resize_bilinear

ENCODERS = {ResNetConfig: ResNet, XceptionConfig: Xception, MobileNetV2Config: MobileNetV2}
PYRAMIDS = {ASPPConfig: ASPP, DPCConfig: DensePredictionCell}


class DeepLab(nnx.Module):
    """Normalized float32 NHWC images of any size to logits of the same size.

    In training mode `rngs` feeds dropout; without it nothing is dropped.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = ENCODERS[type(config.encoder)](config.encoder, rngs=rngs)
        low_level, aux_features, high_level = self.encoder.channels
        self.aspp = PYRAMIDS[type(config.aspp)](high_level, config.aspp, rngs=rngs)
        channels = config.aspp.channels
        if config.decoder:
            self.decoder = Decoder(low_level, channels, config.decoder, config.align_corners, rngs=rngs)
            channels = config.decoder.channels
        else:
            self.decoder = None
        self.classifier = Conv(channels, config.num_classes, use_bias=True, rngs=rngs)
        if config.aux_head:
            self.aux_head = AuxHead(aux_features, config.num_classes, config.aux_head, rngs=rngs)
        else:
            self.aux_head = None

    def __call__(
        self, images: Float[Array, "b h w c_in"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w classes"]:
        return self.upsample(self.head(self.encoder(images), rngs), images)

    def with_auxiliary(
        self, images: Float[Array, "b h w c_in"], *, rngs: nnx.Rngs | None = None
    ) -> tuple[Float[Array, "b h w classes"], Float[Array, "b h w classes"]]:
        """The logits, and those of the auxiliary classifier. Raises InputError for a model without one."""
        if self.aux_head is None:
            raise InputError("this model has no auxiliary head; give its ModelConfig an AuxHeadConfig")
        features = self.encoder(images)
        auxiliary = self.aux_head(features.aux_features, rngs)
        return self.upsample(self.head(features, rngs), images), self.upsample(auxiliary, images)

    def head(self, features: Features, rngs: nnx.Rngs | None) -> Float[Array, "b h w classes"]:
        """Logits before the last upsampling."""
        x = self.aspp(features.high_level, rngs)
        if self.decoder:
            x = self.decoder(features.low_level, x)
        return self.classifier(x)

    def upsample(
        self, logits: Float[Array, "b h2 w2 classes"], images: Float[Array, "b h w c_in"]
    ) -> Float[Array, "b h w classes"]:
        logits = logits.astype(jnp.float32)
        return resize_bilinear(logits, images.shape[1:3], align_corners=self.config.align_corners)


def build_model(config: ModelConfig, *, rngs: nnx.Rngs) -> DeepLab:
    """A freshly initialized model in training mode; `model.eval()` switches BatchNorm and dropout to inference."""
    return DeepLab(config, rngs=rngs)
