"""Configuration: options as frozen dataclasses, presets, and how a run's options are resolved.

Each field of a dataclass is one option. Its name is the key in a YAML file and, with dashes, the flag of the command
line; the help text is the field's entry in the docstring. Values are checked when a configuration is made.
"""

from .._util.arguments import flag
from .commands import EvaluateConfig, ExportConfig, GenerateConfig, LaunchConfig, ServeConfig
from .fields import select, spelled
from .resolution import OptionsFileError, as_yaml, check_resumed, origin, presets, read_options, read_value, resolve
from .run import CELLS, DataConfig, ModelConfig, RunConfig, Split, TrainConfig

__all__ = [
    "CELLS",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "LaunchConfig",
    "ModelConfig",
    "OptionsFileError",
    "RunConfig",
    "ServeConfig",
    "Split",
    "TrainConfig",
    "as_yaml",
    "check_resumed",
    "flag",
    "origin",
    "presets",
    "read_options",
    "read_value",
    "resolve",
    "select",
    "spelled",
]
