"""Losses against plain loops and against PyTorch's and segmentation_models_pytorch's."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.config import IGNORE, LossConfig
from deeplab_jax.errors import InputError
from deeplab_jax.train.losses import cross_entropy, dice, focal, lovasz_softmax, make_loss

CLASSES = 5
TERMS = {
    "cross-entropy": LossConfig(),
    "weighted": LossConfig(class_weights=(0.5, 2.0, 1.0, 0.0, 3.0)),
    "smoothed": LossConfig(label_smoothing=0.1, class_weights=(0.5, 2.0, 1.0, 0.25, 3.0)),
    "hard pixels": LossConfig(ohem_fraction=0.3),
    "focal": LossConfig(cross_entropy=0.0, focal=1.0, focal_gamma=0.5),
    "dice": LossConfig(cross_entropy=0.0, dice=1.0),
    "lovasz": LossConfig(cross_entropy=0.0, lovasz=1.0),
    "sum": LossConfig(cross_entropy=0.5, focal=2.0, dice=1.0, lovasz=0.25),
}


@pytest.fixture(scope="module")
def case():
    """Two images; class 3 is in neither, class 4 in one only."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, 7, 9, CLASSES)).astype(np.float32)
    ids = rng.choice([0, 1, 2, IGNORE], (2, 7, 9)).astype(np.int32)
    ids[1, :2] = 4
    return jnp.asarray(logits), jnp.asarray(ids)


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def pixels(logits, ids):
    """Probabilities and class of every valid pixel."""
    return [
        (p, i)
        for p, i in zip(softmax(logits).reshape(-1, CLASSES), np.asarray(ids).ravel(), strict=True)
        if i != IGNORE
    ]


def test_cross_entropy_and_its_weights(case):
    actual = pixels(*case)
    assert cross_entropy(*case, TERMS["cross-entropy"]) == pytest.approx(
        np.mean([-np.log(p[i]) for p, i in actual]), rel=1e-6
    )
    weights = TERMS["weighted"].class_weights
    expected = sum(-weights[i] * np.log(p[i]) for p, i in actual) / sum(weights[i] for _, i in actual)
    assert cross_entropy(*case, TERMS["weighted"]) == pytest.approx(expected, rel=1e-6)


def test_hard_pixels_are_the_worst_of_every_image(case):
    total, count = 0.0, 0
    for logits, ids in zip(*case, strict=True):
        losses = sorted((-np.log(p[i]) for p, i in pixels(logits, ids)), reverse=True)
        kept = losses[: int(np.ceil(0.3 * len(losses)))]
        total, count = total + sum(kept), count + len(kept)
    assert cross_entropy(*case, TERMS["hard pixels"]) == pytest.approx(total / count, rel=1e-6)


def test_pixels_of_equal_loss_are_not_counted_beyond_the_share():
    """Of ten pixels three count: the two of loss log 2, and one of the eight that are certain."""
    logits, ids = np.zeros((1, 2, 5, 2), np.float32), np.zeros((1, 2, 5), np.int32)
    logits[..., 0] = 100
    logits[0, 0, :2] = 0
    loss = cross_entropy(jnp.asarray(logits), jnp.asarray(ids), LossConfig(ohem_fraction=0.3))
    assert loss == pytest.approx(2 * np.log(2) / 3)


def test_pixels_of_weight_0_alone_add_nothing(case):
    config = LossConfig(class_weights=(0.0, *[1.0] * (CLASSES - 1)), label_smoothing=0.1)
    assert cross_entropy(case[0], jnp.zeros_like(case[1]), config) == 0


def test_focal_loss_is_weighted(case):
    config = replace(TERMS["focal"], class_weights=tuple(np.arange(1.0, 1 + CLASSES).tolist()))
    expected = np.mean([-(1 + i) * ((1 - p[i]) ** 0.5) * np.log(p[i]) for p, i in pixels(*case)])
    assert focal(*case, config) == pytest.approx(expected, rel=1e-6)


