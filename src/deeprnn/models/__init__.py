"""Models made of the layers."""

from .language_model import LanguageModel, register_cell

__all__ = ["LanguageModel", "register_cell"]
