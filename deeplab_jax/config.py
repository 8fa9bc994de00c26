"""Everything a user can set, as frozen dataclasses, with one way to JSON and back.

This file imports the standard library alone: an exported package is described with it on machines that have no JAX.
"""

import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deeplab_jax.errors import InputError, check_finite
from deeplab_jax.model_config import ModelConfig
from deeplab_jax.serialization import from_dict, to_dict

IGNORE = 255  # mask value of pixels that have no label

# How an image comes to the network's size. letterbox: scaled to fit, centered. pad: in the top left corner, scaled only
# if it is too large, as the original DeepLab evaluates. stretch: scaled to cover, whatever its aspect. center-crop: its
# middle, not scaled, on black.
ResizeMode = Literal["letterbox", "pad", "stretch", "center-crop"]
ColorMode = Literal["rgb", "bgr", "gray"]
Contrast = Literal["Contrast Stretching", "Histogram Equalization", "Adaptive Equalization"]


@dataclass(frozen=True)
class PreprocessConfig:
    """How an image becomes network input: fitted to one size, divided by 255, normalized per channel."""

    size: tuple[int, int] = (512, 512)  # height, width in pixels
    resize_mode: ResizeMode = "letterbox"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of images in 0..1, in the order of color_mode
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    padding_value: float | None = 127.0  # gray level 0..255 of what the image does not cover; None: the mean
    # Before that, in this order, as the shared inference API does them:
    static_crop: tuple[int, int, int, int] | None = None  # left, top, right, bottom of what is used, in percent
    grayscale: bool = False  # all channels alike
    contrast: Contrast | None = None
    color_mode: ColorMode = "rgb"  # channels of the network input; gray: one. Training knows rgb alone

    def __post_init__(self):
        check_finite(self)
        if not all(1 <= side <= 16384 for side in self.size):
            raise InputError(f"size={self.size} must be 1 to 16384 pixels a side")
        if not all(deviation > 0 for deviation in self.std):
            raise InputError(f"std={self.std} must be positive")
        if not (self.padding_value is None or 0 <= self.padding_value <= 255):
            raise InputError(f"padding_value={self.padding_value} must be 0 to 255")
        left, top, right, bottom = self.static_crop or (0, 0, 100, 100)
        if not (0 <= left < right <= 100 and 0 <= top < bottom <= 100):
            raise InputError(f"static_crop={self.static_crop} must be left, top, right and bottom, 0 to 100 percent")

    @property
    def padding(self) -> tuple[float, float, float]:
        """Levels 0..255 of the channels where the image does not reach."""
        if self.resize_mode == "center-crop":
            return 0.0, 0.0, 0.0
        if self.padding_value is None:
            first, second, third = self.mean
            return first * 255, second * 255, third * 255
        return self.padding_value, self.padding_value, self.padding_value

    @property
    def channels(self) -> int:
        return 1 if self.color_mode == "gray" else 3


