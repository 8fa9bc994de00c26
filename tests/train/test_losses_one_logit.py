"""Losses of models with one logit against formulas, PyTorch's and segmentation_models_pytorch's binary losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.config import IGNORE, LossConfig
from deeplab_jax.train.losses import make_loss, most_probable

TERMS = {
    "cross-entropy": LossConfig(),
    "weighted": LossConfig(class_weights=(0.5, 3.0)),
    "smoothed": LossConfig(label_smoothing=0.2),
    "hard pixels": LossConfig(ohem_fraction=0.3),
    "focal": LossConfig(cross_entropy=0.0, focal=1.0, focal_gamma=1.5, class_weights=(0.25, 0.75)),
    "dice": LossConfig(cross_entropy=0.0, dice=1.0),
    "lovasz": LossConfig(cross_entropy=0.0, lovasz=1.0),
    "sum": LossConfig(cross_entropy=0.5, focal=2.0, dice=1.0, lovasz=0.25),
}


@pytest.fixture(scope="module")
def case():
    """Three images; the second has no foreground, the third no label."""
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 1, IGNORE], (3, 7, 9)).astype(np.int32)
    ids[1, ids[1] == 1], ids[2] = 0, IGNORE
    return jnp.asarray(rng.normal(0, 2, (3, 7, 9, 1)).astype(np.float32)), jnp.asarray(ids)


def pixels(logits, ids):
    """Probability of the foreground and class of every valid pixel."""
    logits, ids = np.asarray(logits, np.float64).ravel(), np.asarray(ids).ravel()
    return 1 / (1 + np.exp(-logits[ids != IGNORE])), ids[ids != IGNORE]


def loss(name, case):
    return make_loss(TERMS[name])(*case)


def test_cross_entropy_is_the_binary_one(case):
    p, y = pixels(*case)
    losses = -np.log(np.where(y == 1, p, 1 - p))
    assert loss("cross-entropy", case) == pytest.approx(losses.mean(), rel=1e-6)
    assert loss("weighted", case) == pytest.approx((np.where(y == 1, 3, 0.5) * losses).mean(), rel=1e-6)
    soft = 0.8 * y + 0.1
    smoothed = -(soft * np.log(p) + (1 - soft) * np.log(1 - p))
    assert loss("smoothed", case) == pytest.approx(smoothed.mean(), rel=1e-6)


def test_one_weight_alone_is_that_of_the_foreground(case):
    alone, both = (make_loss(LossConfig(class_weights=weights, focal=1.0)) for weights in ((4.0,), (1.0, 4.0)))
    assert alone(*case) == both(*case) > loss("cross-entropy", case)


def test_hard_pixels_are_the_worst_of_every_image(case):
    total, count = 0.0, 0
    for p, y in (pixels(*sample) for sample in zip(*case, strict=True)):
        losses = np.sort(-np.log(np.where(y == 1, p, 1 - p)))[::-1]
        kept = losses[: int(np.ceil(0.3 * len(losses)))]
        total, count = total + kept.sum(), count + len(kept)
    assert loss("hard pixels", case) == pytest.approx(total / count, rel=1e-6)


def test_lovasz_hinge_is_twice_the_jaccard_loss_at_the_margins(case):
    """There every hinge is 0 or 2, a corner of the cube, where the extension is exact."""
    ids = np.asarray(case[1])
    guess = np.random.default_rng(1).integers(0, 2, ids.shape)
    expected = []
    for truth, prediction in zip(ids, guess, strict=True):
        valid = truth != IGNORE
        union = ((truth == 1) | (prediction == 1)) & valid
        both = (truth == 1) & (prediction == 1)
        expected.append(2 * (1 - both.sum() / union.sum()) if union.any() else 0)
    assert loss("lovasz", (jnp.asarray(2.0 * guess[..., None] - 1), case[1])) == pytest.approx(np.mean(expected))


def test_losses_equal_those_of_pytorch(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deeplab_jax[port]'")
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, ids = torch.from_numpy(np.array(case[0])).permute(0, 3, 1, 2), torch.from_numpy(np.array(case[1])).long()
    valid = ids != IGNORE
    weighted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:, 0][valid], ids[valid].float(), pos_weight=torch.tensor(3.0)
    )
    assert make_loss(LossConfig(class_weights=(1.0, 3.0)))(*case) == pytest.approx(weighted.item(), rel=1e-5)
    soft = smp.losses.SoftBCEWithLogitsLoss(smooth_factor=0.1, ignore_index=IGNORE, reduction="sum")
    smoothed = soft(logits, ids[:, None].float()) / valid.sum()
    assert loss("smoothed", case) == pytest.approx(smoothed.item(), rel=1e-5)
    other = {
        "focal": smp.losses.FocalLoss("binary", alpha=0.75, gamma=1.5, ignore_index=IGNORE),
        "dice": smp.losses.DiceLoss("binary", ignore_index=IGNORE),
        "lovasz": smp.losses.LovaszLoss("binary", per_image=True, ignore_index=IGNORE),
    }
    for name, function in other.items():
        assert loss(name, case) == pytest.approx(function(logits, ids[:, None]).item(), rel=1e-5), name


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_finite_and_those_of_pixels_without_label_are_0(case, name):
    logits, ids = case
    value_and_grad = jax.jit(jax.value_and_grad(make_loss(TERMS[name])))
    for truth in (ids, jnp.ones_like(ids), jnp.full_like(ids, IGNORE)):
        for scale in (1, 1000):
            value, gradient = (np.asarray(array) for array in value_and_grad(scale * logits, truth))
            assert np.isfinite(value)
            assert np.isfinite(gradient).all()
            assert not gradient[np.asarray(truth) == IGNORE].any()
            assert value == 0 or scale > 1 or gradient.any()


def test_the_foreground_is_most_probable_from_a_sigmoid_of_one_half():
    logits = jnp.asarray([[[[-1e-3], [0.0], [1e-3]]]])
    assert most_probable(logits).tolist() == [[[0, 1, 1]]]
    assert most_probable(jnp.concatenate([-logits, logits], -1)).tolist() == [[[0, 0, 1]]]
