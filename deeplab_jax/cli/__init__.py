"""The `deeplab` command."""

from deeplab_jax.cli.commands import main as main
