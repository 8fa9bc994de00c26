"""How much less a training step keeps for its backward pass with `train.remat`, for DeepLabV3+ at stride 16.

    python experiments/benchmarks/memory.py

Counted are the arrays that the forward pass hands to the backward one, weights left out: what a compiler that keeps to
the program must hold at once. XLA's compiler for CPUs merges what is computed twice and so undoes it.
"""

import argparse

import jax
import jax.numpy as jnp
from flax import nnx

from deeplab_jax.models import presets
from deeplab_jax.models.state import abstract_model
from deeplab_jax.train.step import kernels_in, saving_activations_only


def kept_bytes(encoder: str, size: int, batch: int, dtype: str, remat: bool) -> int:
    abstract = abstract_model(presets.smp_deeplabv3plus(encoder, 21))
    graph, params, batch_stats = nnx.split(abstract, nnx.Param, nnx.BatchStat)

    def backward(params, batch_stats):
        def loss(params):
            model = nnx.merge(graph, kernels_in(jnp.dtype(dtype), params), batch_stats, copy=True)
            return model(jnp.zeros((batch, size, size, 3), dtype), rngs=nnx.Rngs(dropout=0)).astype(jnp.float32).sum()

        return jax.vjp(saving_activations_only(loss) if remat else loss, params)[1]

    return size_of(jax.eval_shape(backward, params, batch_stats)) - size_of(params)


def size_of(tree) -> int:
    """In bytes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["resnet50", "resnet101", "tu-xception65", "mobilenet_v2"])
    parser.add_argument("--size", type=int, default=513)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {options.batch} images of {options.size}x{options.size}")
    print("| encoder | type | kept, MiB | kept with remat, MiB | share |\n|---|---|---|---|---|")
    for encoder in options.encoders:
        for dtype in ("float32", "bfloat16"):
            plain, less = (kept_bytes(encoder, options.size, options.batch, dtype, on) / 2**20 for on in (False, True))
            print(f"| {encoder} | {dtype} | {plain:.0f} | {less:.0f} | {less / plain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
