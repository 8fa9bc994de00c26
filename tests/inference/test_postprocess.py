"""From logits to ids and confidences: the resize in bands, many classes, and logits that are no numbers."""

import time
import tracemalloc

import numpy as np
import pytest

from deeplab_jax.image.resize import Placement
from deeplab_jax.inference import row_bands
from deeplab_jax.inference.postprocess import Rule, postprocess
from deeplab_jax.inference.row_bands import BAND_BYTES, Resized, Window


def resized(planes, size, window=None):
    whole = window or Window(0, 0, *planes.shape[1:])
    bands = Resized(planes, whole, 0, size)
    return np.concatenate([bands.band(step).copy() for step in bands.steps], 1)


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) * 3


@pytest.mark.parametrize("size", [(50, 70), (13, 31), (120, 150), (1, 1), (1, 300), (300, 2), (49, 141), (51, 69)])
def test_resizing_equals_torch(size):
    """Antialiased along an axis that shrinks, and along that one alone."""
    torch = pytest.importorskip("torch")
    planes = noise(3, 50, 70)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(planes)[None], size, mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(resized(planes, size), expected[0], atol=1e-4)  # torch rounds places to float32


@pytest.mark.parametrize("size", [(120, 150), (33, 21)])
def test_bands_equal_the_whole(monkeypatch, size):
    planes = noise(5, 50, 70)
    in_bands = {rows: resized(planes, size) for rows in (1, 7) if not monkeypatch.setattr(row_bands, "MOST_ROWS", rows)}
    monkeypatch.setattr(row_bands, "MOST_ROWS", size[0])
    assert len(Resized(planes, Window(0, 0, 50, 70), 0, size).steps) == 1
    for actual in in_bands.values():
        np.testing.assert_allclose(actual, resized(planes, size), atol=1e-5)


def test_a_window_may_reach_beyond_the_logits():
    planes = noise(2, 20, 30)
    around = np.pad(planes, [(0, 0), (9, 5), (4, 8)])
    for window in (Window(-9, -4, 34, 42), Window(5, -4, 20, 12), Window(-9, 3, 6, 7), Window(3, 25, 2, 13)):
        top, left = window.top + 9, window.left + 4
        inside = around[:, top : top + window.height, left : left + window.width]
        np.testing.assert_array_equal(resized(planes, (40, 50), window), resized(inside, (40, 50)))


def test_what_a_center_crop_leaves_out_is_as_in_the_shared_api():
    """Its logits all have the background's number for a value: one class as likely as another."""
    logits = noise(3, 10, 12)
    around = np.pad(logits, [(0, 0), (4, 6), (0, 0)], constant_values=1)[:, :, 2:9]
    whole = Placement(0, 0, 20, 7)
    expected = postprocess(around, whole, (20, 7), (20, 7), Rule(3, 1, 0.45))
    actual = postprocess(logits, Placement(-4, 2, 20, 7), (10, 12), (20, 7), Rule(3, 1, 0.45))
    np.testing.assert_array_equal(actual.segmentation_map, expected.segmentation_map)
    np.testing.assert_array_equal(actual.confidence, expected.confidence)
    assert (actual.segmentation_map[:4] == 1).all()
    assert not actual.confidence[:4].any()


