"""A tenant's whole configuration."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator

from nextedge.config.data import DataConfig, FeaturesConfig, SplitConfig
from nextedge.config.operation import (
    BuildConfig,
    EventsConfig,
    OnboardingConfig,
    ServingConfig,
    TrainingConfig,
)
from nextedge.config.settings import Settings
from nextedge.config.surface import SurfaceConfig
from nextedge.errors import ConfigError, UnknownSurfaceError, nearest
from nextedge.storage.opening import checked_url, is_bucket, is_misspelt

STATE_VARIABLE = "NEXTEDGE_STATE_HOME"
"""Environment variable: the folder for local files of a state that is in a bucket."""
TENANT_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"


class Config(Settings):
    """A tenant's whole configuration."""

    tenant: str = Field("default", pattern=TENANT_PATTERN)
    """Name of the tenant."""
    state: str = "./state"
    """Folder of releases, event log and caches, or a bucket: s3://bucket/prefix, gs://…, az://…"""
    base: Path = Path(".")
    """Folder that paths are relative to."""
    data: DataConfig = DataConfig()
    """Tables."""
    features: FeaturesConfig = FeaturesConfig()
    """Feature columns."""
    split: SplitConfig = SplitConfig()
    """Split of the history."""
    training: TrainingConfig = TrainingConfig()
    """Training of networks."""
    serving: ServingConfig = ServingConfig()
    """Serving."""
    onboarding: OnboardingConfig = OnboardingConfig()
    """Onboarding of new users."""
    events: EventsConfig = EventsConfig()
    """Events."""
    build: BuildConfig = BuildConfig()
    """Limits of a build."""
    surfaces: dict[str, SurfaceConfig] = Field(default_factory=dict)
    """Surfaces by name."""

    @field_validator("state")
    @classmethod
    def _folder_or_bucket(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected a folder, such as ./state, or the URL of a bucket")
        if is_misspelt(value):
            raise ValueError("expected s3://bucket/prefix, gs://… or az://container/prefix")
        if "://" not in value:
            return value
        try:
            return checked_url(value)
        except ConfigError as error:
            # Pydantic names the setting of a ValueError, and lets other errors through.
            raise ValueError(str(error)) from None

    @property
    def state_url(self) -> str | None:
        """URL of the bucket of the state, or None where the state is a folder."""
        return self.state if is_bucket(self.state) else None

    @cached_property
    def state_path(self) -> Path:
        """Folder of releases, event log and caches; with a bucket, this machine's part of the state."""
        if self.state_url is None:
            # Absolute, so that it outlives a change of the working directory.
            return (self.base / self.state).resolve()
        chosen = os.environ.get(STATE_VARIABLE)
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", self.state_url)  # a file name has no slash
        # Two URLs may give one name; the hash tells their folders apart.
        mark = hashlib.sha256(self.state_url.encode()).hexdigest()[:8]
        return (Path(chosen) if chosen else Path(home) / "nextedge").resolve() / f"{name}-{mark}"

    @property
    def text_model_path(self) -> Path | None:
        """Folder of the text model, or None."""
        model = self.features.text_model
        return None if model is None else (self.base / model).resolve()

    def surface(self, name: str) -> SurfaceConfig:
        """Settings of one surface; raises UnknownSurfaceError with the valid names."""
        try:
            return self.surfaces[name]
        except KeyError:
            raise UnknownSurfaceError(
                f"no surface {name!r}; {nearest(name, self.surfaces)}"
            ) from None
