"""What a file says of images beside mean and std, or instead of them: levels, order of channels, no normalization."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters import smp
from converters.convert import Options, convert
from converters.normalization import recorded_normalization
from converters.recorded import Report, settings_in
from deeplab_jax.errors import InputError
from deeplab_jax.models import presets
from helpers.fixtures import blank_model

MEAN, STD = (0.41, 0.52, 0.33), (0.21, 0.31, 0.19)
LEVELS = {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}
IMAGE = np.array([200.0, 30.0, 90.0])  # levels of 8 bits


def read(content, mean=None, std=None):
    report = Report()
    return recorded_normalization(settings_in(content), report, mean, std), report


@pytest.mark.parametrize(
    ("stated", "white"),
    [
        ({"mean": MEAN, "std": STD, "max_pixel_value": 255.0}, 255),
        ({"mean": MEAN, "std": STD, "max_pixel_value": 1.0}, 1),
        ({"mean": MEAN, "std": STD, "max_pixel_value": 65535}, 65535),
        ({"mean": MEAN, "std": STD, "max_pixel_value": 4095}, 4095),
        ({"mean": MEAN, "std": STD, "max_pixel_value": 256}, 255),
        ({"mean": [1, 1, 1], "std": [1, 1, 1], "max_pixel_value": 127.5}, 255),
        ({"mean": [0.004, 0.004, 0.005], "std": [0.01, 0.02, 0.01], "max_pixel_value": 255}, 255),
        ({"mean": [0, 0, 0], "std": [1, 1, 1], "max_pixel_value": 255}, 255),
        ({"mean": [0, 0, 0], "std": [255, 255, 255], "max_pixel_value": 1.0}, 255),
        (LEVELS | {"max_pixel_value": 1.0}, 255),
        (LEVELS | {"max_pixel_value": "1"}, 255),
    ],
)
def test_albumentations_formula_gives_the_same_input(stated, white):
    """`(image - mean * max_pixel_value) / (std * max_pixel_value)`, of images whose white is `white`."""
    actual, report = read({"args": stated})
    mean, std, most = np.array(stated["mean"]), np.array(stated["std"]), float(stated["max_pixel_value"])
    image = IMAGE / 255
    np.testing.assert_allclose(
        (image - actual.mean) / np.array(actual.std), (image * white - mean * most) / (std * most), rtol=1e-6
    )
    assert (report.notes, len(report.taken)) == ([], 1)


@pytest.mark.parametrize(
    ("stated", "divisor"),
    [
        ({"rescale_factor": 1 / 255}, 255),
        ({"rescale_factor": 1 / 127.5, "do_rescale": True}, 127.5),
        ({"rescale_factor": 1 / 255, "do_normalize": "True"}, 255),
        ({}, 255),
    ],
)
def test_transformers_formula_gives_the_same_input(stated, divisor):
    actual, _ = read({"preprocessor": stated | {"image_mean": MEAN, "image_std": STD}})
    expected = (IMAGE / divisor - MEAN) / np.array(STD)
    np.testing.assert_allclose((IMAGE / 255 - actual.mean) / np.array(actual.std), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "stated",
    [
        LEVELS | {"max_pixel_value": 255.0},  # a mean of 31544 levels
        LEVELS | {"max_pixel_value": 65535},
        LEVELS | {"input_range": [0, 1]},
        {"mean": MEAN, "std": STD, "input_range": [0, 255]},  # a mean below one level
        {"mean": MEAN, "std": STD, "input_range": [-1, 1]},
        {"mean": MEAN, "std": STD, "max_pixel_value": 10000},
        {"mean": MEAN, "std": STD, "max_pixel_value": 2},
        {"mean": MEAN, "std": STD, "max_pixel_value": "auto"},
        {"mean": [0, 0, 0], "std": [1, 1, 1], "max_pixel_value": 1},  # of images of 0 to 1, or of 0 to 255
        {"do_normalize": False, "do_rescale": False},  # likewise
        {"mean": MEAN, "std": STD, "to_rgb": False, "input_space": "RGB"},
        {"mean": MEAN, "std": STD, "color_space": "lab"},
        {"mean": MEAN, "std": STD, "to_rgb": "${rgb}"},
        {"mean": MEAN, "std": STD, "normalize": False},
        {"mean": MEAN, "std": STD, "normalization": "min_max_per_channel"},
    ],
)
def test_what_cannot_be_told_is_not_used_but_said_with_all_that_says_it(stated):
    actual, report = read({"args": stated})
    assert actual is None
    assert report.taken == []
    (note,) = report.notes
    assert note.startswith("not used: args.")
    assert all(f"args.{name} is " in note for name in stated)
    assert note.endswith("; give --mean and --std")
    assert not read({"args": stated}, MEAN, STD)[1].notes[0].endswith("give --mean and --std")


@pytest.mark.parametrize(
    "content",
    [
        {"args": {"mean": 0.5, "std": 0.25}},
        {"args": {"mean": (0.5,), "std": "0.25"}},
        {"args": {"mean": 127.5, "std": [63.75]}},
        {"args": {"mean": [0.5, 0.5, 0.5], "std": 0.25}},
        {"state_dict": {"mean": np.array(0.5, np.float32), "std": np.full((1, 1, 1, 1), 0.25, np.float32)}},
        {"mean": 0.5, "std": 0.25},
    ],
)
def test_one_number_is_of_all_channels(content):
    actual, report = read(content)
    assert (actual.mean, actual.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert report.notes == []


@pytest.mark.parametrize("place", ["init_cfg", "dice", "backbone", "quantizer"])
def test_one_number_of_something_else_is_not_used_and_said(place):
    actual, report = read({"hyper_parameters": {place: {"mean": 0.0, "std": 0.02}}})
    assert actual is None
    assert [place in note and note.startswith("not used") for note in report.notes] == [True]


@pytest.mark.parametrize(
    ("stated", "blue_first"),
    [
        ({"to_rgb": False}, True),
        ({"to_rgb": "False"}, True),
        ({"to_rgb": np.array(False)}, True),
        ({"bgr_to_rgb": False}, True),
        ({"bgr_to_rgb": False, "rgb_to_bgr": False}, True),
        ({"rgb_to_bgr": True}, True),
        ({"channel_order": "BGR"}, True),
        ({"to_rgb": False, "input_space": "bgr"}, True),
        ({"to_rgb": True}, False),
        ({"bgr_to_rgb": True, "rgb_to_bgr": False}, False),
        ({"rgb_to_bgr": False}, False),
        ({"input_space": "RGB"}, False),
        ({}, False),
    ],
)
def test_mean_is_of_channels_after_mmcvs_conversion(stated, blue_first):
    """Which reads them blue, green and red."""
    actual, report = read({"img_norm_cfg": {"mean": LEVELS["mean"], "std": LEVELS["std"], **stated}})
    np.testing.assert_allclose(actual.mean, np.array(LEVELS["mean"]) / 255)
    assert actual.bgr is blue_first
    assert ("blue, green and red, from img_norm_cfg.mean" in report.taken[0]) == blue_first
    assert report.notes == []


def test_what_stands_beside_is_used_wherever_mean_and_std_are():
    actual, _ = read({"data": {"cityscapes": LEVELS | {"to_rgb": False}}})
    assert actual.bgr


@pytest.mark.parametrize("keys", [("normalize", "normalization"), ("normalization", "normalize")])
def test_of_two_names_the_one_that_says_something_counts(keys):
    stated = {"normalize": True, "normalization": "min_max"}
    actual, report = read({"args": {"mean": MEAN, "std": STD} | {key: stated[key] for key in keys}})
    assert actual is None
    assert "args.normalization is 'min_max'" in report.notes[0]
    _, report = read({"args": {key: stated[key] for key in keys}})
    assert len(report.notes) == 1


def test_options_in_red_green_blue_leave_the_recorded_order():
    content = {"cfg": {"mean": LEVELS["mean"], "std": LEVELS["std"], "to_rgb": False}}
    actual, report = read(content, MEAN, STD)
    assert actual.bgr
    assert report.taken == ["blue, green and red, from cfg.mean and cfg.std"]
    assert len(report.notes) == 1
    other, _ = read(content | {"args": {"mean": MEAN, "std": STD}}, MEAN, STD)
    assert other is None


def test_what_is_stated_around_mean_and_std_is_of_them():
    for content in (
        {"config": {"to_rgb": False, "normalize": {"mean": MEAN, "std": STD}}},
        {"args": {"input_space": "BGR", "data": {"norm": {"mean": MEAN, "std": STD}}}},
    ):
        actual, report = read(content)
        assert actual.bgr
        assert report.notes == []
    actual, _ = read({"args": {"max_pixel_value": 1.0, "norm": {"mean": LEVELS["mean"], "std": LEVELS["std"]}}})
    np.testing.assert_allclose(actual.mean, np.array(LEVELS["mean"]) / 255)
    with pytest.raises(InputError, match=r"0.21, 0.31, 0.19 of blue, green and red but args.mean"):
        read({"cfg": {"mean": MEAN, "std": STD, "to_rgb": False}, "args": {"mean": MEAN, "std": STD}})


def test_mean_and_std_of_two_scales_are_not_used():
    actual, report = read({"args": {"mean": LEVELS["mean"], "std": STD}})
    assert actual is None
    assert report.notes[0].startswith("not used: args.mean")
    actual, _ = read({"args": {"mean": LEVELS["mean"], "std": [1.0, 1.0, 1.0]}})  # Caffe's
    np.testing.assert_allclose(actual.std, 1 / 255)


def test_images_that_were_only_divided():
    transforms = {"do_normalize": False, "do_rescale": True, "image_mean": MEAN, "image_std": STD}
    actual, report = read({"args": {"preprocessor": transforms}})
    assert (actual.mean, actual.std) == ((0, 0, 0), (1, 1, 1))
    assert report.taken == ["mean 0, 0, 0 and std 1, 1, 1 from args.preprocessor.do_normalize"]
    (note,) = report.notes
    assert (
        "args.preprocessor.image_mean, args.preprocessor.image_std, as args.preprocessor.do_normalize is False" in note
    )
    actual, _ = read({"image_processor": {"do_normalize": "false", "rescale_factor": 1 / 127.5}})
    np.testing.assert_allclose(actual.std, (0.5, 0.5, 0.5))
    with pytest.raises(InputError, match=r"preprocessor.do_normalize say 0, 0, 0 and 1, 1, 1 but args.mean"):
        read({"preprocessor": {"do_normalize": False}, "args": {"mean": MEAN, "std": STD}})


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"normalize": False}, "only divided by 255; if so, give --mean 0 0 0 --std 1 1 1"),
        ({"normalization": "none"}, "only divided by 255"),
        ({"Normalis" + "ation": "raw"}, "only divided by 255"),
        ({"normalize_images": 0}, "only divided by 255"),
        ({"normalization": "min_max"}, "depends on each image, as no package can; give --mean and --std"),
        ({"normalization": "min-max-per-channel"}, "depends on each image"),
        ({"normalization": "image"}, "depends on each image"),
        ({"normalize": "imagenet"}, "beside no mean and std; give --mean and --std"),
        ({"to_rgb": False}, "beside no mean and std"),
        ({"input_range": [0, 255]}, "beside no mean and std"),
        ({"max_pixel_value": 1.0}, "beside no mean and std"),
    ],
)
def test_what_stands_alone_is_said_with_what_to_give(stated, words):
    (key, value), *_ = stated.items()
    actual, report = read({"hyper_parameters": {"transforms": [{"p": 1.0}, stated]}})
    assert actual is None
    (note,) = report.notes
    assert note.startswith(f"not used: hyper_parameters.transforms.1.{key} is {value!r}, ")
    assert words in note
    assert read({"args": stated}, MEAN, STD)[1].notes == [f"not used: args.{key} is {value!r}"]


@pytest.mark.parametrize(
    "content",
    [
        {"args": {"normalize": True, "normalization": "batch", "do_normalize": 1, "do_rescale": True}},
        {"args": {"input_space": "RGB", "input_range": [0, 1], "max_pixel_value": 255, "rescale_factor": 1 / 255}},
        {"args": {"normalization": "SyncBN", "to_rgb": True, "bgr_to_rgb": True, "rgb_to_bgr": False}},
        {"loss": {"normalize": False}, "metrics": {"iou": {"normalize": False}}},
        {"hyper_parameters": {"loss": {"normalize": False}, "confusion_matrix": {"normalize": False}}},
        {"hyper_parameters": {"decode_head": {"normalize": False}, "encoder": {"do_normalize": False}}},
    ],
)
def test_what_is_usual_or_of_something_else_is_not_said(content):
    actual, report = read(content)
    assert actual is None
    assert (report.taken, report.notes) == ([], [])


def test_a_model_of_other_channels_is_refused_for_those_whatever_is_recorded(tmp_path):
    model = blank_model(presets.smp_deeplabv3plus("resnet18", 2, in_channels=1, decoder_channels=8))
    arrays = smp.to_state_dict(model) | {"mean": np.full(3, 0.5, np.float32), "std": np.full(3, 0.5, np.float32)}
    stated = {"args": '{"in_channels": 1, "mean": [0.41, 0.52, 0.33], "std": [0.21, 0.31, 0.19]}'}
    save_file(arrays, tmp_path / "w.safetensors", stated)
    with pytest.raises(InputError, match=r"w.safetensors is a model of 1 channels, but a package takes RGB"):
        convert("smp", tmp_path / "w.safetensors", Options())


def test_buffers_of_one_number_and_channels_that_the_weights_have_not(tmp_path):
    model = blank_model(presets.smp_deeplabv3plus("resnet18", 2, decoder_channels=8))
    buffers = {"preprocess.image_mean": np.array([0.5], np.float32), "preprocess.image_std": np.array(0.25, np.float32)}
    stated = {"args": '{"encoder_name": "resnet18", "input_channels": 1}'}
    save_file(smp.to_state_dict(model) | buffers, tmp_path / "w.safetensors", stated)
    converted = convert("smp", tmp_path / "w.safetensors", Options())
    assert (converted.preprocess.mean, converted.preprocess.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert converted.beside == []
    assert converted.report.notes == ["not used: metadata: args.input_channels is 1, but the weights have 3"]
