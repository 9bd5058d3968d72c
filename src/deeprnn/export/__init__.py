"""Export of models to folders that can be shared, for MXNet without this package, ONNX and PyTorch; and import."""

from .folder import FORMATS, export, from_pretrained, to_onnx, to_symbol, to_torch
from .torch import from_torch

__all__ = ["FORMATS", "export", "from_pretrained", "from_torch", "to_onnx", "to_symbol", "to_torch"]
