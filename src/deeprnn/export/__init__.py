"""Models that leave: to MXNet without this package, to ONNX, to PyTorch, to a folder that can be shared, and back."""

from .folder import FORMATS, export, from_pretrained, to_onnx, to_symbol, to_torch
from .torch import from_torch

__all__ = ["FORMATS", "export", "from_pretrained", "from_torch", "to_onnx", "to_symbol", "to_torch"]
