"""Parse a Kafka URL: brokers, topic, and settings of librdkafka."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from nextedge.errors import ConfigError

DEAD_LETTERS = ".dead-letters"  # suffix of the topic of a topic's dead letters
_TOPIC = re.compile(rf"[A-Za-z0-9._-]{{1,{249 - len(DEAD_LETTERS)}}}")
_BOTH = tuple(
    "broker. client. enable.ssl. metadata. reconnect. sasl. security. socket. ssl.".split()
)
_PRODUCER = tuple(
    "batch. compression. delivery.timeout.ms linger.ms message.max.bytes queue.buffering.".split()
)
_CONSUMER = tuple(
    "fetch. heartbeat.interval.ms isolation.level max.partition.fetch.bytes max.poll.interval.ms "
    "queued. session.timeout.ms".split()
)
_SECRET = re.compile(r"password|secret|\.pem$|sasl\.jaas|sasl\.oauthbearer\.config")
_FROM_ENVIRONMENT = ".env"

Settings = Mapping[str, str | int | bool]


@dataclass(frozen=True)
class KafkaAddress:
    """A topic of a cluster; ``producer`` and ``consumer`` are settings of librdkafka."""

    public_url: str  # without credentials and options, so that messages may print it
    topic: str
    producer: Settings = field(repr=False)
    consumer: Settings = field(repr=False)

    @property
    def dead_letters(self) -> str:
        """Name of the topic for dead letters."""
        return self.topic + DEAD_LETTERS


def parse_address(url: str, tenant: str) -> KafkaAddress:
    """Parse ``kafka://user:password@host:9092,host2:9092/topic?option=value``.

    The topic is the tenant's own: ``{tenant}`` in it is replaced, and without one it is
    ``nextedge-{tenant}``.

    Raises:
        ConfigError: there is no host, the topic's name or an option is invalid, or an option has a
            secret as its value; the message has no credentials.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(
            "kafka: the URL cannot be read; expected kafka://host:9092/topic"
        ) from None
    credentials, _, hosts = parts.netloc.rpartition("@")
    topic = unquote(parts.path).strip("/") or "nextedge-{tenant}"
    topic = topic.replace("{tenant}", tenant)
    public_url = f"kafka://{hosts}/{topic}"
    if not all(
        re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[^:\[\]]+)(:\d{1,5})?", host) for host in hosts.split(",")
    ):
        raise ConfigError(f"{public_url}: expected kafka://host:9092,host2:9092/topic")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise ConfigError(
            f"{public_url}: a topic's name has 1 to {249 - len(DEAD_LETTERS)} of letters, digits, "
            "'.', '_' and '-'"
        )
    both, producer, consumer = _options(parse_qsl(parts.query, keep_blank_values=True), public_url)
    both = {"bootstrap.servers": hosts, **_login(credentials), **both}
    return KafkaAddress(public_url, topic, {**both, **producer}, {**both, **consumer})


def _login(credentials: str) -> dict[str, str]:
    if not credentials:
        return {}
    name, _, password = credentials.partition(":")
    return {
        "security.protocol": "SASL_SSL",  # a password never leaves in the clear by default
        "sasl.mechanisms": "PLAIN",
        "sasl.username": unquote(name),
        "sasl.password": unquote(password),
    }


def _options(
    options: list[tuple[str, str]], public_url: str
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Options of all clients, of producers and of consumers."""
    settings: dict[tuple[str, ...], dict[str, str]] = {_BOTH: {}, _PRODUCER: {}, _CONSUMER: {}}
    for option, value in options:
        name = option.removesuffix(_FROM_ENVIRONMENT)
        if name != option:
            value = _from_environment(option, value, public_url)
        elif _SECRET.search(name):
            raise ConfigError(
                f"{public_url}: {name} is a secret; name an environment variable that holds it: "
                f"?{name}{_FROM_ENVIRONMENT}=KAFKA_SECRET"
            )
        name = "sasl.mechanisms" if name == "sasl.mechanism" else name
        prefixes = next((group for group in settings if name.startswith(group)), None)
        if prefixes is None:
            known = ", ".join(sorted(_BOTH + _PRODUCER + _CONSUMER))
            raise ConfigError(
                f"{public_url}: {name!r} is no option here; options begin with: {known}"
            )
        settings[prefixes][name] = value
    return settings[_BOTH], settings[_PRODUCER], settings[_CONSUMER]


def _from_environment(option: str, variable: str, public_url: str) -> str:
    value = os.environ.get(variable)
    if value is None:
        raise ConfigError(f"{public_url}: {option}: the environment has no variable {variable!r}")
    return value
