"""ImageNet classifiers of timm and torchvision: their weights as a DeepLab's encoder, and back."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from converters import mapping, torch_encoders
from converters.recorded import Report, Setting, show
from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab, presets
from deeplab_jax.models.state import flat_state

CLASSIFIER_HEADS = ("fc.", "head.fc.", "classifier.")


def load_encoder(model: DeepLab, state_dict: Mapping[str, Any]) -> list[str]:
    """Puts a classifier's weights into the model's encoder; returns the names of its own last layer, left aside.

    Raises:
        InputError: with every missing, unexpected or misshapen tensor.
    """
    left = [name for name in state_dict if name.startswith(CLASSIFIER_HEADS)]
    weights = {name: value for name, value in state_dict.items() if name not in left}
    values = mapping.read(_tensors(model), weights, mapping.TORCH)
    flat = flat_state(model)
    for path, array in values.items():
        flat[path][...] = array
    return left


def encoder_state_dict(model: DeepLab) -> mapping.Weights:
    """The encoder's weights under the classifier's names. Raises InputError for an encoder that is not timm's."""
    plain = {"output_stride": 32, "in_channels": 3}
    encoder = replace(model.config.encoder, **plain)
    other = [replace(config, **plain) for config in presets.SMP_ENCODERS.values()]
    if encoder not in other:
        raise InputError("neither timm nor torchvision builds this encoder; see presets.SMP_ENCODERS for those they do")
    return mapping.save(model, torch_encoders.names(model.config.encoder, ""), mapping.TORCH, part="encoder")


def infer_encoder(state_dict: Mapping[str, Any]) -> str:
    """What segmentation_models_pytorch calls an encoder of these weights. Raises InputError for one not known."""
    name = torch_encoders.infer(state_dict, "")
    if name is None:
        raise InputError(
            "these are not weights of a ResNet, ResNeXt or Xception of timm or torchvision, nor of torchvision's "
            "MobileNetV2"
        )
    return name if name == "mobilenet_v2" else f"tu-{name}"


def choose_encoder(infer: Callable[[], str], settings: Collection[Setting], given: str | None, report: Report) -> str:
    """The encoder's name, which the weights must bear out where it is not given.

    Some networks, such as resnetaa50, have the tensors of another and compute something else.

    Args:
        infer: reads it off the weights.
        settings: that name one.
        given: by an option, which wins.
        report: gets a line on where it is from.

    Raises:
        InputError: where a setting says plainly that it is another one; where it may be said of something else, that is
            reported alone.
    """
    if given is not None:
        others = [setting for setting in settings if not _is_same(setting.value, given)]
        report.notes += [f"--encoder overrides {other.place}, {show(other.value)}" for other in others]
        return given
    inferred = infer()
    same = [setting for setting in settings if _is_same(setting.value, inferred)]
    for other in (setting for setting in settings if setting not in same):
        says = f"{other.says}, but the weights have the names and shapes of {inferred}"
        plainly = other.path[-1].lower() in ("encoder_name", "architecture", "arch") and not same
        if plainly:
            raise InputError(f"{says}; if that is what they are, give --encoder {inferred}")
        report.notes.append(f"not used: {says}")
    if same:
        report.taken.append(f"encoder from {same[0].place}")
    else:
        report.assumed.append("encoder (--encoder)")
    return inferred


def _is_same(stated: Any, name: str) -> bool:
    """Whether two names are of one network, however they are spelled: `ResNet-50`, `tu-tv_resnet50.a1_in1k`."""

    def letters(text: str) -> str:
        return "".join(c for c in plain_name(text.lower().removeprefix("tu-")) if c.isalnum())

    return isinstance(stated, str) and letters(stated) == letters(name)


def plain_name(name: str) -> str:
    """timm's name of an architecture without the tag of its weights: resnet50 for tv_resnet50 and resnet50.a1_in1k."""
    return name.split(".")[0].removeprefix("tv_")


def _tensors(model: DeepLab) -> list[mapping.Tensor]:
    return mapping.tensors(model, torch_encoders.names(model.config.encoder, ""), mapping.TORCH, part="encoder")