@pytest.mark.parametrize("classes", [254, 255, 256, 300])
def test_many_classes_at_little_memory(classes):
    logits, size = noise(classes, 9, 9), (600, 500)
    logits[-1, :3], logits[0, -3:] = 20, 20
    tracemalloc.start()
    result = postprocess(logits, Placement(0, 0, 9, 9), (9, 9), size, Rule(classes, 0, 0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (result.segmentation_map[:130] == classes - 1).all()
    assert (result.segmentation_map[-130:] == 0).all()
    assert peak < result.segmentation_map.nbytes + result.confidence.nbytes + 12 * BAND_BYTES


def test_the_first_of_equal_logits_wins():
    logits = np.zeros((4, 5, 5), np.float32)
    logits[1:3] = 7
    result = postprocess(logits, Placement(0, 0, 5, 5), (5, 5), (5, 5), Rule(4, 0, 0.0))
    assert (result.segmentation_map == 1).all()
    np.testing.assert_allclose(result.confidence, 1 / (2 + 2 * np.exp(-7)), rtol=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("size", [(60, 60), (30, 90), (90, 30), (31, 31), (20, 20), (30, 30)])
def test_logits_that_are_no_numbers_become_background(classes, value, size):
    def run(logits):
        return postprocess(logits, Placement(0, 0, 30, 30), (30, 30), size, Rule(classes + 1, 0, 0.0))

    logits = noise(classes, 30, 30)
    expected = run(logits)
    logits[-1, 10, 12] = value
    result = run(logits)
    rows, columns = (
        np.abs((np.arange(side) + 0.5) * 30 / side - 0.5 - at) < max(30 / side, 1)
        for side, at in zip(size, (10, 12), strict=True)
    )
    near = rows[:, None] & columns
    if (classes, value) == (1, np.inf):  # the one class is then certain
        np.testing.assert_array_equal(result.confidence[near], 1)
    else:
        assert not result.segmentation_map[near].any()
        assert not result.confidence[near].any()
    np.testing.assert_array_equal(result.segmentation_map[~near], expected.segmentation_map[~near])
    np.testing.assert_array_equal(result.confidence[~near], expected.confidence[~near])


@pytest.mark.parametrize("size", [(60, 60), (30, 90), (90, 30), (20, 20), (30, 30)])
def test_minus_infinity_rules_out_its_class_alone(size):
    logits, low = noise(4, 30, 30), noise(4, 30, 30)
    for planes, value in ((logits, -np.inf), (low, -1e30)):
        planes[2], planes[3, 10, 12] = value, value
    expected, actual = (
        postprocess(planes, Placement(0, 0, 30, 30), (30, 30), size, Rule(5, 0, 0.0)) for planes in (low, logits)
    )
    np.testing.assert_array_equal(actual.segmentation_map, expected.segmentation_map)
    np.testing.assert_allclose(actual.confidence, expected.confidence, rtol=1e-6)
    assert set(np.unique(actual.segmentation_map)) == {1, 2, 4}


def test_the_most_probable_class_of_one_logit_is_the_foreground_from_one_half():
    logits = np.array([[[-0.25, 0.0, 0.25]]], np.float32)
    actual = {
        threshold: postprocess(logits, Placement(0, 0, 1, 3), (1, 3), (1, 3), Rule(2, 1, threshold))
        for threshold in ("argmax", 0.5, 0.0)
    }
    assert actual["argmax"].segmentation_map.tolist() == actual[0.5].segmentation_map.tolist() == [[1, 0, 0]]
    assert actual[0.0].segmentation_map.tolist() == [[0, 0, 0]]


def test_the_most_probable_of_several_classes_may_be_improbable():
    logits = noise(4, 8, 8) / 9
    result = postprocess(logits, Placement(0, 0, 8, 8), (8, 8), (8, 8), Rule(4, 0, "argmax"))
    assert result.confidence.max() < 0.5
    np.testing.assert_array_equal(result.segmentation_map, logits.argmax(0))


def test_large_logits_do_not_overflow():
    logits = np.stack([np.full((4, 4), 3e38), np.full((4, 4), -3e38), np.full((4, 4), 2e38)]).astype(np.float32)
    result = postprocess(logits, Placement(0, 0, 4, 4), (4, 4), (4, 4), Rule(3, 2, 0.5))
    assert (result.segmentation_map == 0).all()
    assert (result.confidence == 1).all()


def test_hopeless_classes_cost_no_more_than_others_and_change_nothing():
    """Their exponentials would be denormal numbers, in which a CPU counts a hundred times as slowly."""
    near = noise(8, 60, 60)
    near[0] += 20

    def run(logits):
        return postprocess(logits, Placement(0, 0, 60, 60), (60, 60), (300, 300), Rule(8, 0, 0.5))

    far = near.copy()
    far[1:] -= 75
    alone = run(np.concatenate([near[:1], np.full_like(near[1:], -1e30)]))
    np.testing.assert_array_equal(run(far).segmentation_map, alone.segmentation_map)
    np.testing.assert_array_equal(run(far).confidence, alone.confidence)
    assert fastest(lambda: run(far)) < 4 * fastest(lambda: run(near))


def fastest(call):
    """Seconds of processor time."""
    seconds = []
    for _ in range(5):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)
