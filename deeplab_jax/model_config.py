"""What a DeepLab is, as frozen dataclasses: facts, not names. `models.presets` says which facts make whose model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deeplab_jax.errors import InputError, check_finite

# A separable convolution is a depthwise 3x3, then a pointwise 1x1; in the last kind BatchNorm and ReLU lie between.
ConvKind = Literal["dense", "separable", "separable-norm-relu"]
# Where dilation replaces a stride: does the block that would have strided dilate too, or only what comes after it?
DilationRule = Literal["whole-stage", "after-strided-block"]
OutputStride = Literal[8, 16, 32]  # input pixels per pixel of the encoder's last feature map
# Of strided 3x3 windows: (1, 1), as in PyTorch; or TensorFlow's "SAME", which is (0, 1) where the size is even.
Padding = Literal["symmetric", "same"]


@dataclass(frozen=True)
class ResNetConfig:
    """ResNet and ResNeXt (arXiv:1512.03385, arXiv:1611.05431); the stride of a bottleneck sits on its 3x3."""

    blocks: tuple[int, int, int, int]  # residual blocks in each of the four stages
    bottleneck: bool  # True: 1x1-3x3-1x1 blocks; False: 3x3-3x3
    output_stride: OutputStride
    dilation_rule: DilationRule
    in_channels: int = 3
    width: int = 64  # channels of the stem; the stages are 1, 2, 4 and 8 times as wide
    groups: int = 1  # of a bottleneck's 3x3
    group_width: int = 64  # its channels in one group at stage 1, for a width of 64
    deep_stem: tuple[int, ...] = ()  # channels of the 3x3 convolutions that replace the stem's 7x7
    pool_padding: Padding = "symmetric"  # of the stem's max-pool
    stride_block: Literal["first", "last"] = "first"  # "last": a stage ends, instead of begins, with its stride
    low_level: Literal["stage", "residual"] = "stage"  # output of stage 1; or its last residual before any addition
    multi_grid: tuple[int, ...] = ()  # factor on the dilation of every block of the last stage
    epsilon: float = 1e-5  # of BatchNorm
    kind: Literal["resnet"] = "resnet"

    def __post_init__(self):
        check_encoder(self)
        if not all(1 <= blocks <= 1000 for blocks in self.blocks):
            raise InputError(f"blocks={self.blocks} must be 1 to 1000 in every stage")
        if not min(self.width, self.groups, self.group_width) >= 1:
            raise InputError("width, groups and group_width must be at least 1")
        inner = self.width * self.group_width // 64
        if not inner >= 1:
            raise InputError(f"width={self.width} and group_width={self.group_width} leave a bottleneck no channels")
        if self.groups != 1 and not self.bottleneck:
            raise InputError(f"groups={self.groups} needs bottleneck blocks")
        check_channels("deep_stem", self.deep_stem)
        check_channels("multi_grid", self.multi_grid)
        if len(self.multi_grid) not in (0, self.blocks[-1]):
            raise InputError(
                f"multi_grid={self.multi_grid} must hold a factor for each of the last stage's {self.blocks[-1]}"
            )
        if self.low_level == "residual" and self.blocks[0] < 2:
            raise InputError('low_level="residual" is taken before the last block of stage 1, which has only one')


@dataclass(frozen=True)
class XceptionConfig:
    """Aligned Xception (arXiv:1802.02611, figure 4): blocks of three separable convolutions."""

    entry: tuple[tuple[int, int], ...]  # channels and stride of every block of the entry flow
    middle: int  # blocks of the middle flow, as wide as the entry flow's last
    output_stride: OutputStride
    low_level: Literal["before-relu", "after-relu"]  # input of the third convolution in the last block at stride 4
    pre_activation: bool = False  # BatchNorm and ReLU before every convolution, none after
    keeps_projections: bool = False  # a block whose stride was replaced keeps the 1x1 shortcut that it could spare
    in_channels: int = 3
    stem: tuple[int, int] = (32, 64)  # channels of the two 3x3 convolutions
    exit: tuple[tuple[int, int, int], tuple[int, int, int]] = ((728, 1024, 1024), (1536, 1536, 2048))
    multi_grid: tuple[int, ...] = ()  # factor on the dilation of each of the last block's three convolutions
    epsilon: float = 1e-3  # of BatchNorm
    kind: Literal["xception"] = "xception"

    def __post_init__(self):
        check_encoder(self)
        if not 0 <= self.middle <= 1000:
            raise InputError(f"middle={self.middle} must be 0 to 1000")
        strides = [stride for _, stride in self.entry]
        if not (strides.count(2) == 3 and set(strides) <= {1, 2}):
            raise InputError(f"entry={self.entry} must stride by 2 three times")
        if len(self.multi_grid) not in (0, 3):
            raise InputError(f"multi_grid={self.multi_grid} must hold three factors")
        check_channels("entry", [channels for channels, _ in self.entry])
        check_channels("stem", self.stem)
        check_channels("exit", [*self.exit[0], *self.exit[1]])
        check_channels("multi_grid", self.multi_grid)


@dataclass(frozen=True)
class MobileNetV2Config:
    """MobileNetV2 (arXiv:1801.04381)."""

    stages: tuple[tuple[int, int, int, int], ...]  # expansion, channels, blocks and stride, as in table 2
    output_stride: OutputStride
    dilation_rule: DilationRule
    low_level: Literal["block", "expansion"]  # output of the last block at stride 4; or its depthwise convolution's
    head: int | None  # channels of a last 1x1 convolution, or none
    stem: int = 32  # channels of the first convolution
    padding: Padding = "symmetric"
    in_channels: int = 3
    epsilon: float = 1e-5  # of BatchNorm
    kind: Literal["mobilenet_v2"] = "mobilenet_v2"

    def __post_init__(self):
        check_encoder(self)
        if not all(min(stage) >= 1 for stage in self.stages):
            raise InputError(f"stages={self.stages} must be at least 1")
        if not all(stage[2] <= 1000 for stage in self.stages):
            raise InputError(f"stages={self.stages} must have at most 1000 blocks")
        strides = [stage[3] for stage in self.stages]
        if not (strides.count(2) == 4 and set(strides) <= {1, 2}):
            raise InputError(f"stages={self.stages} must stride by 2 four times")
        check_channels("stem", [self.stem])
        check_channels("head", [self.head] if self.head is not None else [])


EncoderConfig = ResNetConfig | XceptionConfig | MobileNetV2Config


MOST = 2**20  # dilation or channels: far beyond any use, and far from what would exhaust a machine before it is noticed


def check_channels(name: str, values: Sequence[int]) -> None:
    if not all(1 <= value <= MOST for value in values):
        raise InputError(f"{name}={list(values)} must be 1 to {MOST}")


def check_part(config: "ASPPConfig | DPCConfig | DecoderConfig | AuxHeadConfig") -> None:
    """What all parts of a head have in common."""
    check_finite(config)
    if not 1 <= config.channels <= MOST:
        raise InputError(f"channels={config.channels} must be 1 to {MOST}")
    if not config.epsilon > 0:
        raise InputError(f"epsilon={config.epsilon} must be positive")
    dropout = getattr(config, "dropout", 0.0)
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout} must be a probability, 0 to below 1")


def check_encoder(config: EncoderConfig) -> None:
    check_finite(config)
    if not config.in_channels >= 1:
        raise InputError(f"in_channels={config.in_channels} must be at least 1")
    if not config.epsilon > 0:
        raise InputError(f"epsilon={config.epsilon} must be positive")


@dataclass(frozen=True)
class ASPPConfig:
    """Atrous spatial pyramid pooling (arXiv:1706.05587, section 3.3)."""

    atrous_rates: tuple[int, ...] = (12, 24, 36)
    channels: int = 256  # of every branch and of the result
    branches: ConvKind = "dense"  # the 3x3 atrous convolutions
    refine: ConvKind | None = "dense"  # the 3x3 convolution after the projection
    pool_first: bool = False  # image pooling comes first in the concatenation, not last
    dropout: float = 0.5  # after the projection, while training
    epsilon: float = 1e-5
    kind: Literal["aspp"] = "aspp"

    def __post_init__(self):
        check_part(self)
        if not all(1 <= rate <= MOST for rate in self.atrous_rates):
            raise InputError(f"atrous_rates={self.atrous_rates} must be 1 to {MOST}")


@dataclass(frozen=True)
class DPCConfig:
    """A dense prediction cell (arXiv:1809.04184): separable 3x3 convolutions that read the encoder or one another."""

    inputs: tuple[int, ...]  # for every branch the number of the branch it reads; -1: the encoder
    atrous_rates: tuple[tuple[int, int], ...]  # its dilation, vertical and horizontal
    channels: int = 256  # of every branch and of the result
    dropout: float = 0.1  # before the projection, while training
    epsilon: float = 1e-5
    kind: Literal["dpc"] = "dpc"

    def __post_init__(self):
        check_part(self)
        if not len(self.inputs) == len(self.atrous_rates) >= 1:
            raise InputError("inputs and atrous_rates must name the same branches, at least one")
        if not all(-1 <= source < branch for branch, source in enumerate(self.inputs)):
            raise InputError(f"inputs={self.inputs} must name the encoder, -1, or earlier branches")
        if not all(1 <= step <= MOST for rate in self.atrous_rates for step in rate):
            raise InputError(f"atrous_rates={self.atrous_rates} must be 1 to {MOST}")


@dataclass(frozen=True)
class DecoderConfig:
    """The V3+ decoder: low-level features sharpen the upsampled pyramid (arXiv:1802.02611, section 3.1)."""

    low_level_channels: int = 48
    channels: int = 256
    fuse: ConvKind = "separable"  # the 3x3 convolutions after the concatenation
    depth: int = 1  # how many there are
    epsilon: float = 1e-5

    def __post_init__(self):
        check_part(self)
        if not 1 <= self.low_level_channels <= MOST:
            raise InputError(f"low_level_channels={self.low_level_channels} must be 1 to {MOST}")
        if not 1 <= self.depth <= 100:
            raise InputError(f"depth={self.depth} must be 1 to 100")


@dataclass(frozen=True)
class AuxHeadConfig:
    """A second classifier on the encoder's features before the last stage, for an auxiliary loss while training."""

    channels: int = 256  # of its 3x3 convolution
    dropout: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self):
        check_part(self)


@dataclass(frozen=True)
class ModelConfig:
    """One DeepLab, whole. `decoder=None` is DeepLabV3; with a decoder it is V3+."""

    num_classes: int  # logits of a pixel; 1: a sigmoid tells one class from background
    encoder: EncoderConfig
    aspp: ASPPConfig | DPCConfig = ASPPConfig()
    decoder: DecoderConfig | None = None
    aux_head: AuxHeadConfig | None = None
    align_corners: bool = True  # convention of every bilinear upsampling inside the model

    def __post_init__(self):
        if not 1 <= self.num_classes <= 254:
            raise InputError(f"num_classes={self.num_classes} must be 1 to 254; masks keep 255 for void")
