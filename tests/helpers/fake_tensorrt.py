"""Stand-ins for TensorRT's bindings and CUDA's, to see in what order they are called and what becomes of the memory.

"Device memory" is host memory, and work waits in its stream until that is synchronized. An engine.plan is the ONNX
file behind a mark, and ONNX Runtime computes it. Nothing here says that a real engine can be built or run.
"""

import ctypes
import enum
import json
import sys
import threading
import time
import types

import numpy as np
import onnxruntime

PLAN = b"engine of 10.12: "


class Fakes:
    """The two modules, what they were asked, and what is still alive on the "GPU"."""

    def __init__(self):
        self.cuda, self.tensorrt = cuda_module(self), tensorrt_module(self)
        self.reset()

    def reset(self) -> None:
        self.alive: dict[int, object] = {}
        self.gpus, self.memory = 1, 1 << 24
        self.spoil = 0.0  # what engines add to their logits
        self.shapes: list[tuple[int, ...]] = []  # of the inputs that engines ran
        self.networks: list[types.SimpleNamespace] = []
        self.parser_errors: list[types.SimpleNamespace] = []
        self.caches: list[bytes] = []  # timing caches that were attached

    def install(self, monkeypatch) -> None:
        bindings = types.ModuleType("cuda.bindings")
        bindings.runtime = self.cuda
        cuda = types.ModuleType("cuda")
        cuda.bindings = bindings
        modules = {
            "tensorrt": self.tensorrt,
            "cuda": cuda,
            "cuda.bindings": bindings,
            "cuda.bindings.runtime": self.cuda,
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)


def cuda_module(fakes: Fakes) -> types.ModuleType:
    module = types.ModuleType("cuda.bindings.runtime")

    class cudaError_t(enum.IntEnum):
        cudaSuccess = 0
        cudaErrorMemoryAllocation = 2
        cudaErrorNoDevice = 100

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class Stream:
        def __init__(self):
            self.work = []

        def __int__(self):
            return id(self)

    ok = (cudaError_t.cudaSuccess,)

    def cudaGetDeviceCount():
        return (cudaError_t.cudaSuccess, fakes.gpus) if fakes.gpus else (cudaError_t.cudaErrorNoDevice, 0)

    def cudaStreamCreate():
        stream = Stream()
        fakes.alive[int(stream)] = stream
        return (*ok, stream)

    def cudaMalloc(size):
        if size > fakes.memory:
            return (cudaError_t.cudaErrorMemoryAllocation, None)
        block = ctypes.create_string_buffer(size)
        fakes.alive[ctypes.addressof(block)] = block
        return (*ok, ctypes.addressof(block))

    def cudaMemcpyAsync(target, source, size, kind, stream):
        device = target if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else source
        assert size <= len(fakes.alive[device])
        stream.work.append(lambda: ctypes.memmove(target, source, size))
        return ok

    def cudaStreamSynchronize(stream):
        while stream.work:
            stream.work.pop(0)()
        return ok

    def release(thing):
        del fakes.alive[int(thing)]
        return ok

    module.__dict__.update(locals())
    module.cudaFree = module.cudaStreamDestroy = release
    module.cudaSetDevice = lambda device: ok
    module.cudaMemset = lambda pointer, value, size: (ctypes.memset(pointer, value, size), ok)[1]
    module.cudaGetDeviceProperties = lambda device: (*ok, types.SimpleNamespace(name=b"Fake GPU 1"))
    return module


