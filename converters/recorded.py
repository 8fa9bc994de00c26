"""What a file says of the model in it: arguments that scripts save beside weights, wherever in the file they are.

A setting keeps the place where it was found, such as `hyper_parameters.encoder_name`, so that messages can name it.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.readers.torch_objects import plain
from deeplab_jax.errors import InputError

NAMES = {  # an argument, under the name that segmentation_models_pytorch or timm has for it -> what else it is called
    "encoder_name": ("encoder", "backbone", "backbone_name"),
    "encoder_output_stride": ("output_stride", "out_stride", "outstride", "backbone_output_stride"),
    "decoder_atrous_rates": (
        *("atrous_rates", "aspp_rates", "aspp_atrous_rates", "dilation_rates", "decoder_rates"),
        *("aspp_dilations", "aspp_dilation", "aspp_dilate", "decoder_dilations"),
    ),
    "architecture": ("arch", "model", "model_name"),
    "in_channels": ("input_channels", "in_chans"),
    "normalization": ("normalize", "normalize_image", "normalize_images", "normalize_input", "normalize_inputs"),
    "input_space": ("channel_order", "color_order", "color_space"),
    "unclear": ("stride", "os", "rates", "dilation", "dilations", "atrous"),  # which may be of much else
}
EXACT = (
    *("encoder_depth", "upsampling", "activation", "classes", "decoder_channels", "act_layer"),
    *("norm_layer", "aa_layer", "decoder_aspp_dropout", "decoder_aspp_separable"),
)
# Beside mean and std of images, or instead of them; of losses and metrics, too, but for where those are kept.
OF_IMAGES = (
    *("normalization", "input_space", "input_range", "max_pixel_value", "to_rgb", "bgr_to_rgb", "rgb_to_bgr"),
    *("do_normalize", "do_rescale", "rescale_factor"),
)
ARGUMENTS = {name: name for name in (*NAMES, *EXACT, *OF_IMAGES)}
ARGUMENTS |= {other: name for name, others in NAMES.items() for other in others}
# Mean and deviation of images: `pixel_mean`, `normalize.std`, `_mean`. Of metrics too, but for where those are kept.
STATISTIC = re.compile(
    r"_*(?:(?:pixel|image|img|input|channel|rgb|data|dataset|norm|normali[sz]\w*|imagenet|preprocess\w*)_)?"
    r"(mean|std)s?_*"
)
ELSEWHERE = re.compile(r".*(metric|result|score|histor|loss|iou|accura|optim|sched|callback|target|label|grad|noise).*")
MAX_DEPTH = 12  # of dictionaries in one another
MAX_KEY = 100  # characters
MAX_LIST = 64  # dictionaries in a list; more of them are a record of something
MAX_SETTINGS = 1000
MAX_TEXT = 100_000  # characters of JSON in a text
MAX_ELEMENTS = 16  # of a tensor that is a setting


@dataclass(frozen=True)
class Setting:
    name: str  # a key of NAMES, one of EXACT, mean or std
    value: Any
    path: tuple[str, ...]  # the keys that lead to it
    file: str = ""  # where it is not in the weights file itself

    @property
    def place(self) -> str:
        where = ".".join(map(plain, self.path))
        return f"{self.file}: {where}" if self.file else where

    @property
    def says(self) -> str:
        return f"{self.place} is {show(self.value)}"


def show(value: Any) -> str:
    """A value out of a file, in a short line."""
    numbers = triple(value)
    if numbers:
        return ", ".join(f"{number:.6g}" for number in numbers)
    return plain(repr(value.tolist() if isinstance(value, np.ndarray) else value))


def settings_in(content: Any, file: str = "") -> tuple[Setting, ...]:
    """Every setting with a known name in nested dictionaries of plain data.

    Raises:
        InputError: where there are more than any script saves.
    """
    result = []
    for path, value in _leaves(content, ()):
        if name := _name(path):
            result.append(Setting(name, value, path, file))
            if not len(result) <= MAX_SETTINGS:
                raise InputError(f"records over {MAX_SETTINGS} settings; save model.state_dict() alone")
    return tuple(result)


def _leaves(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Values by the keys that lead to them. Lists of numbers are values, those of dictionaries are not."""
    if isinstance(content, str) and content.startswith("{") and len(content) <= MAX_TEXT:
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            return
    if isinstance(content, list | tuple) and any(isinstance(item, Mapping) for item in content):
        content = {str(number): item for number, item in enumerate(content)} if len(content) <= MAX_LIST else {}
    if isinstance(content, Mapping):
        for key, value in content.items() if len(path) < MAX_DEPTH else ():
            if isinstance(key, str) and len(key) <= MAX_KEY:
                yield from _leaves(value, (*path, *key.split(".")))
    elif path and (isinstance(content, str | int | float | list | tuple) or _is_small(content)):
        yield path, content


