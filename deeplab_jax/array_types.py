"""jaxtyping's names for what arrays hold, in modules that production runs with numpy, OpenCV and ONNX Runtime alone.

`Float32[np.ndarray, "h w"]` is a float32 array of two axes; one name is one size throughout a signature. Where
jaxtyping is loaded first, as its pytest option does, every call is held against that. Elsewhere it is np.ndarray, as
importing jaxtyping would take a sixth of the time in which an ONNX package loads.
"""

import sys
from typing import TYPE_CHECKING, Any

__all__ = ["Bool", "Float", "Float32", "Float64", "Int16", "Int32", "Int64", "Integer", "Num", "Shaped"]
__all__ += ["UInt", "UInt8", "UInt32"]

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float32, Float64, Int16, Int32, Int64, Integer, Num, Shaped, UInt, UInt8, UInt32
else:

    class Unchecked:
        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            """The type of array alone."""
            return item[0]

    Bool = Float = Float32 = Float64 = Int16 = Int32 = Int64 = Integer = Num = Shaped = UInt = UInt8 = UInt32 = (
        Unchecked
    )