def tensorrt_module(fakes: Fakes) -> types.ModuleType:
    module = types.ModuleType("tensorrt")

    class ILogger:
        Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING")

    class IProgressMonitor:
        pass

    TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
    DataType = enum.Enum("DataType", "FLOAT HALF")
    BuilderFlag = enum.Enum("BuilderFlag", "TF32")
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    Dims = tuple

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            assert self.engine_host_code_allowed is False
            if not plan.startswith(PLAN):
                self.logger.log(ILogger.Severity.WARNING, "a hint")
                self.logger.log(ILogger.Severity.ERROR, "Version tag\n does not match")
                return None
            header, _, graph = plan[len(PLAN) :].partition(b"\n")
            return ICudaEngine(onnxruntime.InferenceSession(graph), json.loads(header))

    class ICudaEngine:
        def __init__(self, session, profile):
            self.session, self.profile = session, [Dims(shape) for shape in profile]
            self.ports = {TensorIOMode.INPUT: session.get_inputs(), TensorIOMode.OUTPUT: session.get_outputs()}
            self.names = [port.name for ports in self.ports.values() for port in ports]
            self.num_io_tensors = len(self.names)

        def get_tensor_name(self, index):
            return self.names[index]

        def get_tensor_mode(self, name):
            return next(mode for mode, ports in self.ports.items() if name in [port.name for port in ports])

        def get_tensor_dtype(self, name):
            port = next(port for ports in self.ports.values() for port in ports if port.name == name)
            return DataType.FLOAT if port.type == "tensor(float)" else DataType.HALF

        def get_tensor_shape(self, name):
            port = next(port for ports in self.ports.values() for port in ports if port.name == name)
            return Dims(side if isinstance(side, int) else -1 for side in port.shape)

        def get_tensor_profile_shape(self, name, index):
            assert (name, index) == (self.names[0], 0)
            return self.profile

        def create_execution_context(self):
            return Context(self)

    class Context:
        def __init__(self, engine):
            self.engine, self.addresses, self.shape, self.user = engine, {}, None, None

        def set_tensor_address(self, name, address):
            self.addresses[name] = address
            return True

        def set_input_shape(self, name, shape):
            least, _, most = self.engine.profile
            if not all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
                return False
            self.shape, self.user = shape, threading.get_ident()
            return True

        def get_tensor_shape(self, name):
            images = np.zeros(self.shape, np.float32)
            return Dims(self.engine.session.run([name], {self.engine.names[0]: images})[0].shape)

        def execute_async_v3(self, stream):
            assert self.user == threading.get_ident(), "another thread changed the shape"
            fakes.alive[stream].work.append(self.compute)
            return True

        def compute(self):
            time.sleep(0.001)
            fakes.shapes.append(self.shape)
            source, target = self.engine.names
            images = array_at(self.addresses[source], self.shape)
            logits = self.engine.session.run([target], {source: images})[0] + np.float32(fakes.spoil)
            array_at(self.addresses[target], logits.shape)[:] = logits

    class Builder:
        def __init__(self, logger):
            if not fakes.memory:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self.logger = logger

        def create_network(self, flags):
            network = types.SimpleNamespace(flags=flags, get_input=lambda index: types.SimpleNamespace(name="images"))
            fakes.networks.append(network)
            return network

        def create_optimization_profile(self):
            return Profile()

        def create_builder_config(self):
            return IBuilderConfig()

        def build_serialized_network(self, network, config):
            monitor = config.progress_monitor
            monitor.phase_start("Building", None, 2)
            for step in range(2):
                if not monitor.step_complete("Building", step):
                    monitor.phase_finish("Building")
                    return None
            monitor.phase_finish("Building")
            config.cache.times += b" and more"
            network.config = config
            return PLAN + json.dumps(config.profile.shapes).encode() + b"\n" + network.graph

    class Profile:
        def set_shape(self, name, *shapes):
            self.shapes = shapes

    class IBuilderConfig:
        def __init__(self):
            self.cleared = []

        def add_optimization_profile(self, profile):
            self.profile = profile

        def clear_flag(self, flag):
            self.cleared.append(flag)

        def create_timing_cache(self, data):
            return ITimingCache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            fakes.caches.append(cache.times)
            self.cache = cache
            return not cache.times.startswith(b"of another GPU")

    class ITimingCache:
        def __init__(self, data):
            self.times = data

        def serialize(self):
            return self.times

    class OnnxParser:
        def __init__(self, network, logger):
            self.network = network

        def parse_from_file(self, path):
            with open(path, "rb") as file:
                self.network.graph = file.read()
            return not fakes.parser_errors

        @property
        def num_errors(self):
            return len(fakes.parser_errors)

        def get_error(self, index):
            return fakes.parser_errors[index]

    module.__dict__.update(locals())
    module.__version__ = "10.12.0.36"
    return module


def array_at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    values = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(values).reshape(shape)
