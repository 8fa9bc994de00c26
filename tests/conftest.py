"""How JAX runs here (eight fake CPU devices, a compilation cache, no silent casts), before anything imports it."""

import os
from pathlib import Path

# Most of the time goes into compiling tiny programs, and most of that into making them fast.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"
FLAGS = os.environ.get("XLA_FLAGS", ""), QUICK_TO_COMPILE, "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = " ".join(FLAGS)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"

pytest_plugins = ["helpers.fixtures", "helpers.tensorrt_packages"]
