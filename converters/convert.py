"""`deeplab convert`: a file of someone's weights to a model and what a package needs to know beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flax import nnx

from converters import smp, tf_deeplab, timm, torchvision
from converters.files import Weights, has, read_weights
from converters.tf_files import atrous_rates_in, read_tf
from deeplab_jax.architecture import ModelConfig, ResNetConfig, XceptionConfig
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.data.formats import voc
from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab, build_model

INCEPTION = (0.5, 0.5, 0.5)  # mean and deviation of timm's Xceptions; the others have ImageNet's, our default


@dataclass(frozen=True)
class Options:
    """What no weights file records, and what to take instead of what would be inferred."""

    encoder: str | None = None  # such as resnet50 or tu-xception65
    output_stride: int | None = None
    atrous_rates: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None  # height and width of the network input
    multi_grid: tuple[int, ...] | None = None
    architecture: str | None = None  # to put an ImageNet encoder into
    classes: int | None = None  # likewise


@dataclass(frozen=True)
class Converted:
    model: DeepLab
    weights: Mapping[str, Any]  # what the model was made from, under the names there
    encoder: str  # its name there
    preprocess: PreprocessConfig
    class_names: tuple[str, ...] | None  # where they are known
    beside: list[str]  # what is in the file and is no part of the model
    assumed: list[str] = field(default_factory=list)  # what no file records and nobody gave

    def summary(self) -> list[str]:
        """What was converted, line by line."""
        config, aspp = self.model.config, self.model.config.aspp
        rates = f"rates {', '.join(map(str, aspp.rates))}" if aspp.rates else "no atrous branches"
        what = f"DeepLabV3{'+' if config.decoder else ''} with {self.encoder}, {config.num_classes} classes"
        count = sum(not name.endswith("num_batches_tracked") for name in self.weights)
        lines = [f"{count} tensors: {what}, output stride {config.encoder.output_stride}, {rates}"]
        if self.assumed:
            lines.append(f"not recorded, so {self.encoder} has the usual {' and '.join(self.assumed)}")
        if self.beside:
            more = f" and {len(self.beside) - 8} more" if len(self.beside) > 8 else ""
            lines.append(f"left aside: {', '.join(self.beside[:8])}{more}")
        return lines


ANCHORS = {  # names that only models of that source have
    "smp": r"segmentation_head\.0\.weight",
    "torchvision": r"classifier\.4\.weight",
    "timm": r"(conv1|stem\.0\.conv|features\.0\.0)\.weight",
}


def read_torch_weights(source: str, path: Path) -> Weights:
    weights = read_weights(path, ANCHORS[source])
    for other in ("smp", "torchvision"):
        if other != source and has(ANCHORS[other], [*weights.tensors, *weights.beside]):
            raise InputError(f"{path} holds weights of {other}; convert them with: deeplab convert {other} {path}")
    return weights


def defaults_taken(**values: Any) -> list[str]:
    """What was neither recorded nor given, with the options that change it."""
    return [f"{name.replace('_', ' ')} (--{name.replace('_', '-')})" for name, value in values.items() if not value]


def from_smp(path: Path, options: Options) -> Converted:
    read = read_torch_weights("smp", path)
    weights = smp.modernise(read.tensors)
    config = smp.infer_config(weights, options.encoder, options.output_stride, options.atrous_rates, read.recorded)
    model = smp.from_state_dict(weights, config)
    preprocess = torch_preprocessing(config, options.size or (512, 512))
    assumed = defaults_taken(
        output_stride=options.output_stride or read.recorded.get("encoder_output_stride"),
        atrous_rates=options.atrous_rates or read.recorded.get("decoder_atrous_rates"),
    )
    activation = read.recorded.get("activation")
    beside = [*read.beside, *([f"activation {activation!r} (packages take logits)"] if activation else [])]
    return Converted(model, weights, smp.encoder_name(config), preprocess, None, beside, assumed)


def from_torchvision(path: Path, options: Options) -> Converted:
    read = read_torch_weights("torchvision", path)
    config = torchvision.infer_config(read.tensors)
    model = torchvision.from_state_dict(read.tensors, config)
    preprocess = torch_preprocessing(config, options.size or (520, 520))
    encoder = torchvision.backbone_name(config)
    return Converted(model, read.tensors, encoder, preprocess, voc_names(config), read.beside)


def from_timm(path: Path, options: Options) -> Converted:
    read = read_torch_weights("timm", path)
    encoder = options.encoder or timm.infer_encoder(read.tensors)
    preset = smp.PRESETS[options.architecture or "DeepLabV3Plus"]
    config = preset(
        encoder,
        options.classes or len(voc.CLASSES),
        options.output_stride or 16,
        decoder_atrous_rates=options.atrous_rates or (12, 24, 36),
    )
    model = build_model(config, rngs=nnx.Rngs(0))
    classifier = timm.load_encoder(model, read.tensors)
    model.eval()
    preprocess = torch_preprocessing(config, options.size or (512, 512))
    return Converted(model, read.tensors, encoder, preprocess, None, [*read.beside, *classifier])


def from_tf(path: Path, options: Options) -> Converted:
    variables = read_tf(path)
    found = tf_deeplab.Dilations()
    if path.suffix == ".pb":
        found = tf_deeplab.recorded(atrous_rates_in(path))
    stride, rates = options.output_stride or found.output_stride, options.atrous_rates or found.atrous_rates
    multi_grid = options.multi_grid or found.multi_grid
    config = tf_deeplab.infer_config(variables, stride, rates, multi_grid)
    model = tf_deeplab.from_variables(variables, config)
    preprocess = tf_deeplab.preprocessing(config, options.size or (513, 513))
    beta = isinstance(config.encoder, ResNetConfig) and bool(config.encoder.deep_stem)
    assumed = defaults_taken(
        output_stride=stride, atrous_rates=rates or not config.aspp.rates, multi_grid=multi_grid or not beta
    )
    encoder, _ = tf_deeplab.infer_variant(variables)
    return Converted(model, variables, encoder, preprocess, voc_names(config), [], assumed)


SOURCES: dict[str, Callable[[Path, Options], Converted]] = {
    "smp": from_smp,
    "torchvision": from_torchvision,
    "tf": from_tf,
    "timm": from_timm,
}


FIXED = {  # options that would contradict what the source's models are
    "smp": ("multi_grid", "architecture"),
    "torchvision": ("encoder", "output_stride", "atrous_rates", "multi_grid", "architecture"),
    "tf": ("encoder", "architecture"),
    "timm": ("multi_grid",),
}


def convert(source: str, path: Path, options: Options) -> Converted:
    """Raises InputError that names the file and what is wrong with it."""
    for name, value in vars(options).items():
        option = f"--{name.replace('_', '-')}"
        if name in FIXED[source] and value is not None:
            raise InputError(f"{option} cannot be chosen for {source} weights; leave it out")
        if value == ():
            raise InputError(f"{option} needs at least one value; leave it out for what is recorded or usual")
    try:
        converted = SOURCES[source](path, options)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    channels = converted.model.config.encoder.in_channels
    if channels != 3:
        raise InputError(
            f"{path} is a model of {channels} channels, but a package takes RGB pictures; the converters' Python "
            "functions load it (README, Port weights)"
        )
    return converted


def torch_preprocessing(config: ModelConfig, size: tuple[int, int]) -> PreprocessConfig:
    if isinstance(config.encoder, XceptionConfig):
        return PreprocessConfig(size, mean=INCEPTION, std=INCEPTION)
    return PreprocessConfig(size)


def voc_names(config: ModelConfig) -> tuple[str, ...] | None:
    """Published weights for 21 classes are for PASCAL VOC's."""
    return voc.CLASSES if config.num_classes == len(voc.CLASSES) else None
