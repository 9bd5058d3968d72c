"""The networks of deeprnn as PyTorch modules; needs torch and safetensors alone."""

from .layers import DeepGRU, DeepLSTM, DeepRNN
from .model import LanguageModel

__all__ = ["DeepGRU", "DeepLSTM", "DeepRNN", "LanguageModel", "__version__"]

__version__ = "0.1.0"
