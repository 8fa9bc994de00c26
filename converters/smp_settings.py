"""What segmentation_models_pytorch was told, where a file records it, and options that win over that."""

from collections.abc import Collection, Mapping
from typing import Any

from converters import smp, timm
from converters.recorded import Report, Setting, decide, integer, integers, show
from deeplab_jax.errors import InputError
from deeplab_jax.model_config import ModelConfig

CONFIG = "config.json"  # what `save_pretrained` writes: the arguments, and nothing else
OTHER_MODELS = {
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet"),
    *("Segformer", "DPT"),
}
KNOWN = {
    *("_model_class", "activation", "aux_params", "classes", "decoder_aspp_dropout", "decoder_aspp_separable"),
    *("decoder_atrous_rates", "decoder_channels", "encoder_depth", "encoder_name", "encoder_output_stride"),
    *("encoder_weights", "in_channels", "upsampling", "drop_path_rate", "drop_rate", "mean", "std"),
}
OWN = ("encoder_name", "encoder_output_stride", "decoder_atrous_rates")  # a dictionary with one of these is a model's
TIMM_ARGUMENTS = ("act_layer", "norm_layer", "aa_layer")  # handed on to timm: the same tensors, another network


def check_config(config: Mapping[str, Any], plus: bool) -> None:
    """Raises InputError where `config.json` is of another model, or has an argument that is not known here."""
    model = config.get("_model_class")
    if model in OTHER_MODELS - {"DeepLabV3Plus" if plus else "DeepLabV3"}:
        raise InputError(f"{CONFIG}: _model_class {model!r} is not what the weights are of")
    unknown = [name for name, value in config.items() if name not in KNOWN and value is not None]
    if unknown:
        raise InputError(f"{CONFIG}: {unknown[0]} {config[unknown[0]]!r} is not supported")


def model_config(
    weights: Mapping[str, Any],
    settings: Collection[Setting],
    encoder: str | None,
    output_stride: int | None,
    atrous_rates: tuple[int, ...] | None,
    report: Report,
) -> ModelConfig:
    """The architecture: by the weights' shapes, then by what is given, then by what is recorded, else as usual.

    Raises:
        InputError: where settings contradict each other or the weights, or say what no DeepLab here can do.
    """
    settings = [setting for setting in settings if setting.name in OWN or _is_of_model(setting, settings)]
    shapes = smp.infer_shapes(weights)

    def of(name: str) -> list[Setting]:
        return [setting for setting in settings if setting.name == name]

    encoder = timm.choose_encoder(lambda: smp.infer_encoder(weights), of("encoder_name"), encoder, report)
    kinds = "8 or 16", f"{smp.BRANCHES} whole numbers"
    stride = decide(of("encoder_output_stride"), output_stride, _stride, "output stride", report, kinds[0])
    rates = decide(of("decoder_atrous_rates"), atrous_rates, _rates, "atrous rates", report, kinds[1])
    dropouts = [float(s.value) for s in of("decoder_aspp_dropout") if isinstance(s.value, float | int)]
    config = smp.infer_config(weights, encoder, stride, rates, next(iter(dropouts), None))
    full = 4 if config.decoder else config.encoder.output_stride  # brings the logits to the image's size
    for name, usual in {"encoder_depth": 5, "upsampling": full, **dict.fromkeys(TIMM_ARGUMENTS)}.items():
        for setting in of(name):
            number, certain = integer(setting.value), setting.file == CONFIG or name in TIMM_ARGUMENTS
            if number != usual if number is not None else certain:
                raise InputError(
                    f"{setting.place} {show(setting.value)} is not supported; only {usual!r} is. If that is not "
                    "said of this model, save model.state_dict() alone"
                )
    for name, value in shapes.items():
        for setting in of(name):
            says = f"{setting.says}, but the weights have {value}"
            if setting.file == CONFIG and setting.value != value:
                raise InputError(says)
            report.notes += [f"not used: {says}"] if integer(setting.value) not in (None, value) else []
    report.notes += [f"not used: {setting.says} (packages take logits)" for setting in of("activation")]
    if stride is None or rates is None:
        hint = "if that is output stride or atrous rates, give --output-stride, --atrous-rates"
        report.notes += [f"not used: {setting.says}; {hint}" for setting in of("unclear")]
    return config


def _is_of_model(setting: Setting, settings: Collection[Setting]) -> bool:
    """Whether a name that much could have stands among the arguments of a model, which may be parted by what they are
    of."""
    group = setting.path[:-1]
    own = [other.path for other in settings if other.name in OWN and other.file == setting.file]
    parts = (), ("encoder",), ("decoder",), ("backbone",)
    beside = any(path[: len(group)] == group and path[len(group) : -1] in parts for path in own)
    return (setting.file == CONFIG and not group) or beside


def _stride(value: Any) -> int | None:
    stride = integer(value)
    return stride if stride in (8, 16) else None


def _rates(value: Any) -> tuple[int, ...] | None:
    rates = integers(value)
    return rates if rates and len(rates) == smp.BRANCHES and min(rates) > 0 else None
