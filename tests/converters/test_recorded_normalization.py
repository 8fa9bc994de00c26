"""What a file says of how its images are normalized, in whatever form, and what is none of that."""

import numpy as np
import pytest

from converters.normalization import recorded_normalization
from converters.recorded import Report, settings_in
from deeplab_jax.errors import InputError

MEAN, STD = (0.55, 0.3, 0.45), (0.15, 0.35, 0.2)


def normalization(content, mean=None, std=None):
    report = Report()
    return recorded_normalization(settings_in(content), report, mean, std), report


BUFFER = np.array([0.485, 0.456, 0.406], np.float32)
NORMALIZED = {
    "buffers": {"state_dict": {"pixel_mean": BUFFER.reshape(3, 1, 1), "pixel_std": BUFFER.reshape(3, 1, 1) / 2}},
    "buffers of a layer": {"0._mean": BUFFER, "0._std": BUFFER / 2, "1.weight": np.zeros((3, 3))},
    "0 to 255": {"args": {"mean": [123.675, 116.28, 103.53], "std": [61.8375, 58.14, 51.765]}},
    "text": {"args": {"mean": "0.485, 0.456, 0.406", "std": "(0.2425,0.228,0.203)"}},
    "of smp": {
        "preprocessing": {
            "input_space": "RGB",
            "input_range": [0, 1],
            "mean": [0.485, 0.456, 0.406],
            "std": [0.2425, 0.228, 0.203],
        }
    },
    "nested": {"cfg": {"mean": [[[0.485]], [[0.456]], [[0.406]]], "std": [[[0.2425]], [[0.228]], [[0.203]]]}},
    "of 0 to 1": {
        "normalize": {
            "mean": [0.485 * 255, 0.456 * 255, 0.406 * 255],
            "std": [0.2425 * 255, 0.228 * 255, 0.203 * 255],
            "max_pixel_value": 1.0,
        }
    },
    "in several places": {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.2425, 0.228, 0.203],
        "args": {"norm_mean": (123.675, 116.28, 103.53), "norm_std": (61.8375, 58.14, 51.765)},
    },
}


@pytest.mark.parametrize("how", NORMALIZED)
def test_forms_of_normalization(how):
    actual, report = normalization(NORMALIZED[how])
    np.testing.assert_allclose(actual.mean, (0.485, 0.456, 0.406), rtol=1e-6)
    np.testing.assert_allclose(actual.std, (0.2425, 0.228, 0.203), rtol=1e-6)
    assert not actual.bgr
    assert len(report.taken) == 1
    assert ("divided by 255" in report.taken[0]) == (how in ("0 to 255", "of 0 to 1"))
    assert report.notes == []


def test_a_buffer_is_the_number_that_was_written():
    actual, _ = normalization({"mean": BUFFER, "std": BUFFER})
    assert actual.mean == (0.485, 0.456, 0.406)


def test_caffes_normalization_and_that_of_plain_levels():
    actual, _ = normalization({"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "input_space": "BGR"})
    assert actual.bgr
    np.testing.assert_allclose(actual.mean, np.array([103.53, 116.28, 123.675]) / 255)
    np.testing.assert_allclose(actual.std, np.full(3, 1 / 255))
    actual, _ = normalization({"mean": (0, 0, 0), "std": (255, 255, 255)})
    assert (actual.mean, actual.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    "content",
    [
        {"mean": [0.5, 0.4, 0.3]},
        {"mean": 0.5},
        {"mean": [0.5, 0.4], "std": [0.2, 0.2]},
        {"mean": [0.5, 0.4, 0.3], "pixel_std": [0.2, 0.2, 0.2]},
        {"mean": [0.5] * 4, "std": [0.2] * 4},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.0, 0.2]},
        {"mean": [0.5, 0.4, -0.3], "std": [0.2, 0.2, 0.2]},
        {"mean": [500.0, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, float("nan"), 0.2]},
        {"mean": [True, 0.4, 0.3], "std": [0.2, 0.2, 0.2]},
        {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "normalization": "image"},
    ],
)
def test_what_cannot_be_a_normalization_is_not_used_and_said(content):
    actual, report = normalization({"args": content})
    assert actual is None
    assert report.taken == []
    assert all(note.startswith("not used: args.mean is ") or "std is" in note for note in report.notes)
    assert report.notes


@pytest.mark.parametrize("path", ["dice", "f1.val", "val", "cross_validation", "per_class", "precision"])
def test_mean_and_std_of_something_else_are_not_used_and_said(path):
    content = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.1, 0.1]}
    for key in reversed(path.split(".")):
        content = {key: content}
    actual, report = normalization(content)
    assert actual is None
    assert report.taken == []
    assert report.notes == [
        f"not used: {path}.mean is 0.5, 0.4, 0.3 and {path}.std is 0.1, 0.1, 0.1, which nothing there calls a pair of "
        "mean and std for three channels of images"
    ]


def test_two_normalizations_are_refused_unless_options_settle_it():
    content = {"state_dict": {"mean": BUFFER, "std": BUFFER}, "args": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    with pytest.raises(
        InputError, match=r"state_dict.mean and state_dict.std say .* but args.mean and .* give --mean and --std"
    ):
        normalization(content)
    actual, report = normalization(content, MEAN, STD)
    assert actual is None
    assert len(report.notes) == 2
    alone, report = normalization({"args": content["args"]}, mean=MEAN)
    assert alone.std == (0.5, 0.5, 0.5)
    assert report.taken == ["std 0.5, 0.5, 0.5 from args.std"]
    assert report.notes == ["--mean overrides args.mean, 0.5, 0.5, 0.5"]
