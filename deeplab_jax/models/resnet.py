"""ResNet encoder with dilation (arXiv:1512.03385; the stride of a bottleneck sits on its 3x3, as in torchvision)."""

from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.config import EncoderConfig
from deeplab_jax.models.layers import Conv, max_pool, norm

Features = tuple[Float[Array, "b _ _ _"], ...]


class BasicBlock(nnx.Module):
    expansion = 1

    def __init__(
        self, cin: int, width: int, *, stride: int, first_dilation: int, dilation: int, epsilon: float, rngs: nnx.Rngs
    ):
        self.conv1 = Conv(cin, width, 3, stride=stride, dilation=first_dilation, rngs=rngs)
        self.norm1 = norm(width, epsilon, rngs=rngs)
        self.conv2 = Conv(width, width, 3, dilation=dilation, rngs=rngs)
        self.norm2 = norm(width, epsilon, rngs=rngs)
        self.shortcut = shortcut(cin, width, stride, epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h2 w2 cout"]:
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


class Bottleneck(nnx.Module):
    expansion = 4

    def __init__(
        self, cin: int, width: int, *, stride: int, first_dilation: int, dilation: int, epsilon: float, rngs: nnx.Rngs
    ):
        del dilation  # of what follows the first 3x3; a bottleneck has only one
        cout = width * self.expansion
        self.conv1 = Conv(cin, width, rngs=rngs)
        self.norm1 = norm(width, epsilon, rngs=rngs)
        self.conv2 = Conv(width, width, 3, stride=stride, dilation=first_dilation, rngs=rngs)
        self.norm2 = norm(width, epsilon, rngs=rngs)
        self.conv3 = Conv(width, cout, rngs=rngs)
        self.norm3 = norm(cout, epsilon, rngs=rngs)
        self.shortcut = shortcut(cin, cout, stride, epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h2 w2 cout"]:
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return nnx.relu(y + (self.shortcut(x) if self.shortcut else x))


class Shortcut(nnx.Module):
    """1x1 projection of the identity branch, where size or channels change."""

    def __init__(self, cin: int, cout: int, stride: int, epsilon: float, *, rngs: nnx.Rngs):
        self.conv = Conv(cin, cout, stride=stride, rngs=rngs)
        self.norm = norm(cout, epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h2 w2 cout"]:
        return self.norm(self.conv(x))


def shortcut(cin: int, cout: int, stride: int, epsilon: float, *, rngs: nnx.Rngs) -> Shortcut | None:
    return None if cin == cout and stride == 1 else Shortcut(cin, cout, stride, epsilon, rngs=rngs)


class ResNet(nnx.Module):
    """Returns the outputs of the four stages; the first is the low-level feature map at stride 4."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        block = Bottleneck if config.bottleneck else BasicBlock
        self.conv1 = Conv(config.in_channels, config.width, 7, stride=2, rngs=rngs)
        self.norm1 = norm(config.width, config.epsilon, rngs=rngs)
        stages, cin = [], config.width
        for index, plan in enumerate(dilation_plan(config)):
            width = config.width * 2**index
            blocks = []
            for stride, first_dilation, dilation in plan:
                options = {"stride": stride, "first_dilation": first_dilation, "dilation": dilation}
                blocks.append(block(cin, width, **options, epsilon=config.epsilon, rngs=rngs))
                cin = width * block.expansion
            stages.append(nnx.List(blocks))
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        self.out_channels = tuple(config.width * 2**index * block.expansion for index in range(4))

    def __call__(self, images: Float[Array, "b h w cin"]) -> Features:
        x = max_pool(nnx.relu(self.norm1(self.conv1(images))))
        features = []
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            for block in stage:
                x = block(x)
            features.append(x)
        return tuple(features)


def dilation_plan(config: EncoderConfig) -> list[list[tuple[int, int, int]]]:
    """(stride, dilation of the first 3x3, dilation of the second) of every block, stage by stage.

    Once the output stride is reached a stage doubles the dilation instead of striding. By the "whole-stage" rule (smp)
    its first block dilates too; by "after-first-block" (torchvision, timm) that block keeps the dilation so far.
    """
    plans, total, dilation = [], 4, 1
    for index, count in enumerate(config.blocks):
        before, stride = dilation, 1
        if index and total < config.output_stride:
            total, stride = total * 2, 2
        elif index:
            dilation *= 2
        first = dilation if config.dilation_rule == "whole-stage" else before
        plans.append([(stride, first, dilation)] + [(1, dilation, dilation)] * (count - 1))
    return plans
