"""Settings as dataclasses, one section per stage, their validation, and conversion from and to TOML."""

from cinefeed.config.settings import (
    DataSettings,
    EvaluateSettings,
    ModelSettings,
    Settings,
    SplitSettings,
    TrainSettings,
)
from cinefeed.config.toml import (
    missing_settings,
    overlay,
    parse,
    read_settings,
    read_table,
    read_transforms,
    to_table,
    to_toml,
    with_groups,
)

__all__ = [
    "DataSettings",
    "EvaluateSettings",
    "ModelSettings",
    "Settings",
    "SplitSettings",
    "TrainSettings",
    "missing_settings",
    "overlay",
    "parse",
    "read_settings",
    "read_table",
    "read_transforms",
    "to_table",
    "to_toml",
    "with_groups",
]
