"""Reads weight files. Weights are data: nothing in a file is ever executed."""

from pathlib import Path
from typing import Any

from deeplab_jax.errors import InputError


def read_weights(path: Path) -> dict[str, Any]:
    """Names -> arrays or tensors, from a `.safetensors` file or a PyTorch state dict.

    Raises:
        InputError: that names the file and why it cannot be used.
    """
    if not path.is_file():
        raise InputError(f"the weights file {path} does not exist or is no file")
    weights = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(weights, dict) or not weights or not all(_is_tensor(value) for value in weights.values()):
        raise InputError(f"{path} is not a state dict (names -> tensors); save model.state_dict() and convert that")
    return weights


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(f"reading {path} needs PyTorch; install it with: pip install 'deeplab_jax[port]'") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises whatever the format under it raised, and advises to run what is in the file
        raise InputError(
            f"{path} is no PyTorch file of weights alone: it is damaged, something else, or holds pickled objects, "
            "which are never run; save model.state_dict() and convert that"
        ) from None


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
