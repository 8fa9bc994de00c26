"""DeepLabV3 and V3+ for semantic segmentation, in JAX."""

from deeplab_jax.errors import InputError
from deeplab_jax.inference.auto_model import AutoModel

__all__ = ["AutoModel", "InputError"]
__version__ = "0.2.0"
