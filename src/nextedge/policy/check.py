"""The check of the settings that name sources and rules, of NextEdge or of other packages."""

from __future__ import annotations

from nextedge.config import Config
from nextedge.errors import ConfigError
from nextedge.policy.rule import rule_faults
from nextedge.retrieval.registry import source_faults


def check_plugins(config: Config) -> None:
    """Check that every source and every rule that is named exists, applies, and has valid settings.

    Raises:
        ConfigError: names every fault, with the nearest valid name.
    """
    faults = []
    for name, surface in config.surfaces.items():
        faults += [f"surfaces.{name}.sources.{fault}" for fault in source_faults(surface)]
        for context in (None, *surface.contexts):
            policy = surface.in_context(context)[1]
            faults += [f"surfaces.{name}.policy.rules.{fault}" for fault in rule_faults(policy)]
    if faults:
        raise ConfigError("\n".join(dict.fromkeys(faults)))  # contexts repeat the surface's faults
