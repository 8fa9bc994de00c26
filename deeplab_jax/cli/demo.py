"""`deeplab demo`."""

from pathlib import Path

from deeplab_jax.cli.terminal import say


def demo(out: Path = Path("deeplab-demo")) -> None:
    """The whole way on generated images: train, evaluate, export to ONNX, predict, report.

    Args:
        out: folder for everything it makes; a demo that was interrupted goes on there.
    """
    from converters.export.onnx_graph.onnx_package import export as export_onnx
    from deeplab_jax.demo import run_demo

    run_demo(out, export_onnx, say)