def _is_small(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size <= MAX_ELEMENTS


def _name(path: tuple[str, ...]) -> str | None:
    """The setting that a value is by the last key, or the last two: `encoder.output_stride` is an encoder's."""
    *outer, key = (_in_snake_case(part) for part in path)
    outer = [part for part in outer if not part.isdigit()]
    joined = f"{outer[-1]}_{key}" if outer else key
    match = STATISTIC.fullmatch(key)
    name = match[1] if match else ARGUMENTS.get(joined) or ARGUMENTS.get(key)
    kept_elsewhere = (match or name in OF_IMAGES) and any(ELSEWHERE.fullmatch(part) for part in (*outer, key))
    return None if kept_elsewhere else name


def _in_snake_case(key: str) -> str:
    """`output_stride`, however it is spelled: `outputStride`, `output-stride`, `OUTPUT_STRIDE`; Britain's z is s."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[- ]", "_", key).lower().replace("normalis", "normaliz")


def number(value: Any) -> float | None:
    """One number, or the text of one."""
    numbers = _numbers(value)
    return numbers[0] if len(numbers) == 1 else None


def integer(value: Any) -> int | None:
    """Of a whole number, as a number or as text."""
    one = number(value)
    return int(one) if one is not None and one.is_integer() else None


def integers(value: Any) -> tuple[int, ...] | None:
    numbers = _numbers(value)
    whole = not isinstance(value, int | float) and numbers and all(number.is_integer() for number in numbers)
    return tuple(map(int, numbers)) if whole else None


def triple(value: Any) -> tuple[float, float, float] | None:
    """Three numbers, in whatever shape."""
    numbers = _numbers(value)
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def channels(value: Any) -> tuple[float, float, float] | None:
    """Three numbers, or one for all three, as torchvision's Normalize takes it."""
    one = number(value)
    return triple(value) if one is None else (one, one, one)


def word(value: Any) -> str:
    """What a setting says in a word, whatever the type: `True`, `"RGB"`, `"min-max"`, an array of one."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return re.sub("[- ]", "_", str(value)[:MAX_KEY].strip().lower())


def _numbers(value: Any) -> list[float]:
    """The finite numbers in a value that holds nothing else: `(3, 6)`, `[[[0.5]]]`, an array, `"3, 6"`."""
    if isinstance(value, str):
        inner = re.fullmatch(r"\s*[\[(]?([^\[\]()]{1,200}?),?\s*[\])]?\s*", value)
        value = re.split(r"[\s,]+", inner[1].strip()) if inner else ()
    elif isinstance(value, np.ndarray):
        value = tuple(value.ravel()) if value.size <= MAX_ELEMENTS else ()
    elif not isinstance(value, list | tuple):
        value = (value,)
    numbers = []
    for item in value[: MAX_ELEMENTS + 1]:
        try:
            # The shortest number that is the same float32: what somebody wrote.
            written = str(item) if getattr(item, "dtype", None) == np.float32 else item
            inner = _numbers(item) if isinstance(item, list | tuple) else [float(written)]
        except (TypeError, ValueError, OverflowError):
            return []
        if not inner or isinstance(item, bool):
            return []
        numbers += inner
    return numbers if len(numbers) <= MAX_ELEMENTS and np.isfinite(numbers).all() else []


@dataclass
class Report:
    """What was decided, to be said."""

    taken: list[str] = field(default_factory=list)  # from the file
    assumed: list[str] = field(default_factory=list)  # what no file records and nobody gave
    notes: list[str] = field(default_factory=list)  # of settings that were not used


def decide(
    settings: Collection[Setting], given: Any, read: Callable[[Any], Any], what: str, report: Report, kind: str
) -> Any:
    """What is given, or else what is recorded; None where neither is.

    Args:
        settings: all that were recorded of it.
        given: by an option, which wins.
        read: a setting's value to what it means, or None where it means nothing.
        what: it is, such as `output stride`; the option is named so.
        report: gets a line on where it is from.
        kind: of values that `read` knows, for the error.

    Raises:
        InputError: where two settings contradict each other, or one cannot be read.
    """
    option = f"--{what.replace(' ', '-')}"
    if given is not None:
        report.notes += [f"{option} overrides {s.place}, {show(s.value)}" for s in settings if read(s.value) != given]
        return given
    values = [(read(setting.value), setting) for setting in settings]
    for value, setting in values:
        if value is None:
            raise InputError(f"{setting.says}, but must be {kind}; give {option}")
        if value != values[0][0]:
            raise InputError(f"{values[0][1].says}, but {setting.says}; give {option} to say which is right")
    if not values:
        report.assumed.append(f"{what} ({option})")
        return None
    value, setting = values[0]
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    report.taken.append(f"{what} {shown} from {setting.place}")
    return value
