"""`deeplab convert`: a file of someone's weights to a model and what a package needs to know beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import nnx

from converters import smp, tf_deeplab, timm, torchvision
from converters.files import read_weights, unwrap
from converters.tf_files import atrous_rates_in, read_tf
from deeplab_jax.architecture import ModelConfig, XceptionConfig
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
    architecture: str = "DeepLabV3Plus"  # to put an ImageNet encoder into
    classes: int = 21  # likewise


@dataclass(frozen=True)
class Converted:
    model: DeepLab
    weights: Mapping[str, Any]  # what the model was made from, under the names there
    encoder: str  # its name there
    preprocess: PreprocessConfig
    class_names: tuple[str, ...] | None  # where they are known
    beside: list[str]  # names in the file that are no part of the model
    assumed: str = ""  # what no file records and nobody gave

    def summary(self) -> list[str]:
        """What was converted, line by line."""
        config, aspp = self.model.config, self.model.config.aspp
        rates = f"rates {', '.join(map(str, aspp.rates))}" if aspp.rates else "no atrous branches"
        what = f"DeepLabV3{'+' if config.decoder else ''} with {self.encoder}, {config.num_classes} classes"
        lines = [f"{len(self.weights)} tensors: {what}, output stride {config.encoder.output_stride}, {rates}"]
        if self.assumed:
            lines.append(f"not recorded, so {self.encoder} has the usual {self.assumed}")
        if self.beside:
            lines.append(f"left aside: {', '.join(self.beside)}")
        return lines


def defaults_taken(stride: Any, rates: Any) -> str:
    """What was neither recorded nor given, with the options that change it."""
    missing = [] if stride else ["output stride (--output-stride)"]
    return " and ".join(missing if rates else [*missing, "atrous rates (--atrous-rates)"])


def from_smp(path: Path, options: Options) -> Converted:
    weights, recorded = read_weights(path)
    weights, beside = unwrap(weights, r"segmentation_head\.0\.weight")
    weights = smp.modernise(weights)
    config = smp.infer_config(weights, options.encoder, options.output_stride, options.atrous_rates, recorded)
    model = smp.from_state_dict(weights, config)
    preprocess = torch_preprocessing(config, options.size or (512, 512))
    assumed = defaults_taken(
        options.output_stride or recorded.get("encoder_output_stride"),
        options.atrous_rates or recorded.get("decoder_atrous_rates"),
    )
    return Converted(model, weights, smp.encoder_name(config), preprocess, None, beside, assumed)


def from_torchvision(path: Path, options: Options) -> Converted:
    weights, beside = unwrap(read_weights(path)[0], r"classifier\.4\.weight")
    config = torchvision.infer_config(weights)
    model = torchvision.from_state_dict(weights, config)
    preprocess = torch_preprocessing(config, options.size or (520, 520))
    return Converted(model, weights, torchvision.backbone_name(config), preprocess, voc_names(config), beside)


def from_timm(path: Path, options: Options) -> Converted:
    weights, beside = unwrap(read_weights(path)[0], r"(conv1|stem\.0\.conv|features\.0\.0)\.weight")
    encoder = options.encoder or timm.infer_encoder(weights)
    if options.architecture not in smp.PRESETS:
        raise InputError(f"architecture {options.architecture!r} is not known; choose one of {', '.join(smp.PRESETS)}")
    rates = options.atrous_rates or (12, 24, 36)
    preset = smp.PRESETS[options.architecture]
    config = preset(encoder, options.classes, options.output_stride or 16, decoder_atrous_rates=rates)
    model = build_model(config, rngs=nnx.Rngs(0))
    beside += timm.load_encoder(model, weights)
    model.eval()
    preprocess = torch_preprocessing(config, options.size or (512, 512))
    return Converted(model, weights, encoder, preprocess, None, beside)


def from_tf(path: Path, options: Options) -> Converted:
    variables = read_tf(path)
    stride, rates = tf_deeplab.recorded(atrous_rates_in(path)) if path.suffix == ".pb" else (None, None)
    stride, rates = options.output_stride or stride, options.atrous_rates or rates
    config = tf_deeplab.infer_config(variables, stride, rates)
    model = tf_deeplab.from_variables(variables, config)
    preprocess = tf_deeplab.preprocessing(config, options.size or (513, 513))
    assumed = defaults_taken(stride, rates or not config.aspp.rates)
    encoder, _ = tf_deeplab.infer_variant(variables)
    return Converted(model, variables, encoder, preprocess, voc_names(config), [], assumed)


SOURCES: dict[str, Callable[[Path, Options], Converted]] = {
    "smp": from_smp,
    "torchvision": from_torchvision,
    "tf": from_tf,
    "timm": from_timm,
}


FIXED = {  # options that would contradict what the source's models are
    "smp": ("architecture",),
    "torchvision": ("encoder", "output_stride", "atrous_rates", "architecture"),
    "tf": ("encoder", "architecture"),
    "timm": (),
}


def convert(source: str, path: Path, options: Options) -> Converted:
    """Raises InputError that names the file and what is wrong with it."""
    for name in FIXED[source]:
        if getattr(options, name) != getattr(Options(), name):
            raise InputError(f"--{name.replace('_', '-')} cannot be chosen for {source} weights; leave it out")
    try:
        return SOURCES[source](path, options)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def torch_preprocessing(config: ModelConfig, size: tuple[int, int]) -> PreprocessConfig:
    if isinstance(config.encoder, XceptionConfig):
        return PreprocessConfig(size, mean=INCEPTION, std=INCEPTION)
    return PreprocessConfig(size)


def voc_names(config: ModelConfig) -> tuple[str, ...] | None:
    """Published weights for 21 classes are for PASCAL VOC's."""
    return voc.CLASSES if config.num_classes == len(voc.CLASSES) else None
