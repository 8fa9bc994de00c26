"""Forward passes and training steps of DeepLabV3+ beside segmentation_models_pytorch, in one process on a CPU.

    pip install -e '.[port]' && python experiments/benchmarks/cpu_speed.py

Runs alternate, so that both see the same machine; the medians' ratio is what counts. PyTorch runs in channels_last.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from converters import smp
from deeplab_jax.config import LossConfig
from deeplab_jax.models import presets
from deeplab_jax.train.losses import cross_entropy

CLASSES = 21


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["tu-xception65", "resnet50"])
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    print(f"jax {jax.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, {options.runs} runs")
    print("| encoder | what | PyTorch s | JAX s | ratio |\n|---|---|---|---|---|")
    for encoder in options.encoders:
        for what, pair in (("forward 1x512x512", forward), ("training step 2x256x256", training)):
            other, own = alternate(*pair(encoder), options.runs)
            print(f"| {encoder} | {what} | {other:.3f} | {own:.3f} | {own / other:.2f} |", flush=True)


def alternate(other: Callable[[], None], own: Callable[[], None], runs: int) -> tuple[float, float]:
    """Median seconds of each."""
    seconds: dict[Callable, list[float]] = {other: [], own: []}
    for run in (other, own):  # compiles and warms up
        run()
    for _ in range(runs):
        for run, times in seconds.items():
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return statistics.median(seconds[other]), statistics.median(seconds[own])


def models(encoder: str):
    torch_model = smp_library().DeepLabV3Plus(encoder, encoder_weights=None, classes=CLASSES)
    jax_model = smp.from_state_dict(torch_model.state_dict(), presets.smp_deeplabv3plus(encoder, CLASSES))
    torch_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch_model, jax_model


def smp_library():
    import segmentation_models_pytorch

    return segmentation_models_pytorch


def forward(encoder: str) -> tuple[Callable[[], None], Callable[[], None]]:
    torch_model, jax_model = models(encoder)
    torch_model.eval()
    images = np.random.default_rng(0).normal(size=(1, 512, 512, 3)).astype(np.float32)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)  # NCHW that lies in memory as channels_last
    graph, state = nnx.split(jax_model)
    logits = jax.jit(lambda state, images: nnx.merge(graph, state)(images))

    def other() -> None:
        with torch.inference_mode():
            torch_model(tensor)

    return other, lambda: jax.block_until_ready(logits(state, images))


def training(encoder: str) -> tuple[Callable[[], None], Callable[[], None]]:
    torch_model, jax_model = models(encoder)
    torch_model.train()
    jax_model.train()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 256, 256, 3)).astype(np.float32)
    masks = rng.integers(0, CLASSES, (2, 256, 256))
    tensor, target = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)
    batch = jnp.asarray(images), jnp.asarray(masks)
    optimizer = torch.optim.SGD(torch_model.parameters(), 0.01, momentum=0.9)

    def other() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(torch_model(tensor), target).backward()
        optimizer.step()

    sgd = optax.sgd(0.01, momentum=0.9)
    graph, params, rest = nnx.split(jax_model, nnx.Param, ...)

    def loss(params, rest, key):
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(batch[0], rngs=nnx.Rngs(dropout=key))
        return cross_entropy(logits, batch[1], LossConfig()), nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def step(params, rest, moments, key):
        gradients, rest = jax.grad(loss, has_aux=True)(params, rest, key)
        updates, moments = sgd.update(gradients, moments, params)
        return optax.apply_updates(params, updates), rest, moments

    state = [params, rest, sgd.init(params)]

    def own() -> None:
        state[:] = jax.block_until_ready(step(*state, jax.random.key(0)))

    return other, own


if __name__ == "__main__":
    main()
