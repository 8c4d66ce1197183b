"""The contract of a policy rule, and every rule by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

from nextedge.config import Configurable, PolicyConfig, Settings, parse_options
from nextedge.discovery import discover
from nextedge.errors import ConfigError, nearest
from nextedge.graph.scope import Scope
from nextedge.policy.lists import Lists


class NoConfig(Settings):
    """Settings of a rule that has none."""


RuleConfig = TypeVar("RuleConfig", bound=Settings)


class Rule(ABC, Configurable[RuleConfig], Generic[RuleConfig]):
    """One rule of the policy, which changes the ranked candidates or the chosen lists.

    A new rule is one file in ``nextedge.policy.rules``, or in a package that offers it by the
    entry point group ``nextedge.rules``: a subclass with a ``name``, whose type parameter is the
    class of its settings. It runs where ``policy.rules`` of the configuration names it.

    Args:
        settings: the policy.
        config: the rule's own settings, ``policy.rules.NAME``.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    """Rules run by ascending order: freshness 10, diversity 20, caps 30 (which chooses k of each
    query), promotions 40, exploration 50, backfill 60. Exclusions and filters come before all."""

    def __init__(self, scope: Scope, settings: PolicyConfig, config: RuleConfig) -> None:
        self.scope = scope
        self.settings = settings
        self.config = config

    @classmethod
    def active(cls, settings: PolicyConfig) -> bool:
        """Whether the rule runs."""
        return cls.name in settings.rules

    @abstractmethod
    def apply(self, lists: Lists) -> Lists:
        """Return the lists after this rule; those that it is given are not changed."""

    @classmethod
    def built_in(cls) -> bool:
        """Whether the rule is part of NextEdge."""
        return cls.__module__.startswith("nextedge.policy.")


def rule_classes() -> list[type[Rule[Any]]]:
    """Every rule in the order in which they run: those of NextEdge and those of plug-ins."""
    classes = discover(Rule, "nextedge.policy.rules", "nextedge.rules")  # type: ignore[type-abstract]
    return sorted(classes.values(), key=lambda cls: (cls.order, cls.name))  # not as plug-ins load


def active_rules(scope: Scope, settings: PolicyConfig) -> list[Rule[Any]]:
    """The rules that a policy switches on, in their order; raises ConfigError on a wrong name."""
    for fault in rule_faults(settings):
        raise ConfigError(f"policy.rules.{fault}")
    return [
        cls(scope, settings, cls.config_class.model_validate(settings.rules.get(cls.name, {})))
        for cls in rule_classes()
        if cls.active(settings)
    ]


def rule_faults(settings: PolicyConfig) -> Iterator[str]:
    """Faults of the rules that a policy names, each with the nearest valid name."""
    if not settings.rules:
        return
    # A built-in rule has settings of its own, and policy.rules cannot switch it on.
    classes = {cls.name: cls for cls in rule_classes() if not cls.built_in()}
    for name, options in settings.rules.items():
        if name not in classes:
            yield f"{name}: no rule {name!r}; {nearest(name, classes)}"
            continue
        try:
            parse_options(classes[name].config_class, options, name)
        except ConfigError as error:
            yield from str(error).split("\n")
