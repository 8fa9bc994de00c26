"""What a pickle of PyTorch's may hold and how it becomes plain data. Nothing is run: it only fills passive classes."""

import io
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from converters.readers.torch_objects import (
    Dict,
    Global,
    Numpy,
    Object,
    Placeholder,
    Storage,
    Tensor,
    damage,
    plain,
    require,
)
from deeplab_jax.errors import InputError

MAX_NODES = 200_000
MAX_DEPTH = 64
MAX_DIMENSIONS = 64
MAX_NAME = 1000
MAX_ODD_KEYS = 10_000  # numbers can be made to collide in a dictionary, text cannot
MAX_ARRAY = 1024  # bytes of a numpy array in a pickle: such are settings, and weights are tensors


def _tensor(arguments: tuple) -> Tensor:
    # Gradient and hooks follow, and a seventh argument where the values are still to be conjugated or negated.
    if not len(arguments) < 7:
        raise InputError("holds a lazily conjugated tensor; save tensor.resolve_conj() instead")
    return Tensor(*arguments[:4])


def _first(arguments: tuple) -> Any:
    return arguments[0]


def _nothing(_: tuple) -> Placeholder:
    return Placeholder()


def _object(only: str | None = None) -> Global:
    return Global(lambda _: Object(only=only))


def _numpy_scalar(arguments: tuple) -> Numpy:
    return Numpy(attributes=(1, (), *arguments[:1], False, *arguments[1:2]))


def _encode(arguments: tuple) -> Any:
    """Bytes, as Python 2 knows them: written as text of the same numbers."""
    is_text = len(arguments) == 2 and type(arguments[0]) is str and len(arguments[0]) <= MAX_ARRAY
    return arguments[0].encode("latin1") if is_text else Placeholder()


