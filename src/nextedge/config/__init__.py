"""Settings of a tenant: the frozen model of ``nextedge.toml``, its reading and its errors.

Every value has a default, so a folder whose files are named as the tables needs no file.
"""

from nextedge.config.data import (
    DataConfig,
    EntityFeatures,
    FeaturesConfig,
    SplitConfig,
    SplitMethod,
)
from nextedge.config.load import (
    FILE_NAME,
    FILE_SUFFIXES,
    config_from_directory,
    find_table_file,
    load_config,
    parse_config,
)
from nextedge.config.operation import (
    BuildConfig,
    EventsConfig,
    OnboardingConfig,
    ServingConfig,
    TrainingConfig,
)
from nextedge.config.ranking import IndexConfig, RankerConfig, RankerKind, RerankerConfig
from nextedge.config.settings import (
    RENAMED_SETTINGS,
    Configurable,
    Options,
    Settings,
    parse_options,
)
from nextedge.config.surface import (
    NEW_BELOW,
    ContextConfig,
    ExplorationConfig,
    PolicyConfig,
    PromotionsConfig,
    SourceConfig,
    SurfaceConfig,
    SurfaceKind,
)
from nextedge.config.tenant import STATE_VARIABLE, TENANT_PATTERN, Config

__all__ = [
    "FILE_NAME",
    "FILE_SUFFIXES",
    "NEW_BELOW",
    "RENAMED_SETTINGS",
    "STATE_VARIABLE",
    "TENANT_PATTERN",
    "BuildConfig",
    "Config",
    "Configurable",
    "ContextConfig",
    "DataConfig",
    "EntityFeatures",
    "EventsConfig",
    "ExplorationConfig",
    "FeaturesConfig",
    "IndexConfig",
    "OnboardingConfig",
    "Options",
    "PolicyConfig",
    "PromotionsConfig",
    "RankerConfig",
    "RankerKind",
    "RerankerConfig",
    "ServingConfig",
    "Settings",
    "SourceConfig",
    "SplitConfig",
    "SplitMethod",
    "SurfaceConfig",
    "SurfaceKind",
    "TrainingConfig",
    "config_from_directory",
    "find_table_file",
    "load_config",
    "parse_config",
    "parse_options",
]
