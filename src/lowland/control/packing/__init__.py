"""Networks of binary and ternary weights as small files that run."""

from lowland.control.packing.codes import Codes, find_codes
from lowland.control.packing.dead import Swept, sweep_dead_weights
from lowland.control.packing.i2s import from_i2s, to_i2s
from lowland.control.packing.model import PackedModel, load_packed
from lowland.control.packing.onnx_export import export_onnx
from lowland.control.packing.onnx_session import load_onnx
from lowland.control.packing.pack import pack, summary
from lowland.control.packing.qonnx_export import to_qonnx
from lowland.control.packing.summary import LayerSummary, Summary

__all__ = [
    "Codes",
    "LayerSummary",
    "PackedModel",
    "Summary",
    "Swept",
    "export_onnx",
    "find_codes",
    "from_i2s",
    "load_onnx",
    "load_packed",
    "pack",
    "summary",
    "sweep_dead_weights",
    "to_i2s",
    "to_qonnx",
]
