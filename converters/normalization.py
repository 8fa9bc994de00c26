"""How images were normalized, where a file records it: buffers of a model, arguments, settings of a transform."""

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from converters.recorded import Report, Setting, integer, show, triple
from deeplab_jax.errors import InputError

Triple = tuple[float, float, float]
# What the keys around mean and deviation of images are called; around those of something else they seldom are.
PLACE = re.compile(
    r"norm|pixel|ima?ge?|rgb|bgr|trans|tfm|prep|^pre$|aug|input|channel|data|stand|scal|state|model|net|modul|encoder|"
    r"backbone|arg|conf|cfg|option|opt$|param|hp|hyper|setting|meta|^stat(istic)?s$"
)


@dataclass(frozen=True)
class Normalization:
    mean: Triple  # of images in 0..1
    std: Triple
    bgr: bool  # the channels are blue, green and red
    factor: float  # that brought what is recorded to images of 0 to 1
    settings: tuple[Setting, Setting]  # where the two stand

    def agrees(self, other: "Normalization") -> bool:
        return self.bgr == other.bgr and _near(self.mean, other.mean) and _near(self.std, other.std)

    @property
    def place(self) -> str:
        return " and ".join(setting.place for setting in self.settings)

    @property
    def order(self) -> int:
        """The step through the channels that makes them red, green and blue."""
        return -1 if self.bgr else 1

    @property
    def unit(self) -> str:
        return "" if self.factor == 1 else f", divided by {1 / self.factor:.6g}"


def recorded_normalization(
    settings: Collection[Setting], report: Report, mean: Triple | None, std: Triple | None
) -> Normalization | None:
    """What the settings named mean and std say together; what they cannot mean is left out, and reported.

    Args:
        settings: all that were recorded.
        report: gets a line on what is used, and on what is not.
        mean: given by an option, which wins.
        std: likewise.

    Raises:
        InputError: where two pairs of settings contradict each other.
    """
    result: list[Normalization] = []
    for pair in _pairs(settings):
        read = _read(pair, settings) if len(pair) == 2 else None
        of_images = all(map(_is_of_images, pair.values()))
        if read is not None and of_images:
            result.append(read)
        else:
            kind = "which nothing there calls a" if read else "which is not a"
            says = f"{' and '.join(setting.says for setting in pair.values())}, {kind} pair of mean and std"
            report.notes.append(f"not used: {says} for three channels{' of images' if read else ''}")
    given = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    options = " and ".join(f"--{name}" for name in given)
    for each in result:
        if any(not _near(value, getattr(each, name)[:: each.order]) for name, value in given.items()):
            values = " and ".join(show(getattr(each, name)) for name in given)
            places = " and ".join(s.place for s in each.settings if s.name in given)
            report.notes.append(f"{options} over{'ride' if len(given) == 2 else 'rides'} {places}, {values}")
    if len(given) == 2 or not result:
        return None
    for other in result[1:]:
        says = " but ".join(f"{each.place} say {show(each.mean)} and {show(each.std)}" for each in (result[0], other))
        if not result[0].agrees(other):
            raise InputError(f"{says}; give --mean and --std to say which is right")
    used = [setting for setting in result[0].settings if setting.name not in given]
    values = " and ".join(f"{setting.name} {show(getattr(result[0], setting.name))}" for setting in used)
    order = ", blue, green and red," if result[0].bgr else ""
    report.taken.append(f"{values}{order} from {' and '.join(setting.place for setting in used)}{result[0].unit}")
    return result[0]


def _pairs(settings: Collection[Setting]) -> list[dict[str, Setting]]:
    """The settings mean and std that stand side by side under names that differ in these words alone."""
    pairs: dict[tuple, dict[str, Setting]] = {}
    for setting in settings:
        if setting.name in ("mean", "std"):
            *outer, key = setting.path
            around = re.sub(r"(?i)mean|std", "*", key)
            pairs.setdefault((setting.file, *outer, around), {})[setting.name] = setting
    return list(pairs.values())


def _is_of_images(setting: Setting) -> bool:
    outer = [part for part in setting.path[:-1] if not part.isdigit()]
    return not outer or any(PLACE.search(part.lower()) for part in (*outer, setting.path[-1]))


def _near(one: Triple, other: Triple) -> bool:
    return np.allclose(one, other, rtol=1e-3, atol=1e-5)


def _read(pair: dict[str, Setting], settings: Collection[Setting]) -> Normalization | None:
    """None unless they can be the mean and deviation of images."""
    mean, std = triple(pair["mean"].value), triple(pair["std"].value)
    beside = {s.name: s.value for s in settings if (s.file, s.path[:-1]) == (pair["mean"].file, pair["mean"].path[:-1])}
    if mean is None or std is None or beside.get("normalization", "standard") != "standard":
        return None
    factor = _factor(mean, std, beside)
    mean, std = ((first * factor, second * factor, third * factor) for first, second, third in (mean, std))
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        return None
    bgr = str(beside.get("input_space")).lower() == "bgr"
    return Normalization(mean, std, bgr, factor, (pair["mean"], pair["std"]))


def _factor(mean: Triple, std: Triple, beside: dict) -> float:
    """What brings them to images of 0 to 1. Where nothing says what they are of, numbers above 1 are of 0 to 255."""
    if most := integer(beside.get("max_pixel_value")):  # of Albumentations: what images are divided by
        return most / 255
    scale = beside.get("input_range")
    if isinstance(scale, list | tuple) and len(scale) == 2 and (most := integer(scale[1])):
        return 1 / most
    return 1 / 255 if max(mean) > 1 or (max(std) > 1 and not any(mean)) else 1.0
