"""What settings beside mean and std say of images: which levels they have, in which order their channels are."""

import re
from collections.abc import Mapping

from converters.recorded import Setting, integers, number, word

Triple = tuple[float, float, float]
YES, NO = r"true|yes|on|1|1\.0", r"false|no|off|none|0|0\.0"
UNTOUCHED = re.compile(rf"{NO}|identity|raw")  # a normalization that is none
PER_IMAGE = re.compile(r"(per_)?(image|sample)(_\w+)?|(min_?max|z_?score)(_\w+)?")
OF_LAYERS = r".*(batch|instance|group|layer|spectral|weight|bn|gn).*|[li]n|l[12]"  # what else is a normalization
USUAL = {  # what says nothing that is not so anyway
    "normalization": rf"{YES}|standard|{OF_LAYERS}",
    "input_space": "s?rgb",
    "to_rgb": YES,
    "bgr_to_rgb": YES,
    "rgb_to_bgr": NO,
    "input_range": r"[\[(]?_*0(\.0*)?[,_]+1(\.0*)?_*[\])]?",
    "max_pixel_value": r"255(\.0*)?",
    "do_normalize": YES,
    "do_rescale": YES,
    "rescale_factor": r"0?\.0039215\d*",
}
FULL = tuple(2**bits - 1 for bits in (1, 8, 10, 12, 14, 16))  # levels of white: 1 in images of 0 to 1


def says_nothing(setting: Setting) -> bool:
    return re.fullmatch(USUAL[setting.name], word(setting.value)) is not None


def is_no(setting: Setting) -> bool:
    return re.fullmatch(NO, word(setting.value)) is not None


def blue_first(beside: Mapping[str, Setting]) -> bool | None:
    """Whether channels are blue, green and red where mean and std meet them; None where that cannot be told.

    OpenCV, and so mmcv, reads them in that order, and mean and std are of what comes after the conversion.
    """
    orders = set()
    for name, blue in (("input_space", "bgr"), ("to_rgb", NO), ("bgr_to_rgb", NO), ("rgb_to_bgr", YES)):
        if (setting := beside.get(name)) and not (name == "rgb_to_bgr" and is_no(setting)):
            known = says_nothing(setting) or re.fullmatch(blue, word(setting.value))
            orders.add(not says_nothing(setting) if known else None)
    return orders.pop() if len(orders) == 1 else None if orders else False


def scale(mean: Triple, std: Triple, beside: Mapping[str, Setting]) -> float | None:
    """What brings them to images of 0 to 1; None where that cannot be told.

    Where nothing is said of levels, numbers above 1 are of 0 to 255.
    """
    if "input_range" in beside:
        low, *high = integers(beside["input_range"].value) or (None,)
        return 1 / high[0] if low == 0 and len(high) == 1 and high[0] > 0 else None
    divisors = [number(beside["max_pixel_value"].value)] if "max_pixel_value" in beside else []
    if "do_rescale" in beside and is_no(beside["do_rescale"]):
        divisors.append(1.0)
    elif "rescale_factor" in beside:
        factor = number(beside["rescale_factor"].value)
        divisors.append(1 / factor if factor else None)
    if divisors:
        return _divided(mean, std, divisors[0]) if divisors[0] else None
    if max(mean) > 1 > max(std):
        return None  # of two scales
    return 1 / 255 if max(mean) > 1 or (max(std) > 1 and not any(mean)) else 1.0


def _divided(mean: Triple, std: Triple, divisor: float) -> float | None:
    """Where images became `(image / divisor - mean) / std`: Albumentations' `max_pixel_value`, transformers' rescaling.

    Numbers up to 1 are fractions of white, if the divisor can be white. Other ones are levels of 8 bits.
    """
    white = next((full for full in FULL if abs(divisor - full) < 1e-3), None)
    if white and max(*mean, *std) <= 1:
        raw = white == 1 and not any(mean) and min(std) == 1  # of images of 0 to 1, or of 0 to 255: nothing tells
        return None if raw else 1.0
    return divisor / 255 if white == 1 or 127 <= divisor <= 256 else None
