"""Figures against their definitions, pixel by pixel."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from deeplab_jax.evaluate.evaluate import match_classes
from deeplab_jax.evaluate.metrics import confusion_matrix, scores


def test_scores_equal_the_definitions():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, (2, 31, 17))
    truth[truth == 3] = 255
    prediction[5] = 4  # a class that the data set does not have
    result = scores(confusion_matrix(truth, prediction, 4), ("a", "b", "c", "d"), images=1)

    valid = truth != 255
    iou = {}
    for i in range(4):
        hit, miss = (truth == i) & (prediction == i), valid & ((truth == i) != (prediction == i))
        iou["abcd"[i]] = hit.sum() / (hit.sum() + miss.sum())
    recall = [(prediction[truth == i] == i).mean() for i in range(3)]
    assert result.per_class_iou == pytest.approx(iou)
    assert result.miou == pytest.approx(np.mean(list(iou.values())))
    assert result.mean_accuracy == pytest.approx(np.mean(recall))
    assert result.pixel_accuracy == pytest.approx((truth == prediction)[valid].mean())


@pytest.mark.parametrize("classes", [2, 21, 254])
def test_figures_equal_scikit_learns(classes):
    """Summed over five maps of other sizes, a few classes rare or absent, a tenth of the pixels void."""
    rng = np.random.default_rng(classes)
    share = rng.dirichlet(np.full(classes, 0.3))
    total, all_truth, all_found = np.zeros((classes, classes + 1), int), [], []
    for _ in range(5):
        size = rng.integers(1, 60, 2)
        truth, actual = rng.choice(classes, size, p=share), rng.choice(classes, size, p=share)
        actual = np.where(rng.random(size) < 0.6, truth, actual)
        truth = np.where(rng.random(size) < 0.1, 255, truth)
        total += confusion_matrix(truth, actual, classes)
        all_truth.append(truth[truth != 255])
        all_found.append(actual[truth != 255])
    truth, actual = np.concatenate(all_truth), np.concatenate(all_found)
    np.testing.assert_array_equal(total[:, :-1], sklearn.confusion_matrix(truth, actual, labels=range(classes)))
    assert not total[:, -1].any()

    result = scores(total, tuple(map(str, range(classes))), images=5)
    occurring = np.union1d(truth, actual)
    iou = sklearn.jaccard_score(truth, actual, labels=occurring, average=None)
    assert [result.per_class_iou[str(i)] for i in occurring] == pytest.approx(iou.tolist())
    assert result.miou == pytest.approx(iou.mean())
    assert sum(value is None for value in result.per_class_iou.values()) == classes - len(occurring)
    recall = sklearn.recall_score(truth, actual, labels=np.unique(truth), average=None)
    assert result.mean_accuracy == pytest.approx(recall.mean())
    assert result.pixel_accuracy == pytest.approx(sklearn.accuracy_score(truth, actual))


def test_classes_that_never_occur_are_left_out():
    truth, prediction = np.array([[0, 0, 1]]), np.array([[0, 1, 1]])
    result = scores(confusion_matrix(truth, prediction, 3), ("a", "b", "c"), images=1)
    assert result.per_class_iou == {"a": 0.5, "b": 0.5, "c": None}
    assert result.miou == 0.5


def test_nothing_to_score():
    result = scores(np.zeros((2, 3), int), ("a", "b"), images=0)
    assert (result.miou, result.pixel_accuracy) == (0, 0)


def test_classes_are_matched_by_name():
    assert match_classes(["background", "car", "road"], ("road", "car")).tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="no class bus of the data set"):
        match_classes(["background", "car"], ("car", "bus"))
