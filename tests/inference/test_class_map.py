"""Ids without confidences are those of `postprocess`, pixel by pixel, whatever was left out on the way."""

import cv2
import numpy as np
import pytest

from deeplab_jax.image.resize import Placement
from deeplab_jax.inference import class_map
from deeplab_jax.inference.class_map import write_class_map
from deeplab_jax.inference.postprocess import Rule, postprocess
from deeplab_jax.inference.row_bands import Resized


def noise(classes, height=40, width=56, seed=0):
    return np.random.default_rng(seed).normal(size=(classes, height, width)).astype(np.float32) * 4


def smooth(classes, seed=0):
    planes = noise(classes, 5, 7, seed)
    return np.stack([cv2.resize(plane, (56, 40), interpolation=cv2.INTER_CUBIC) for plane in planes])


def of_few_levels(classes, seed=0):
    """As an int8 graph gives them: equal at many places between its values too."""
    return np.round(smooth(classes, seed) * 2) * np.float32(1.7)


def with_holes(classes):
    logits = smooth(classes)
    logits[:, 3, 5], logits[0, 20, 30], logits[-1, 33, 9] = np.nan, np.inf, -np.inf
    return logits


def ids_of(logits, placement, size, rule):
    ids = np.full(size, 99, np.min_scalar_type(rule.class_count - 1))
    write_class_map(logits, placement, (40, 56), rule, ids)
    return ids


@pytest.mark.parametrize("make", [noise, smooth, of_few_levels, with_holes])
@pytest.mark.parametrize("classes", [1, 2, 21, 256])
@pytest.mark.parametrize("size", [(97, 161), (40, 56), (41, 300), (96, 31), (7, 300), (1, 1), (700, 57)])
def test_equals_postprocess(make, classes, size):
    if classes > 100:
        size = -(-size[0] // 8), size[1]
    logits = make(classes)
    for placement in (
        Placement(0, 0, 40, 56),
        Placement(5, 0, 29, 56),
        Placement(-8, 3, 60, 44),
        Placement(0, 2, 1, 50),
    ):
        for threshold in ("argmax", 0.0, 0.3, 0.9, 1.0):
            for rule in (Rule(classes + 1, 1, threshold), Rule(max(classes, 2), 0, threshold)):
                expected = postprocess(logits, placement, (40, 56), size, rule).segmentation_map
                np.testing.assert_array_equal(ids_of(logits, placement, size, rule), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_hole_is_as_wide_where_ids_are_settled_without_their_neighbors(value):
    """So many classes and columns that the logits are looked through in several blocks of rows."""
    logits = np.zeros((30, 60, 700), np.float32)
    logits[3] = 9
    for row in (45, 46, 47, 48):
        holed = logits.copy()
        holed[1, row, 5] = value
        for size in ((60, 700), (90, 900)):
            expected = postprocess(holed, Placement(0, 0, 60, 700), (60, 700), size, Rule(30, 0, 0.5)).segmentation_map
            ids = np.full(size, 99, np.uint8)
            write_class_map(holed, Placement(0, 0, 60, 700), (60, 700), Rule(30, 0, 0.5), ids)
            np.testing.assert_array_equal(ids, expected)


def test_logits_near_the_smallest_number_are_told_apart_as_postprocess_does():
    for scale in (1e-36, 1e-42, 1e-43):
        logits, rule = smooth(3) * np.float32(scale), Rule(3, 0, "argmax")
        expected = postprocess(logits, Placement(0, 0, 40, 56), (40, 56), (572, 753), rule).segmentation_map
        np.testing.assert_array_equal(ids_of(logits, Placement(0, 0, 40, 56), (572, 753), rule), expected)


def test_ties_between_the_logits_fall_the_same_way():
    """At ten times the size some pixels lie where two classes meet, and rounding tells which is the larger."""
    for seed in range(8):
        logits, whole, rule = of_few_levels(3, seed), Placement(0, 0, 40, 56), Rule(3, 0, "argmax")
        expected = postprocess(logits, whole, (40, 56), (400, 560), rule).segmentation_map
        np.testing.assert_array_equal(ids_of(logits, whole, (400, 560), rule), expected)


@pytest.mark.parametrize("ipp", [True, False])
def test_columns_are_mixed_as_opencv_does_on_this_machine(ipp):
    """Where it does without Intel's library it rounds places to float32: in the third decimal of sharp, wide logits."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(ipp)
    try:
        random, whole, rule = np.random.default_rng(0), Placement(0, 0, 40, 56), Rule(19, 0, 0.5)
        regions = random.normal(size=(19, 2, 64)).astype(np.float32)
        regions = np.stack([cv2.resize(plane, (2048, 48), interpolation=cv2.INTER_CUBIC) for plane in regions])
        logits = (np.arange(19)[:, None, None] == regions.argmax(0)) * np.float32(12)
        logits += random.normal(size=logits.shape).astype(np.float32) * 2
        expected = postprocess(logits, whole, (40, 56), (72, 6000), rule).segmentation_map
        np.testing.assert_array_equal(ids_of(logits, whole, (72, 6000), rule), expected)
    finally:
        cv2.ipp.setUseIPP(before)


def test_one_row_or_column_of_logits():
    for shape in ((1, 1), (1, 9), (9, 1), (2, 2)):
        logits, whole, rule = noise(3, *shape), Placement(0, 0, 40, 56), Rule(3, 0, 0.4)
        expected = postprocess(logits, whole, (40, 56), (50, 60), rule).segmentation_map
        np.testing.assert_array_equal(ids_of(logits, whole, (50, 60), rule), expected)


@pytest.mark.parametrize("threshold", ["argmax", 0.5])
def test_most_is_not_resized(monkeypatch, threshold):
    """Nothing where one class leads everywhere; a few columns around the border of two."""
    shares = []

    def counted(of, share):
        return lambda self, step, *rest: shares.append(share(step, *rest)) or of(self, step, *rest)

    def open_pixels(step, above, rows, columns):
        return len(rows) / (len(above) * 560)

    monkeypatch.setattr(Resized, "band", counted(Resized.band, lambda step, rows=None: 1))
    monkeypatch.setattr(class_map.Settled, "_between", counted(class_map.Settled._between, open_pixels))
    logits, rule = noise(4) / 4, Rule(4, 0, threshold)
    logits[1] += 20
    ids_of(logits, Placement(0, 0, 40, 56), (400, 560), rule)
    assert not shares
    logits[2, :, 28:] += 40
    assert set(ids_of(logits, Placement(0, 0, 40, 56), (400, 560), rule).ravel()) <= {0, 1, 2}
    assert 0 < max(shares) <= 0.02
