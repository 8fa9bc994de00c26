"""How images were normalized, where a file records it: buffers of a model, arguments, settings of a transform."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from converters.image_settings import PER_IMAGE, UNTOUCHED, blue_first, is_no, says_nothing, scale
from converters.recorded import OF_IMAGES, Report, Setting, channels, show, triple, word
from deeplab_jax.errors import InputError

Triple = tuple[float, float, float]
# What the keys around mean and deviation of images are called; around those of something else they seldom are.
PLACE = re.compile(
    r"norm|pixel|ima?ge?|rgb|bgr|trans|tfm|prep|^pre$|process|extractor|aug|input|channel|data|stand|scal|state|model|"
    r"net|modul|encoder|backbone|arg|conf(?!us)|cfg|option|opt$|param|hp|hyper|setting|meta|^stat(istic)?s$"
)
OF_LAYERS = re.compile(r"encoder|decoder|backbone|init(?!_?(arg|kw))")  # where features are normalized or weights drawn
GIVE = "give --mean and --std"


@dataclass(frozen=True)
class Normalization:
    mean: Triple  # of images in 0..1
    std: Triple
    bgr: bool  # the channels are blue, green and red
    factor: float  # that brought what is recorded to images of 0 to 1
    settings: Mapping[str, Setting]  # "mean", "std" -> where it stands

    def agrees(self, other: "Normalization") -> bool:
        return self.bgr == other.bgr and _near(self.mean, other.mean) and _near(self.std, other.std)

    @property
    def place(self) -> str:
        return " and ".join(dict.fromkeys(setting.place for setting in self.settings.values()))

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
    """What the settings say together of mean, std and the order of channels; what they cannot mean is left out, and
    reported.

    Args:
        settings: all that were recorded.
        report: gets a line on what is used, and on what is not.
        mean: given by an option, which wins.
        std: likewise.

    Raises:
        InputError: where two pairs of settings contradict each other.
    """
    given = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    result = [read for group in _groups(settings) for read in _read_group(group, report, settled=len(given) == 2)]
    options = " and ".join(f"--{name}" for name in given)
    for each in result:
        if any(not _near(value, getattr(each, name)[:: each.order]) for name, value in given.items()):
            values = " and ".join(show(getattr(each, name)) for name in given)
            places = " and ".join(dict.fromkeys(each.settings[name].place for name in given))
            report.notes.append(f"{options} over{'ride' if len(given) == 2 else 'rides'} {places}, {values}")
    if not result or (len(given) == 2 and not all(each.bgr for each in result)):
        return None
    for other in result[1:] if len(given) < 2 else ():
        says = " but ".join(
            f"{each.place} say {show(each.mean)} and {show(each.std)}{' of blue, green and red' * each.bgr}"
            for each in (result[0], other)
        )
        if not result[0].agrees(other):
            raise InputError(f"{says}; {GIVE} to say which is right")
    used = replace(result[0], settings={name: at for name, at in result[0].settings.items() if name not in given})
    values = " and ".join(f"{name} {show(getattr(used, name))}" for name in used.settings)
    if used.bgr:
        values += f"{', ' if values else ''}blue, green and red,"
    report.taken.append(f"{values} from {used.place or result[0].place}{used.unit if used.settings else ''}")
    return used


def _groups(settings: Collection[Setting]) -> list[list[Setting]]:
    """The settings of images, by the dictionary that they stand in; those around mean and std are with them."""
    groups: dict[tuple, list[Setting]] = {}
    for setting in settings:
        if setting.name in ("mean", "std", *OF_IMAGES):
            groups.setdefault((setting.file, *setting.path[:-1]), []).append(setting)
    alone = [key for key, group in groups.items() if all(setting.name in OF_IMAGES for setting in group)]
    for key in alone:
        if below := [group for other, group in groups.items() if other[: len(key)] == key and other not in alone]:
            above = groups.pop(key)
            for group in below:
                group += above
    return list(groups.values())


def _read_group(group: list[Setting], report: Report, settled: bool) -> list[Normalization]:
    """What one dictionary says of normalization; a note on all else there, with advice unless that is settled."""
    others = sorted((setting for setting in group if setting.name in OF_IMAGES), key=lambda s: not says_nothing(s))
    beside = {setting.name: setting for setting in others}  # of two the one that says something
    pairs = _pairs(group)
    flag = beside.get("do_normalize")
    if flag and is_no(flag) and _is_of_images(flag, nearest=True):
        spared = ", ".join(setting.place for pair in pairs for setting in pair.values())
        report.notes += [f"not used: {spared}, as {flag.says}"] if spared else []
        pairs = [{"mean": flag, "std": flag}]
    result = []
    for pair in pairs:
        read = _read(pair, beside)
        one_for_all = len(pair) == 2 and not all(map(triple, (setting.value for setting in pair.values())))
        of_images = all(_is_of_images(setting, nearest=one_for_all) for setting in pair.values())
        if read and of_images:
            result.append(read)
            continue
        says = " and ".join(dict.fromkeys(setting.says for setting in (*pair.values(), *beside.values())))
        if read:
            why = "which nothing there calls a pair of mean and std for three channels of images"
        else:
            why = f"which does not say mean and std of three channels of 0 to 1{'' if settled else f'; {GIVE}'}"
        report.notes.append(f"not used: {says}, {why}")
    for setting in () if pairs else others:
        if not says_nothing(setting) and _is_of_images(setting, nearest=True):
            report.notes.append(f"not used: {setting.says}{'' if settled else f', {_hint(setting)}'}")
    return result


def _hint(setting: Setting) -> str:
    """What a setting that is beside no mean and std can mean."""
    stated = word(setting.value) if setting.name == "normalization" else ""
    if UNTOUCHED.fullmatch(stated):
        return "which may say that images are only divided by 255; if so, give --mean 0 0 0 --std 1 1 1"
    if PER_IMAGE.fullmatch(stated):
        return f"which depends on each image, as no package can; {GIVE} that come near"
    return f"beside no mean and std; {GIVE}"


def _pairs(settings: Collection[Setting]) -> list[dict[str, Setting]]:
    """The settings mean and std of a dictionary under names that differ in these words alone."""
    pairs: dict[str, dict[str, Setting]] = {}
    for setting in settings:
        if setting.name in ("mean", "std"):
            around = re.sub(r"(?i)mean|std", "*", setting.path[-1])
            pairs.setdefault(around, {})[setting.name] = setting
    return list(pairs.values())


def _is_of_images(setting: Setting, nearest: bool = False) -> bool:
    """Whether what leads to it speaks of images. For what much else could be, the nearest key has to."""
    outer = [part.lower() for part in setting.path[:-1] if not part.isdigit()]
    if nearest:
        return not outer or (PLACE.search(outer[-1]) is not None and not OF_LAYERS.search(outer[-1]))
    return not outer or any(PLACE.search(part) for part in (*outer, setting.path[-1].lower()))


def _near(one: Triple, other: Triple) -> bool:
    return np.allclose(one, other, rtol=1e-3, atol=1e-5)


def _read(pair: Mapping[str, Setting], beside: Mapping[str, Setting]) -> Normalization | None:
    """None unless they can be the mean and deviation of images."""
    if len(pair) < 2:
        return None
    if pair["mean"] is beside.get("do_normalize"):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    else:
        mean, std = channels(pair["mean"].value), channels(pair["std"].value)
    stated, bgr = word(beside["normalization"].value) if "normalization" in beside else "", blue_first(beside)
    if mean is None or std is None or bgr is None or UNTOUCHED.fullmatch(stated) or PER_IMAGE.fullmatch(stated):
        return None
    factor = scale(mean, std, beside)
    if factor is None:
        return None
    mean, std = ((first * factor, second * factor, third * factor) for first, second, third in (mean, std))
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        return None
    if (max(mean) or max(std)) < 0.99 / 255:  # less than one level: of another scale
        return None
    return Normalization(mean, std, bgr, factor, {name: pair[name] for name in ("mean", "std")})
