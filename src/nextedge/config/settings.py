"""The base of all settings, and the messages about invalid ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from nextedge.errors import ConfigError, nearest

RENAMED_SETTINGS = {
    "others_drawn": "sampled_negatives",
    "best_kept": "top_negatives",
    "candidates_kept_an_hour": "cached_lists_per_hour",
    "exact_below": "exact_search_max_items",
    "neighbours": "neighbors",
}
"""Former name of a setting = its name; the message that refuses the former one gives the new one."""


class Settings(BaseModel):
    """Settings: frozen, unknown names refused."""

    # A misspelt setting would otherwise do nothing, without a word.
    model_config = ConfigDict(frozen=True, extra="forbid")


Options = TypeVar("Options", bound=Settings)


class Configurable(Generic[Options]):
    """A base of classes whose type parameter is the class of their settings."""

    config_class: ClassVar[type[Settings]] = Settings

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # Its own bases only: inherited ones would replace a config_class of the class body.
        for base in cls.__dict__.get("__orig_bases__", ()):
            for parameter in get_args(base):
                if isinstance(parameter, type) and issubclass(parameter, Settings):
                    cls.config_class = parameter


def parse_options(model: type[Options], options: Mapping[str, Any], where: str) -> Options:
    """Validate the options of a plug-in; no value is converted to another type.

    Raises:
        ConfigError: an option is unknown or invalid; names it, and the nearest valid one.
    """
    try:
        # As JSON, because a strict check of Python values refuses a list for a tuple.
        return model.model_validate_json(json.dumps(options, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError(describe(error, model, where)) from None


def describe(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Return one line for each fault, with the nearest valid name of an unknown setting."""
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{origin}: {_unknown_setting(where, fault['loc'], model)}")
        else:
            # A URL may hold a password, and messages are logged.
            given = re.sub(r"://[^/@'\"]*@", "://***@", repr(fault.get("input")))
            lines.append(f"{origin}: {where}: {fault['msg']} (given: {given})")
    return "\n".join(lines)


def _unknown_setting(where: str, location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    name, valid = str(location[-1]), _valid_names(location[:-1], root)
    if RENAMED_SETTINGS.get(name) in valid:
        return f"setting {where!r} is now named {RENAMED_SETTINGS[name]!r}; use that name"
    return f"unknown setting {where!r}; {nearest(name, valid)}"


def _valid_names(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Names of the settings that are valid at a location below a model."""
    model: Any = root
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        else:  # a mapping: the part is a key, its model the type of the values
            model = get_args(model)[-1]
    if isinstance(model, type) and issubclass(model, BaseModel):
        # The reader of the file sets base, not the file.
        return [name for name in model.model_fields if name != "base"]
    return []
