"""Open an ONNX file of a discrete network so that its activations stay floats."""

from pathlib import Path
from typing import Any

from lowland.errors import CheckpointError, MissingExtraError

__all__ = ["load_onnx"]

# Else a DequantizeLinear and the product after it become one that quantizes activations to int8,
# and in ONNX Runtime 1.32 gives wrong numbers where the outputs are no multiple of four.
NO_FUSION = "session.disable_quant_qdq"
NO_FOLDING = "session.disable_qdq_constant_folding"  # else float32 weights stay in memory


def load_onnx(file: str | Path, *, expand: bool = False, options: Any = None) -> Any:
    """Open a file of :func:`export_onnx` with ONNX Runtime, exact to float32 rounding.

    Args:
        file: The file.
        expand: Hold the weights as float32 in memory, at the speed and size of the float network;
            otherwise weights stay two bits where the runtime can, and every call decodes them.
        options: Your ``onnxruntime.SessionOptions`` (threads, profiling), which get the entries
            that this needs; None for the runtime's defaults.

    Returns:
        An ``onnxruntime.InferenceSession`` on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If ONNX Runtime cannot read it.
        MissingExtraError: If onnxruntime is not installed.

    Source:
        Ours; the entries are ONNX Runtime's.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"running ONNX files needs onnxruntime, which cannot be imported ({error}). Run pip "
            "install 'lowland[export]'."
        ) from error
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file} must be an ONNX file; there is none. See export_onnx.")
    options = options or onnxruntime.SessionOptions()
    options.add_session_config_entry(NO_FUSION, "1")
    if not expand:
        options.add_session_config_entry(NO_FOLDING, "1")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds share no base but Exception
        raise CheckpointError(
            f"{file} must be an ONNX file that this ONNX Runtime ({onnxruntime.__version__}) can "
            f"run; it says: {' '.join(str(error).split())[:300]} Export it again."
        ) from error
