"""The JAX package that an export starts from."""

from dataclasses import dataclass
from pathlib import Path

from deeplab_jax.errors import InputError
from deeplab_jax.models import DeepLab
from deeplab_jax.package import jax_weights
from deeplab_jax.package.folder import Package, read_package


@dataclass(frozen=True)
class Source:
    package: Package
    model: DeepLab

    @property
    def size(self) -> tuple[int, int]:
        return self.package.preprocess.size


def read_source(folder: Path) -> Source:
    """Raises InputError where it is no JAX package."""
    package = read_package(folder)
    if package.backend != "jax":
        raise InputError(f"{folder} is a package for {package.backend}; export starts from a JAX package")
    return Source(package, jax_weights.open_model(package))