@dataclass(frozen=True)
class DataConfig:
    root: Path = Path("data")  # folder of the data set
    format: str = "folder"  # layout of that folder: a name in deeplab_jax/data/formats, or tfds:NAME
    train_split: str = "train"
    val_split: str = "val"
    threads: int = 4  # that read and decode
    workers: int = 0  # processes that do so, each with its threads; 0: the one that trains

    def __post_init__(self):
        if self.workers < 0:
            raise InputError(f"workers={self.workers} must not be negative")
        if self.threads < 1:
            raise InputError(f"threads={self.threads} must be at least 1")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training images, drawn anew for every image and step."""

    crop: tuple[int, int] = (256, 256)  # height, width of the training crop in pixels
    scale: tuple[float, float] = (0.5, 2.0)  # zoom, drawn log-uniformly
    flip: float = 0.5  # probability of a left-right mirror image
    rotation: float = 0.0  # largest angle in degrees, either way
    brightness: float = 0.2  # largest relative change
    contrast: float = 0.2  # likewise
    saturation: float = 0.2  # likewise
    hue: float = 0.0  # largest turn of all colors, as a share of the color circle
    blur: float = 0.0  # largest deviation of a Gaussian, in pixels of the crop
    noise: float = 0.0  # largest deviation of Gaussian noise, as a share of white

    def __post_init__(self):
        check_finite(self)
        if not all(side >= 1 for side in self.crop):
            raise InputError(f"crop={self.crop} must be at least 1 pixel a side")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale={self.scale} must be (smallest, largest), above 0")
        if not 0 <= self.rotation <= 180:
            raise InputError(f"rotation={self.rotation} must be 0 to 180 degrees")
        if not 0 <= self.blur <= 20:
            raise InputError(f"blur={self.blur} must be 0 to 20 pixels")
        for name in ("flip", "brightness", "contrast", "saturation", "hue", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must be 0 to 1")


LOSS_TERMS = "cross_entropy", "focal", "dice", "lovasz"


@dataclass(frozen=True)
class LossConfig:
    """What is minimized: a sum of terms, each with a weight; a term of weight 0 is not computed."""

    cross_entropy: float = 1.0
    focal: float = 0.0  # arXiv:1708.02002
    dice: float = 0.0  # arXiv:1606.04797
    lovasz: float = 0.0  # arXiv:1705.08790; of one logit the Lovász hinge
    auxiliary: float = 0.4  # on the same sum for the auxiliary classifier, of a model that has one
    # One for every class, of cross-entropy and focal loss; empty: all equal. For a model of one logit also the
    # foreground's alone, which is PyTorch's pos_weight.
    class_weights: tuple[float, ...] = ()
    balance: bool = False  # class weights from the pixel counts of the training set, rare classes weighing more
    label_smoothing: float = 0.0  # of cross-entropy: share of the truth that is spread over all classes
    ohem_fraction: float = 1.0  # of cross-entropy: share of an image's valid pixels that count, those of largest loss
    focal_gamma: float = 2.0  # how much less the focal loss counts pixels that are nearly right

    def __post_init__(self):
        check_finite(self)
        for name in (*LOSS_TERMS, "auxiliary", "focal_gamma"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} must not be negative")
        if not any(getattr(self, name) for name in LOSS_TERMS):
            raise InputError(f"every loss has weight 0; give one of {', '.join(LOSS_TERMS)} a weight")
        if not all(weight >= 0 for weight in self.class_weights):
            raise InputError("class_weights must not be negative")
        if self.class_weights and not any(self.class_weights):
            raise InputError("class_weights are all 0; give one class a weight")
        if self.class_weights and self.balance:
            raise InputError("give either class_weights or balance, not both")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing={self.label_smoothing} must be 0 to below 1")
        if not 0 < self.ohem_fraction <= 1:
            raise InputError(f"ohem_fraction={self.ohem_fraction} must be above 0, to 1")


@dataclass(frozen=True)
class InitConfig:
    """What a run starts from."""

    package: Path | None = None  # a JAX package, or none: random weights
    # All of its weights but the last layer's; or all; or those of the encoder, whatever comes after it.
    mode: Literal["transfer_learning", "continue_training", "encoder"] = "transfer_learning"

    def __post_init__(self):
        if self.package is None and self.mode != "transfer_learning":
            raise InputError(f"mode={self.mode} needs the package whose weights to take; give init.package")


@dataclass(frozen=True)
class OptimConfig:
    """From gradients to new weights."""

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01  # the largest of the run
    schedule: Literal["poly", "cosine", "constant"] = "poly"  # how it falls; poly: (1 - done) ** poly_power
    poly_power: float = 0.9
    warmup: int = 0  # updates over which the learning rate rises to its largest
    momentum: float = 0.9  # of sgd
    weight_decay: float = 1e-4  # of convolution kernels only; L2, with adamw decoupled from the gradient
    encoder_lr_scale: float = 1.0  # on the encoder's learning rate
    grad_clip_norm: float | None = None  # gradients are scaled down to this norm, over all weights
    grad_accum_steps: int = 1  # steps whose gradients are averaged for one update
    ema_decay: float = 0.0  # decay of the moving average of weights that is evaluated and packaged; 0: none
    freeze_encoder: bool = False  # its weights and BatchNorm statistics stay as they are
    freeze_norms: bool = False  # scale, bias and statistics of every BatchNorm stay as they are

    def __post_init__(self):
        check_finite(self)
        if not self.lr > 0:
            raise InputError(f"lr={self.lr} must be positive")
        for name in ("momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be 0 to below 1")
        for name in ("poly_power", "warmup", "weight_decay", "encoder_lr_scale"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} must not be negative")
        if not (self.grad_clip_norm is None or self.grad_clip_norm > 0):
            raise InputError(f"grad_clip_norm={self.grad_clip_norm} must be positive")
        if self.grad_accum_steps < 1:
            raise InputError(f"grad_accum_steps={self.grad_accum_steps} must be at least 1")


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 10_000
    epochs: float | None = None  # instead of steps; the last batch of an epoch is filled from the next one
    batch_size: int = 16  # global, over all devices
    precision: Literal["float32", "bfloat16"] = "float32"  # of convolutions; weights, statistics and loss stay float32
    spatial_shards: int = 1  # devices that share an image, each some of its rows: for images too large for one
    remat: bool = False  # compute features again in the backward pass: slower, with far less memory
    log_every: int = 10  # steps
    validate_every: int = 500  # steps; also at the last one
    validate_epochs: float | None = None  # instead of validate_every; 0.25: four times an epoch
    best_by: Literal["miou", "loss"] = "miou"  # which validation gives the package: largest mIoU, or smallest loss
    patience: int | None = None  # validations without a better one, after which the run ends
    save_every: int = 500  # steps; also at the last one
    seed: int = 0
    wandb: str | None = None  # a project of Weights & Biases, which gets the figures and images too

    def __post_init__(self):
        for name in ("steps", "batch_size", "spatial_shards", "log_every", "validate_every", "save_every"):
            if not getattr(self, name) >= 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("epochs", "validate_epochs", "patience"):
            value = getattr(self, name)
            if not (value is None or 0 < value < float("inf")):
                raise InputError(f"{name}={value} must be positive")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed={self.seed} must be 0 to below 2^32")


@dataclass(frozen=True)
class Experiment:
    """One training run. A recipe in `experiments/` is a Python file that sets `config` to one of these."""

    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    preprocess: PreprocessConfig = PreprocessConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    init: InitConfig = InitConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self):
        # Python checks no types: a misspelt choice would be taken for another one, a list for what it is not.
        for name, kind in typing.get_type_hints(Experiment).items():
            object.__setattr__(self, name, from_dict(kind, to_dict(getattr(self, name)), name))
        if self.train.batch_size < 2 and not self.optim.freeze_norms:
            raise InputError(
                "train.batch_size=1 must be at least 2, as BatchNorm of a single pooled value gives nothing; or freeze "
                "all BatchNorms (optim.freeze_norms)"
            )
        if self.preprocess.color_mode != "rgb":
            raise InputError("preprocess.color_mode must be rgb in training")
        channels = self.model.encoder.in_channels
        reads = "training reads every image as three channels, red, green and blue, gray ones too"
        if channels != 3:
            raise InputError(f"model.encoder.in_channels={channels} must be 3: {reads}")
        mean, std = self.preprocess.mean, self.preprocess.std
        if not all(0 <= level <= 1 for level in mean) or max(std) > 1:
            raise InputError(
                f"preprocess.mean={mean} and std={std} must be those of images in 0..1; divide them by 255 if they are "
                "of levels"
            )
        stride, crop = self.model.encoder.output_stride, self.augment.crop
        if min(crop) < stride:
            raise InputError(f"augment.crop={crop} must be at least {stride}, the output stride, a side")
