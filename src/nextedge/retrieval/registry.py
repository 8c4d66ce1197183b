"""Every candidate source by name, and the check of their settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from nextedge.config import Options, SourceConfig, SurfaceConfig, parse_options
from nextedge.discovery import discover, path_of
from nextedge.errors import ConfigError, PluginError, nearest
from nextedge.graph.scope import Scope
from nextedge.graph.snapshot import relation_of
from nextedge.models.model import model_classes
from nextedge.retrieval.model_source import ModelSource, source_of
from nextedge.retrieval.source import Source

SourceClass = type[Source[Any]]


def source_classes() -> dict[str, SourceClass]:
    """All sources by name: of ``nextedge.retrieval``, of models and of plug-ins."""
    sources = discover(Source, "nextedge.retrieval", "nextedge.sources")  # type: ignore[type-abstract]
    classes = {name: cls for name, cls in sources.items() if not issubclass(cls, ModelSource)}
    for name, model in model_classes().items():
        if name in classes:
            raise PluginError(
                f"the model {path_of(model)} and the source {path_of(classes[name])} are both "
                f"named {name!r}; rename one"
            )
        classes[name] = source_of(model)
    return dict(sorted(classes.items()))  # not as plug-ins load


def enabled_sources(scope: Scope, surface: SurfaceConfig) -> dict[str, SourceClass]:
    """Sources that are enabled, apply to the relation and have the tables that they read."""
    return {
        name: cls
        for name, cls in source_classes().items()
        if scope.relation in cls.relations
        and (surface.sources[name].enabled if name in surface.sources else cls.enabled)
        and cls.usable(scope)
    }


def source_config(surface: SurfaceConfig, cls: type[Source[Options]]) -> Options:
    """Return the settings of a source; raises ConfigError if one is unknown or invalid."""
    options = surface.sources.get(cls.name, SourceConfig()).options
    config_class = cast(type[Options], cls.config_class)
    return parse_options(config_class, options, f"options of source {cls.name!r}")


def source_faults(surface: SurfaceConfig) -> Iterator[str]:
    """Messages on the sources that a surface names: unknown, inapplicable, with wrong options."""
    classes, relation = source_classes(), relation_of(surface)
    applicable = [name for name, cls in classes.items() if relation in cls.relations]
    for name, setting in surface.sources.items():
        if name not in classes:
            yield f"{name}: no source {name!r}; {nearest(name, applicable)}"
        # A source that is switched off does no harm, whatever its relation.
        elif setting.enabled and name not in applicable:
            yield (
                f"{name}: the source {name!r} does not recommend {surface.kind}; "
                f"valid: {', '.join(applicable)}"
            )
        else:
            try:
                parse_options(classes[name].config_class, setting.options, f"{name}.options")
            except ConfigError as error:
                yield from str(error).split("\n")
