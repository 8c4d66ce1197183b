"""Every setting of ``nextedge.toml``, read from its pydantic models: name, type, default, description."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", Any: "any value"}
_NAMES = {"surfaces": "people", "sources": "two_hop", "contexts": "mobile"}
"""Of each table that has one section for each name: the name that stands for all."""


@dataclass(frozen=True)
class Setting:
    """One setting: ``type`` says what values are valid, ``default`` is None where it is unset."""

    name: str
    type: str
    default: Any
    description: str


@dataclass(frozen=True)
class Section:
    """A table of ``nextedge.toml`` such as ``surfaces.people.ranker``, and its own settings."""

    path: tuple[str, ...]
    description: str
    settings: tuple[Setting, ...]

    @property
    def name(self) -> str:
        """The path as TOML writes it, empty for the top of the file."""
        return ".".join(self.path)


def sections(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Section]:
    """The section of a model, then those below it; a table with free names has one example."""
    texts = _attribute_docstrings(model)
    own, below = [], []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        nested = get_args(annotation)[-1] if get_origin(annotation) is dict else annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            example = () if nested is annotation else (_NAMES[name],)
            below.append((nested, (*path, name, *example)))
        elif (*path, name) != ("base",):  # no setting, but the folder of the file
            required = field.is_required()
            default = None if required else field.get_default(call_default_factory=True)
            valid = _type_of(annotation, field.metadata)
            own.append(Setting(name, valid, default, texts.get(name, "")))
    yield Section(path, inspect.cleandoc(model.__doc__ or ""), tuple(own))
    for nested, place in below:
        if "contexts" not in path:  # a context's policy has the settings of the surface's
            yield from sections(nested, place)


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{name} = {toml_value(each)}" for name, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(each) for each in value)}]"
    return json.dumps(value, ensure_ascii=False)


def _type_of(annotation: Any, metadata: list[Any]) -> str:
    """The valid values in words, such as ``number ≥ 0, ≤ 1``."""
    origin, parts = get_origin(annotation), get_args(annotation)
    bounds = [
        f"{sign} {bound:g}"
        for part in metadata
        for name, sign in _BOUNDS.items()
        if isinstance(bound := getattr(part, name, None), int | float)
    ]
    limits = f" {', '.join(bounds)}" if bounds else ""
    if annotation in _WORDS:
        return _WORDS[annotation] + limits
    if origin is Annotated:
        return _type_of(parts[0], [bound for part in parts[1:] for bound in part.metadata])
    if origin is Literal:
        return ", ".join(f'"{value}"' for value in parts)
    if origin is tuple:
        return f"list of {_type_of(parts[0], [])}"
    if origin is dict:
        return f"table of {_type_of(parts[1], [])}"
    kinds = [_type_of(part, []) for part in parts if part is not type(None)]
    return " or ".join(kinds) + limits


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string below each attribute of a class and of its bases."""
    texts: dict[str, str] = {}
    # Bases first: a class overrides their texts.
    for cls in reversed(model.__mro__):
        texts |= _docstrings_of_module(cls.__module__).get(cls.__name__, {})
    return texts


@cache  # a module has several settings classes
def _docstrings_of_module(name: str) -> dict[str, dict[str, str]]:
    """Of each class of a module: the string below each annotated attribute."""
    # pydantic's use_attribute_docstrings does the same at import, which every command would pay
    if not name.startswith("nextedge."):  # bases of pydantic have no settings
        return {}
    tree = ast.parse(inspect.getsource(import_module(name)))
    return {
        cls.name: {
            node.target.id: " ".join(after.value.value.split())
            for node, after in pairwise(cls.body)
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        }
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
    }