_STORAGES = "Float Double Half BFloat16 Long Int Short Char Byte Bool ComplexFloat ComplexDouble Untyped"
_DTYPES = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 uint8"
STORAGES = {
    f"{name}Storage": np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    for name, dtype in zip(_STORAGES.split(), _DTYPES.split(), strict=True)
}
_BUILTINS = "set bytearray complex dict list int float tuple str bool bytes long object Ellipsis"
_PATHS = "Posix Windows PurePosix PureWindows"
LEFT_OUT = (
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS.split()),
    *(f"pathlib.{kind}Path" for kind in _PATHS.split()),
    *(f"pathlib._local.{kind}Path" for kind in _PATHS.split()),
    *("torch.device", "collections.Counter", "numpy.ndarray", "_operator.getitem"),
    *(f"typing.{name}" for name in ("Any", "Union", "Optional", "Tuple", "List", "Dict")),
    *("omegaconf.base.Metadata", "omegaconf.base.ContainerMetadata"),
)
# Dictionaries whose items are attributes too, and objects that have nothing but attributes.
DICTIONARIES = (
    *(f"{package}.utilities.parsing.AttributeDict" for package in ("pytorch_lightning", "lightning.pytorch")),
    *(f"{package}.utilities.data.AttributeDict" for package in ("lightning_fabric", "lightning.fabric")),
    *("easydict.EasyDict", "addict.addict.Dict", "munch.Munch", "yacs.config.CfgNode"),
)
NAMESPACES = "argparse.Namespace", "types.SimpleNamespace"
OMEGACONF = {  # the attribute that holds the value; others lead to the object around it
    **{f"omegaconf.{name}": "_content" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")},
    **{f"omegaconf.{name}": "_content" for name in ("tupleconfig.TupleConfig", "base.UnionNode")},
    **{f"omegaconf.nodes.{kind}Node": "_val" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Path")},
}
KNOWN = {
    **dict.fromkeys([*LEFT_OUT, *(f"torch.{dtype}" for dtype in _DTYPES.split())], Global(_nothing)),
    **{
        f"torch.{place}{name}": Global(_nothing, STORAGES[name])
        for name in STORAGES
        for place in ("", "cuda.", "storage.")
    },
    "collections.OrderedDict": Global(lambda arguments: Dict(*arguments[:1])),
    "collections.defaultdict": Global(lambda _: Dict()),  # what it was called with makes values that are not there
    **dict.fromkeys(DICTIONARIES, Global(lambda _: Dict())),
    **dict.fromkeys(NAMESPACES, _object()),
    **{name: _object(only) for name, only in OMEGACONF.items()},
    "numpy.dtype": Global(lambda arguments: Numpy(*arguments[:1])),
    **{f"numpy.{core}.multiarray.scalar": Global(_numpy_scalar) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": Global(lambda _: Numpy()) for core in ("core", "_core")},
    "_codecs.encode": Global(_encode),
    "torch.Size": Global(_first),
    "torch._utils._rebuild_tensor": Global(_tensor),
    "torch._utils._rebuild_tensor_v2": Global(_tensor),
    "torch._utils._rebuild_parameter": Global(_first),
    "torch._utils._rebuild_parameter_with_state": Global(_first),
}
NUMPY_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
# What PyTorch writes in its binary protocols. The others take names past find_class, reserve as much memory as the file
# says, or fill sets, in which numbers can be made to collide.
OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS SETITEM SETITEMS BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE "
    "GLOBAL STACK_GLOBAL BINPERSID"
)
_Base: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class Unpickler(_Base):
    """The unpickler in pure Python, as the one in C allocates its memo and byte arrays by sizes that the file declares,
    and lets no opcode be left out."""

    dispatch = {getattr(pickle, name)[0]: _Base.dispatch[getattr(pickle, name)[0]] for name in OPCODES.split()}  # noqa: RUF012

    def __init__(self, file: io.BytesIO, scripted: bool = False):
        super().__init__(file, encoding="utf-8")
        self.scripted = scripted
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Global:
        require(len(module) + len(name) < MAX_NAME, "a name in it is too long")
        full_name = f"{module}.{name}"
        if full_name in KNOWN:
            return KNOWN[full_name]
        if self.scripted and full_name.startswith("__torch__."):
            return _object()
        if self.scripted and module == "torch.jit._pickle":
            return Global(_first)
        remedy = "which is never loaded; save model.state_dict() and convert that"
        raise InputError(f"holds a pickled {plain(full_name)}, {remedy}")

    def persistent_load(self, pid: Any) -> Storage:
        require(isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage", "it refers to no storage")
        _, kind, key, _, numel, *view = pid
        if view not in ([], [None]):
            raise InputError("has views of storages, as PyTorch once wrote; load and save it again with PyTorch")
        dtype = kind.dtype if isinstance(kind, Global) else None
        if dtype is None or type(key) is not str or len(key) >= MAX_NAME or type(numel) is not int or numel < 0:
            raise InputError(damage("a storage is described wrongly"))
        return self.storages.setdefault(key, Storage(key, dtype, numel))

    def load_empty_dictionary(self) -> None:
        self.append(Dict())

    def load_call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        require(isinstance(function, Global) and type(arguments) is tuple, "it calls what is no function")
        self.append(function.call(arguments))

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Object | Numpy):
            self.stack[-1].attributes = state

    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dictionary
    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = load_call
    dispatch[pickle.BUILD[0]] = load_build


def _numbers(array: Numpy) -> Any:
    """A small numpy array, or a number."""
    if not (type(array.attributes) is tuple and len(array.attributes) == 5):
        return Placeholder()
    _, shape, dtype, fortran, data = array.attributes
    code = dtype.code if isinstance(dtype, Numpy) else None
    order = dtype.attributes[1] if isinstance(dtype, Numpy) and type(dtype.attributes) is tuple else None
    known = code in NUMPY_TYPES and order in ("<", "|") and type(data) is bytes and len(data) <= MAX_ARRAY
    sized = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS and all(type(n) is int and n > 0 for n in shape)
    if not (known and sized):
        return Placeholder()
    numbers = np.frombuffer(data, code)
    if math.prod(shape) != numbers.size:
        return Placeholder()
    return numbers.reshape(shape, order="F" if fortran is True else "C") if shape else numbers[0].item()


class Resolver:
    """Makes the result of what was unpickled. What is shared is made anew each time it is met, so that whoever walks
    the result meets no more than was counted here."""

    def __init__(self, data: Callable[[str], memoryview]):
        self.data = data
        self.nodes = 0
        self.odd_keys = 0

    def value(self, item: Any, depth: int = 0) -> Any:
        self._count(depth)
        if isinstance(item, Dict):
            return {self._key(key, depth + 1): self.value(value, depth + 1) for key, value in item.items}
        if isinstance(item, list | tuple):
            return type(item)([self.value(element, depth + 1) for element in item])
        if isinstance(item, Tensor):
            return self._array(item)
        if isinstance(item, Object) and isinstance(item.attributes, Dict):
            pairs = item.attributes.items
            parts = [value for key, value in pairs if key == item.only] if item.only else [item.attributes]
            return self.value(parts[0], depth + 1) if parts else Placeholder()
        if isinstance(item, Numpy):
            return _numbers(item)
        return item if item is None or isinstance(item, str | bytes | int | float) else Placeholder()

    def weights(self, module: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Shaped[np.ndarray, "..."]]]:
        """The tensors of a TorchScript module and of those in it, by dotted name."""
        require(isinstance(module, Object), "it holds no module")
        # Another state comes from a __getstate__, and only the code that is left aside could tell what it means.
        attributes = module.attributes.items if isinstance(module.attributes, Dict) else ()
        for name, value in attributes:
            self._count(depth)
            require(type(name) is str and len(prefix) + len(name) < MAX_NAME, "an attribute has no name")
            if isinstance(value, Tensor):
                yield prefix + name, self._array(value)
            elif isinstance(value, Object):
                yield from self.weights(value, f"{prefix}{name}.", depth + 1)

    def _count(self, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise InputError(
                "holds too many objects, or too deep a nest of them; save model.state_dict() and convert that"
            )

    def _key(self, item: Any, depth: int) -> Any:
        if type(item) is str:
            return item
        self.odd_keys += 1
        require(self.odd_keys <= MAX_ODD_KEYS, "it has too many keys that are no text")
        return self.value(item, depth)

    def _array(self, tensor: Tensor) -> Shaped[np.ndarray, "..."]:
        storage, offset, size, stride = tensor.storage, tensor.offset, tensor.size, tensor.stride
        require(isinstance(storage, Storage), "a tensor has no storage")
        is_layout = type(size) is type(stride) is tuple and len(size) == len(stride) <= MAX_DIMENSIONS
        require(is_layout and all(type(n) is int and n >= 0 for n in (offset, *size, *stride)), "a shape is impossible")
        if 0 in size:
            return np.empty(size, storage.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        # Steps of 0 would let a few bytes be a tensor of any size.
        require(last < storage.numel and math.prod(size) <= storage.numel, "a tensor is larger than its storage")
        data, width = self.data(storage.key), storage.dtype.itemsize
        require(storage.numel * width <= len(data), f"the storage {plain(storage.key)} ends early")
        steps = [step * width if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
        return np.ndarray(size, storage.dtype, data, offset * width, steps)
