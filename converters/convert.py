"""`deeplab convert`: a file of someone's weights to a model and what a package needs to know beside it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flax import nnx

from converters import smp, smp_settings, tf_deeplab, tf_dilations, timm, torchvision
from converters.normalization import Normalization, recorded_normalization
from converters.readers.tf_files import atrous_rates_in, read_with_ema
from converters.readers.torch_objects import plain
from converters.readers.weights_file import Weights, has, read_weights
from converters.recorded import Report, Setting
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.data.formats import voc
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ASPPConfig, DPCConfig, MobileNetV2Config, ModelConfig, XceptionConfig
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
    mean: tuple[float, float, float] | None = None  # RGB of images in 0..1, that the model was trained with
    std: tuple[float, float, float] | None = None
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
    key: str = ""  # of the checkpoint that the weights were under
    report: Report = field(default_factory=Report)  # where each value that weights do not say is from

    def summary(self) -> list[str]:
        """What was converted, line by line."""
        config, aspp = self.model.config, self.model.config.aspp
        rates = f"rates {', '.join(map(str, aspp.atrous_rates))}" if aspp.atrous_rates else "no atrous branches"
        what = f"DeepLabV3{'+' if config.decoder else ''} with {self.encoder}, {config.num_classes} classes"
        count = sum(not name.endswith("num_batches_tracked") for name in self.weights)
        where = f" of {plain(self.key)}" if self.key else ""
        lines = [f"{count} tensors{where}: {what}, output stride {config.encoder.output_stride}, {rates}"]
        if self.report.taken:
            lines.append(f"recorded: {'; '.join(self.report.taken)}")
        if self.report.assumed:
            lines.append(f"not recorded, so taken to be the usual: {', '.join(self.report.assumed)}")
        lines += self.report.notes
        if self.beside:
            more = f" and {len(self.beside) - 8} more" if len(self.beside) > 8 else ""
            lines.append(f"left aside: {', '.join(map(plain, self.beside[:8]))}{more}")
        return lines


ANCHORS = {  # names that only models of that source have
    "smp": r"segmentation_head\.0\.weight",
    "torchvision": r"classifier\.0\.convs\.0\.0\.weight",
    "timm": r"(layer1\.0\.conv1|stem\.0\.conv|features\.0\.0)\.weight",
}


def read_torch_weights(source: str, path: Path) -> Weights:
    weights = read_weights(path, ANCHORS[source])
    names = [*weights.tensors, *weights.beside]
    for other in ("smp", "torchvision"):
        if other != source and has(ANCHORS[other], names) and (source == "timm" or not has(ANCHORS[source], names)):
            raise InputError(f"{path} holds weights of {other}; convert them with: deeplab convert {other} {path}")
    return weights


def defaults_taken(**known: Any) -> list[str]:
    """What was neither recorded nor given, with the options that change it."""
    return [f"{name.replace('_', ' ')} (--{name.replace('_', '-')})" for name, value in known.items() if value is None]


def from_smp(path: Path, options: Options) -> Converted:
    read, report = read_torch_weights("smp", path), Report()
    weights = smp.modernize(read.tensors)
    smp_settings.check_config(read.config, smp.is_plus(weights))
    given = options.encoder, options.output_stride, options.atrous_rates
    config = smp_settings.model_config(weights, read.settings, *given, report)
    check_takes_rgb(config, path)
    model = smp.from_state_dict(weights, config)
    preprocess, used = torch_preprocessing(config, options, (512, 512), read.settings, report)
    beside = left_aside(read, used)
    return Converted(model, weights, smp.encoder_name(config), preprocess, None, beside, read.key, report)


def first(*values: Any) -> Any:
    """The first that was given."""
    return next((value for value in values if value is not None), None)


def from_torchvision(path: Path, options: Options) -> Converted:
    read, report = read_torch_weights("torchvision", path), Report()
    weights, aside = torchvision.without_foreign_auxiliary(read.tensors)
    config = torchvision.infer_config(weights)
    torchvision.check_settings(config, read.settings)
    model = torchvision.from_state_dict(weights, config)
    preprocess, used = torch_preprocessing(config, options, (520, 520), read.settings, report)
    if config.num_classes == len(voc.CLASSES):
        report.assumed.clear()
    encoder, beside = torchvision.backbone_name(config), [*left_aside(read, used), *aside]
    return Converted(model, weights, encoder, preprocess, voc_names(config), beside, read.key, report)


def from_timm(path: Path, options: Options) -> Converted:
    read, report = read_torch_weights("timm", path), Report()
    names = [setting for setting in read.settings if setting.name in ("architecture", "encoder_name")]
    encoder = timm.choose_encoder(lambda: timm.infer_encoder(read.tensors), names, options.encoder, report)
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
    preprocess, used = torch_preprocessing(config, options, (512, 512), read.settings, report)
    beside = [*left_aside(read, used), *classifier]
    return Converted(model, read.tensors, encoder, preprocess, None, beside, read.key, report)


def from_tf(path: Path, options: Options) -> Converted:
    variables, beside = read_with_ema(path)
    result = tf_dilations.recorded(atrous_rates_in(path)) if path.suffix == ".pb" else tf_dilations.Dilations()
    stride = first(options.output_stride, result.output_stride)
    rates = first(options.atrous_rates, result.atrous_rates)
    multi_grid = first(options.multi_grid, result.multi_grid)
    config = tf_deeplab.infer_config(variables, stride, rates, multi_grid)
    check_takes_rgb(config, path)
    if isinstance(config.aspp, DPCConfig):
        tf_dilations.check_cell(config.aspp, result.cell)
    model = tf_deeplab.from_variables(variables, config)
    atrous = isinstance(config.aspp, ASPPConfig) and bool(config.aspp.atrous_rates)
    assumed = defaults_taken(
        output_stride=stride,
        atrous_rates=rates if atrous else (),
        multi_grid=() if isinstance(config.encoder, MobileNetV2Config) else multi_grid,
    )
    encoder, _ = tf_deeplab.infer_variant(variables)
    preprocess = tf_deeplab.preprocessing(config, options.size or (513, 513))
    report = Report(assumed=assumed)
    return Converted(model, variables, encoder, preprocess, voc_names(config), beside, report=report)


SOURCES: dict[str, Callable[[Path, Options], Converted]] = {
    "smp": from_smp,
    "torchvision": from_torchvision,
    "tf": from_tf,
    "timm": from_timm,
}


FIXED = {  # options that would contradict what the source's models are
    "smp": ("multi_grid", "architecture"),
    "torchvision": ("encoder", "output_stride", "atrous_rates", "multi_grid", "architecture"),
    "tf": ("encoder", "mean", "std", "architecture"),
    "timm": ("multi_grid",),
}


def convert(source: str, path: Path, options: Options) -> Converted:
    """Raises InputError that names the file and what is wrong with it."""
    for name, value in vars(options).items():
        option = f"--{name.replace('_', '-')}"
        if name in FIXED[source] and value is not None:
            raise InputError(f"{option} cannot be chosen for {source} weights; leave it out")
        if name in ("mean", "std") and value is not None and not all(0 <= channel <= 1 for channel in value):
            raise InputError(f"{option} is for images of 0 to 1, so must be 0 to 1; divide the numbers by 255")
        if value == ():
            raise InputError(f"{option} needs at least one value; leave it out for what is recorded or usual")
    try:
        return SOURCES[source](path, options)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def check_takes_rgb(config: ModelConfig, path: Path) -> None:
    """Before what is recorded of images is read: whatever that is, there could be no package."""
    if (channels := config.encoder.in_channels) != 3:
        raise InputError(
            f"{path} is a model of {channels} channels, but a package takes RGB images; the converters' Python "
            "functions load it (docs/port.md)"
        )


def torch_preprocessing(
    config: ModelConfig, options: Options, size: tuple[int, int], settings: Collection[Setting], report: Report
) -> tuple[PreprocessConfig, Normalization | None]:
    """How images become network input: by the options, else as recorded, else as usual; and what was recorded."""
    usual = PreprocessConfig(options.size or size)
    if isinstance(config.encoder, XceptionConfig):
        usual = replace(usual, mean=INCEPTION, std=INCEPTION)
    result = recorded_normalization(settings, report, options.mean, options.std)
    report.assumed += defaults_taken(mean=first(options.mean, result), std=first(options.std, result))
    if result:
        usual = replace(usual, mean=result.mean, std=result.std, color_mode="bgr" if result.bgr else "rgb")
    order = result.order if result else 1
    given = {name: value[::order] for name in ("mean", "std") if (value := getattr(options, name)) is not None}
    return replace(usual, **given), result


def left_aside(read: Weights, used: Normalization | None) -> list[str]:
    """What is in the file and was taken neither as weights nor as normalization."""
    prefix = f"{read.key}." if read.key else ""
    taken = [".".join(setting.path) for setting in used.settings.values()] if used else []
    return [
        name
        for name in read.beside
        if f"{prefix}{name}" not in taken and not any(f"{place}.".startswith(f"{name}.") for place in taken)
    ]


def voc_names(config: ModelConfig) -> tuple[str, ...] | None:
    """Published weights for 21 classes are for PASCAL VOC's."""
    return voc.CLASSES if config.num_classes == len(voc.CLASSES) else None