def test_focal(case):
    expected = np.mean([-((1 - p[i]) ** 0.5) * np.log(p[i]) for p, i in pixels(*case)])
    assert focal(*case, TERMS["focal"]) == pytest.approx(expected, rel=1e-6)


def test_dice(case):
    actual = pixels(*case)
    scores = []
    for c in range(CLASSES):
        overlap = sum(p[c] for p, i in actual if i == c)
        size = sum(p[c] for p, _ in actual) + sum(i == c for _, i in actual)
        scores.append(1 - 2 * overlap / size if any(i == c for _, i in actual) else 0)
    assert dice(*case) == pytest.approx(np.mean(scores), rel=1e-6)


def test_lovasz_is_the_jaccard_loss_where_predictions_are_certain(case):
    """Its extension is exact at the corners of the cube."""
    ids = np.asarray(case[1])
    guess = np.random.default_rng(1).integers(0, CLASSES, ids.shape)
    logits = 100 * np.eye(CLASSES, dtype=np.float32)[guess]
    losses = []
    for truth, prediction in zip(ids, guess, strict=True):
        valid = truth != IGNORE
        ious = [
            ((truth == c) & (prediction == c) & valid).sum() / (((truth == c) | (prediction == c)) & valid).sum()
            for c in np.unique(truth[valid])
        ]
        losses.append(1 - np.mean(ious))
    assert lovasz_softmax(jnp.asarray(logits), case[1]) == pytest.approx(np.mean(losses), abs=1e-6)


def test_losses_equal_those_of_pytorch(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, ids = (torch.from_numpy(np.array(array)) for array in case)
    logits, ids = logits.permute(0, 3, 1, 2), ids.long()
    for name in ("weighted", "smoothed"):
        config = TERMS[name]
        other = torch.nn.functional.cross_entropy(
            logits,
            ids,
            torch.tensor(config.class_weights),
            ignore_index=IGNORE,
            label_smoothing=config.label_smoothing,
        )
        assert cross_entropy(*case, config) == pytest.approx(other.item(), rel=1e-5)
    assert dice(*case) == pytest.approx(
        smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)(logits, ids).item(), rel=1e-5
    )
    other = smp.losses.LovaszLoss("multiclass", per_image=True, ignore_index=IGNORE)(logits, ids)
    assert lovasz_softmax(*case) == pytest.approx(other.item(), rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_pixels_without_label_add_nothing(case, name):
    logits, ids = case
    loss = make_loss(TERMS[name])
    changed = jnp.where((ids == IGNORE)[..., None], 50 * logits, logits)
    assert loss(logits, ids) == pytest.approx(float(loss(changed, ids)), rel=1e-6)
    gradient = jax.grad(loss)(logits, ids)
    assert not np.asarray(gradient)[np.asarray(ids) == IGNORE].any()
    assert np.asarray(gradient)[np.asarray(ids) != IGNORE].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_finite_at_the_extremes(case, name):
    logits, ids = case
    value_and_grad = jax.value_and_grad(make_loss(TERMS[name]))
    for truth in (jnp.full_like(ids, IGNORE), jnp.full_like(ids, 3), ids):
        for scale in (1, 1000):
            value, gradient = value_and_grad(scale * logits, truth)
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()
    value, gradient = value_and_grad(logits, jnp.full_like(ids, IGNORE))
    assert value == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cross_entropy": 0.0}, "every loss has weight 0"),
        ({"class_weights": (1.0, -1.0)}, "class_weights must not be negative"),
        ({"class_weights": (1.0,), "balance": True}, "either class_weights or balance"),
        ({"ohem_fraction": 0.0}, "ohem_fraction=0.0 must be above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 must be"),
    ],
)
def test_settings_that_cannot_be_are_named(fields, message):
    with pytest.raises(InputError, match=message):
        LossConfig(**fields)
