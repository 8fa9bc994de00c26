"""Schedules, and what an update does to which weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplab_jax.config import OptimConfig
from deeplab_jax.train.optimizer import kernels, make_lr_schedule, make_optimizer


def test_poly_schedule():
    schedule = make_lr_schedule(OptimConfig(lr=0.5, poly_power=0.9), 100)
    for step in (0, 30, 99, 100):
        assert schedule(step) == pytest.approx(0.5 * (1 - step / 100) ** 0.9, rel=1e-5, abs=1e-9)


def test_only_kernels_decay():
    params = {"kernel": jnp.ones((3, 3, 1, 2)), "scale": jnp.ones(2), "bias": jnp.ones(2)}
    decayed = optax.add_decayed_weights(0.1, mask=kernels)
    updates, _ = decayed.update(jax.tree.map(jnp.zeros_like, params), decayed.init(params), params)
    assert {name: float(update.max()) for name, update in updates.items()} == {
        "kernel": pytest.approx(0.1),
        "scale": 0,
        "bias": 0,
    }


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_warm_up_rises_and_the_rest_falls_to_zero(schedule):
    rate = make_lr_schedule(OptimConfig(lr=0.5, schedule=schedule, warmup=10), 100)
    np.testing.assert_allclose([rate(i) for i in range(10)], 0.5 * np.arange(1, 11) / 10, rtol=1e-5)
    assert rate(10) == pytest.approx(0.5)
    expected = {"poly": 0.5 * 0.5**0.9, "cosine": 0.25, "constant": 0.5}[schedule]
    assert rate(55) == pytest.approx(expected)
    assert rate(100) == pytest.approx(0.5 if schedule == "constant" else 0, abs=1e-6)


def weights():
    conv = {"kernel": jnp.full((3, 3, 1, 2), 2.0)}
    norm = {"scale": jnp.full(2, 2.0), "bias": jnp.full(2, 2.0)}
    return {
        "encoder": {"blocks": {0: {"conv": conv, "norm1": norm}}},
        "classifier": {"kernel": jnp.full((1, 1, 2, 3), 2.0), "bias": jnp.full(3, 2.0)},
    }


def change(config: OptimConfig, steps: int = 1):
    """How far every weight moves in so many steps of a gradient of 0.5 everywhere."""
    before = params = weights()
    optimizer = make_optimizer(config, 100)
    state = optimizer.init(params)

    @jax.jit
    def update(gradients, state, params):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        gradients = jax.tree.map(lambda array: jnp.full_like(array, 0.5), params)
        params, state = update(gradients, state, params)
    moved = jax.tree.map(lambda new, old: float((new - old).ravel()[0]), params, before)
    encoder = moved["encoder"]["blocks"][0]
    return {
        "conv": encoder["conv"]["kernel"],
        "scale": encoder["norm1"]["scale"],
        "shift": encoder["norm1"]["bias"],
        "kernel": moved["classifier"]["kernel"],
        "bias": moved["classifier"]["bias"],
    }


SGD = {"lr": 0.1, "schedule": "constant"}


def test_sgd_decays_kernels_alone():
    moved = change(OptimConfig(**SGD, weight_decay=0.1))
    norms = dict.fromkeys(("scale", "shift", "bias"), pytest.approx(-0.05))
    assert moved == {"conv": pytest.approx(-0.07), "kernel": pytest.approx(-0.07), **norms}
    twice = change(OptimConfig(**SGD, weight_decay=0.0), steps=2)
    assert twice["conv"] == pytest.approx(-0.05 - 0.1 * (0.5 + 0.9 * 0.5))  # momentum


def test_adam_takes_decay_into_its_moments_and_adamw_does_not():
    """The first step of Adam is the learning rate whatever the gradient; decoupled decay comes on top."""
    assert change(OptimConfig("adam", **SGD, weight_decay=0.1))["kernel"] == pytest.approx(-0.1, rel=1e-4)
    moved = change(OptimConfig("adamw", **SGD, weight_decay=0.1))
    assert moved["kernel"] == pytest.approx(-0.1 - 0.1 * 0.1 * 2, rel=1e-4)
    assert moved["bias"] == pytest.approx(-0.1, rel=1e-4)


def test_the_encoder_can_learn_slower():
    moved = change(OptimConfig(**SGD, weight_decay=0.0, encoder_lr_scale=0.1))
    assert moved["conv"] == moved["scale"] == pytest.approx(-0.005)
    assert moved["kernel"] == moved["bias"] == pytest.approx(-0.05)


def test_what_is_frozen_does_not_move_and_does_not_count_in_the_norm():
    clipped = {**SGD, "weight_decay": 0.1, "grad_clip_norm": 0.3}
    moved = change(OptimConfig(**clipped, freeze_encoder=True))
    assert moved["conv"] == moved["scale"] == moved["shift"] == 0
    # Nine gradients of 0.5 have norm 1.5, which is brought down to 0.3.
    assert moved["bias"] == pytest.approx(-0.1 * 0.5 * 0.3 / 1.5)
    moved = change(OptimConfig(**clipped, freeze_norms=True))
    assert moved["scale"] == moved["shift"] == 0
    assert moved["conv"] != 0
    assert moved["bias"] != 0


def test_accumulated_steps_are_one_update_of_their_mean():
    config = OptimConfig(**SGD, weight_decay=0.0, grad_accum_steps=3)
    assert set(change(config, steps=2).values()) == {0}
    assert change(config, steps=3)["bias"] == pytest.approx(-0.05)
    schedule = OptimConfig(lr=0.1, grad_accum_steps=10, weight_decay=0.0, momentum=0.0)
    assert change(schedule, steps=100)["bias"] == pytest.approx(
        -0.5 * sum(0.1 * (1 - i / 10) ** 0.9 for i in range(10))
    )
