"""The layers that DeepLab is made of. NHWC, float32, padding always explicit and symmetric as in PyTorch."""

from functools import reduce
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from deeplab_jax.config import ConvKind


class Conv(nnx.Conv):
    """A square convolution padded by `dilation * (kernel - 1) // 2`: stride 1 keeps the size, 2 gives ceil(n / 2)."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cin,
            cout,
            (kernel, kernel),
            strides=stride,
            kernel_dilation=dilation,
            padding=dilation * (kernel - 1) // 2,
            feature_group_count=groups,
            use_bias=use_bias,
            kernel_init=nnx.initializers.he_normal(),
            rngs=rngs,
        )


class DepthwiseConv(Conv):
    """One 3x3 filter a channel.

    XLA on CPUs runs a grouped convolution some 20 times slower than the same sum written as nine shifted
    multiply-adds, so `form="auto"` lowers to that there. Exporters set `form="conv"`.
    """

    def __init__(self, channels: int, *, stride: int = 1, dilation: int = 1, rngs: nnx.Rngs):
        super().__init__(channels, channels, 3, stride=stride, dilation=dilation, groups=channels, rngs=rngs)
        self.stride, self.dilation = stride, dilation
        self.form: Literal["auto", "conv"] = "auto"

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        if self.form == "conv":
            return super().__call__(x)
        return jax.lax.platform_dependent(x, cpu=self.shifted_sum, default=super().__call__)

    def shifted_sum(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kernel, d, s = self.kernel[...], self.dilation, self.stride
        height, width = x.shape[1:3]
        x = jnp.pad(x, ((0, 0), (d, d), (d, d), (0, 0)))
        taps = [(i, j) for i in range(3) for j in range(3)]
        shifted = [x[:, i * d : i * d + height : s, j * d : j * d + width : s] * kernel[i, j, 0] for i, j in taps]
        return reduce(jnp.add, shifted)


class SeparableConv(nnx.Module):
    """Depthwise 3x3, then pointwise 1x1, with nothing between."""

    def __init__(self, cin: int, cout: int, *, dilation: int = 1, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(cin, dilation=dilation, rngs=rngs)
        self.pointwise = Conv(cin, cout, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h w cout"]:
        return self.pointwise(self.depthwise(x))


def norm(channels: int, epsilon: float, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """BatchNorm with PyTorch's default momentum (its 0.1 is 0.9 here)."""
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=epsilon, rngs=rngs)


class ConvNormReLU(nnx.Module):
    """Convolution (1x1, or 3x3 of either kind), BatchNorm, ReLU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: Literal[1, 3] = 1,
        *,
        dilation: int = 1,
        kind: ConvKind = "dense",
        epsilon: float,
        rngs: nnx.Rngs,
    ):
        if kind == "separable":
            self.conv = SeparableConv(cin, cout, dilation=dilation, rngs=rngs)
        else:
            self.conv = Conv(cin, cout, kernel, dilation=dilation, rngs=rngs)
        self.norm = norm(cout, epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w cin"]) -> Float[Array, "b h w cout"]:
        return nnx.relu(self.norm(self.conv(x)))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3x3, stride 2, one pixel of padding that never wins."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2))


def resize_bilinear(
    x: Float[Array, "b h w c"], size: tuple[int, ...], *, align_corners: bool
) -> Float[Array, "b h2 w2 c"]:
    """Bilinear upsampling as two small matrix products.

    A matrix product is fast forward and backward on every backend (a gather's gradient is a scatter) and keeps a
    symbolic batch size exportable. HIGHEST: interpolation weights must not be rounded to bf16 or TF32.
    """
    for axis, product in enumerate(("Hh,bhwc->bHwc", "Ww,bhwc->bhWc")):
        size_in, size_out = x.shape[1 + axis], size[axis]
        if size_in != size_out:
            matrix = interpolation_matrix(size_in, size_out, align_corners).astype(x.dtype)
            x = jnp.einsum(product, matrix, x, precision=jax.lax.Precision.HIGHEST)
    return x


def interpolation_matrix(size_in: int, size_out: int, align_corners: bool) -> np.ndarray:
    """(size_out, size_in) float32: row i holds the two weights that make output pixel i. For size_out >= size_in."""
    i = np.arange(size_out)
    position = i * (size_in - 1) / max(size_out - 1, 1) if align_corners else (i + 0.5) * size_in / size_out - 0.5
    position = position.clip(0, size_in - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size_in - 1)
    matrix = np.zeros((size_out, size_in), np.float32)
    np.add.at(matrix, (i, low), 1 - (position - low))
    np.add.at(matrix, (i, high), position - low)
    return matrix
