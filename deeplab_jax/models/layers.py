"""The layers that DeepLab is made of. NHWC, float32, padding always explicit."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from deeplab_jax.model_config import ConvKind, Padding
from deeplab_jax.models.cpu_forms import cpu_form


class Conv(nnx.Module):
    """A square convolution padded by `dilation * (kernel - 1) // 2`: stride 1 keeps the size, 2 gives ceil(n / 2).

    With `form="auto"` programs for CPUs get what `cpu_form` has for it. Exporters set `form="conv"`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        padding: Padding = "symmetric",
        use_bias: bool = False,
        rngs: nnx.Rngs,
    ):
        shape = (kernel, kernel, in_channels // groups, out_channels)
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None
        self.size, self.stride, self.groups, self.padding = kernel, stride, groups, padding
        self.dilation = (dilation, dilation) if isinstance(dilation, int) else dilation
        self.form: Literal["auto", "conv"] = "auto"

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        kernel = self.kernel[...]
        options = {"stride": self.stride, "dilation": self.dilation, "pads": self.pads(x)}
        on_cpu = cpu_form(kernel.shape, self.groups) if self.form == "auto" else None
        if on_cpu is None:
            x = convolution(x, kernel, **options)
        else:
            forms = {"cpu": partial(on_cpu, **options), "default": partial(convolution, **options)}
            x = jax.lax.platform_dependent(x, kernel, **forms)
        return x if self.bias is None else x + self.bias[...].astype(x.dtype)

    def pads(self, x: Float[Array, "b h w c_in"]) -> list[tuple[int, int]]:
        """Pixels of padding before and after, for rows and columns."""
        if self.padding == "same" and self.stride == 2:
            return same_pads(x)
        reach = [d * (self.size - 1) // 2 for d in self.dilation]
        return [(pad, pad) for pad in reach]


def convolution(
    x: Float[Array, "b h w c_in"],
    kernel: Float[Array, "size size c_group c_out"],
    *,
    stride: int,
    dilation: tuple[int, int],
    pads: Sequence[tuple[int, int]],
) -> Float[Array, "b h2 w2 c_out"]:
    """Args: dilation and pads, before and after, of rows and of columns."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // kernel.shape[2],
    )


class DepthwiseConv(Conv):
    """One 3x3 filter a channel."""

    def __init__(
        self,
        channels: int,
        *,
        stride: int = 1,
        dilation: int | tuple[int, int] = 1,
        padding: Padding = "symmetric",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            channels, channels, 3, stride=stride, dilation=dilation, groups=channels, padding=padding, rngs=rngs
        )


class SeparableConv(nnx.Module):
    """Depthwise 3x3, then pointwise 1x1; between them nothing, BatchNorm, or BatchNorm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        dilation: int | tuple[int, int] = 1,
        between: Literal["nothing", "norm", "norm-relu"] = "nothing",
        epsilon: float,
        rngs: nnx.Rngs,
    ):
        self.depthwise = DepthwiseConv(in_channels, stride=stride, dilation=dilation, rngs=rngs)
        self.norm = norm(in_channels, epsilon, rngs=rngs) if between != "nothing" else None
        self.relu = between == "norm-relu"
        self.pointwise = Conv(in_channels, out_channels, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        x = self.depthwise(x)
        if self.norm:
            x = self.norm(x)
        return self.pointwise(nnx.relu(x) if self.relu else x)


class Norm(nnx.BatchNorm):
    """BatchNorm in float32, whatever the type of its input, which is that of its output."""

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return super().__call__(x.astype(jnp.float32)).astype(x.dtype)


def norm(channels: int, epsilon: float, *, rngs: nnx.Rngs) -> Norm:
    """BatchNorm with PyTorch's default momentum (its 0.1 is 0.9 here)."""
    return Norm(channels, momentum=0.9, epsilon=epsilon, rngs=rngs)


SAVED_ACTIVATION = "features"


def save_activation(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Marks what a training step keeps for the backward pass where it computes the rest again."""
    return checkpoint_name(x, SAVED_ACTIVATION)


class ConvNorm(nnx.Module):
    """Convolution and BatchNorm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, *, epsilon: float, rngs: nnx.Rngs, **options
    ):
        self.conv = Conv(in_channels, out_channels, kernel, **options, rngs=rngs)
        self.norm = norm(out_channels, epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        return self.norm(self.conv(x))


class ConvNormReLU(nnx.Module):
    """Convolution (1x1, or 3x3 of any kind), BatchNorm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        dilation: int | tuple[int, int] = 1,
        kind: ConvKind = "dense",
        epsilon: float,
        rngs: nnx.Rngs,
    ):
        if kind == "dense":
            self.conv = Conv(in_channels, out_channels, kernel, dilation=dilation, rngs=rngs)
        else:
            between = "norm-relu" if kind == "separable-norm-relu" else "nothing"
            self.conv = SeparableConv(
                in_channels, out_channels, dilation=dilation, between=between, epsilon=epsilon, rngs=rngs
            )
        self.norm = norm(out_channels, epsilon, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h2 w2 c_out"]:
        return nnx.relu(self.norm(self.conv(x)))


def same_pads(x: Float[Array, "b h w c"]) -> list[tuple[int, int]]:
    """TensorFlow's "SAME" for a 3x3 window and stride 2: (0, 1) where the size is even, (1, 1) where it is odd."""
    return [(size % 2, 1) for size in x.shape[1:3]]


def max_pool(x: Float[Array, "b h w c"], padding: Padding = "symmetric") -> Float[Array, "b h2 w2 c"]:
    """3x3, stride 2, with padding that never wins."""
    pads = same_pads(x) if padding == "same" else [(1, 1), (1, 1)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    return nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2))


RESIZE_ROWS, RESIZE_COLUMNS = "Hh,bhwc->bHwc", "Ww,bhwc->bhWc"  # by which an exporter knows them


def resize_bilinear(
    x: Float[Array, "b h w c"], size: tuple[int, ...], *, align_corners: bool
) -> Float[Array, "b h2 w2 c"]:
    """Bilinear upsampling as two small matrix products.

    A matrix product is fast forward and backward on every backend (a gather's gradient is a scatter) and keeps a
    symbolic batch size exportable. HIGHEST: of float32, nothing must be rounded to bf16 or TF32.
    """
    for axis, product in enumerate((RESIZE_ROWS, RESIZE_COLUMNS)):
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
