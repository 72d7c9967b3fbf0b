"""The whole configuration: one TOML file, every key optional."""

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from collectors.config import parse
from collectors.importing.collector import Config as ImportConfig
from collectors.kafka.config import Config as KafkaConfig
from collectors.netflow.collector import Config as NetflowConfig
from collectors.packet.collector import Config as PacketConfig
from collectors.packet.sources import CaptureConfig, Name
from collectors.subscribers import DEFAULT_HOME
from detector.campaigns import Config as CampaignConfig
from detector.engine import Config as EngineConfig
from detector.errors import ConfigError
from detector.resolver import Config as ResolverConfig

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Collectors(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What feeds the bus."""

    packets: PacketConfig = PacketConfig()
    capture: CaptureConfig = CaptureConfig()
    netflow: NetflowConfig = NetflowConfig()
    imports: ImportConfig = ImportConfig()


class Embedded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bus inside one process."""

    partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    capacity: Positive = 4096


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where metrics and health are served."""

    listen: str = "127.0.0.1:9464"


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The all-in-one role: what it replays, and how fast; what it listens to.

    ``pace`` is how many seconds of the data go by in one second; 0 is as fast as possible.
    ``interfaces`` are captured on, instead of ``collectors.capture.interface``; ``udp`` is the address that
    receives exports, on ``collectors.netflow.ports``.  Empty: none.
    """

    replay: tuple[str, ...] = ("pcaps",)
    pace: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    interfaces: Annotated[tuple[Name, ...], msgspec.Meta(max_length=16)] = ()
    udp: str = ""


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where alerts and incidents are written; "" writes none.

    With ``redact`` worker names and wallets are a hash keyed by the content of ``redact_key_file``.
    """

    jsonl: str = ""
    redact: bool = False
    redact_key_file: str = ""


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files of the operator's own knowledge, read again on SIGHUP: places, pools beside (or instead of) the
    shipped ones, home networks (instead of ``home_networks``), and who is not to page."""

    places: str = ""
    home_networks: str = ""
    allow: str = ""
    maintenance: str = ""
    pools: tuple[str, ...] = ()
    shipped_pools: bool = True


class Alertmanager(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where incidents page; without ``urls`` nowhere.  Every one of them is told everything.

    A delivery that fails is tried again after ``retry_first_s``, twice that, and so on up to
    ``retry_most_s``, at most ``retries`` times; then when the alert is resent, after ``resend_s``, which must
    be well under Alertmanager's ``resolve_timeout``.  In ``dashboard_url`` and ``runbook_url``
    ``{alertname}``, ``{subscriber}`` and ``{incident}`` are filled in.
    """

    urls: tuple[str, ...] = ()
    replays: bool = False
    resend_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    retry_first_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.5
    retry_most_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 5.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 30
    batch: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    most_incidents: Positive = 50_000
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    site: str = ""
    dashboard_url: str = ""
    runbook_url: str = ""

    def __post_init__(self) -> None:
        if bool(self.username) != bool(self.password_file):
            raise ValueError("username and password_file go together")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that can be set.

    ``home_networks`` holds the subscribers' addresses; an empty list means: the client of each connection.
    ``subscriber_prefix_ipv6`` is how long a prefix one IPv6 subscriber has.
    ``bus`` is what carries the streams of ``collect`` and ``detect``; ``run`` and ``scan`` are one process.
    """

    home_networks: tuple[str, ...] = DEFAULT_HOME
    subscriber_prefix_ipv6: Annotated[int, msgspec.Meta(ge=1, le=128)] = 64
    collectors: Collectors = Collectors()
    bus: Literal["embedded", "kafka"] = "embedded"
    embedded: Embedded = Embedded()
    kafka: KafkaConfig = KafkaConfig()
    detector: EngineConfig = EngineConfig()
    http: Http = Http()
    run: Run = Run()
    output: Output = Output()
    lists: Lists = Lists()
    campaigns: CampaignConfig = CampaignConfig()
    alertmanager: Alertmanager = Alertmanager()
    resolver: ResolverConfig = ResolverConfig()


def load(path: str | None) -> Config:
    """Read the file (none given: ``$POOLWATCH_CONFIG``, else defaults) and the environment.

    Raises ConfigError on a file that cannot be read and on every mistake in it.
    """
    path = path or os.environ.get("POOLWATCH_CONFIG")
    text = ""
    if path:
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return parse(text, os.environ, Config, path or "configuration")


def as_toml(config: Config) -> str:
    """The merged configuration, ready to be a file."""
    lines: list[str] = []
    _section(msgspec.to_builtins(config), (), lines)
    return "\n".join(lines) + "\n"


def _section(tree: dict, path: tuple[str, ...], lines: list[str]) -> None:
    tables = {k: v for k, v in tree.items() if isinstance(v, list | tuple) and v and isinstance(v[0], dict)}
    plain = {k: v for k, v in tree.items() if not isinstance(v, dict) and k not in tables}
    if plain:
        lines += ([""] if lines else []) + ([f"[{'.'.join(path)}]"] if path else [])
        # A JSON string, number, list or boolean is also a TOML one.
        lines += [f"{k} = {msgspec.json.encode(v).decode()}" for k, v in plain.items()]
    for key, value in tree.items():
        if isinstance(value, dict):
            _section(value, (*path, key), lines)
    for key, rows in tables.items():
        for row in rows:
            lines += ["", f"[[{'.'.join((*path, key))}]]"]
            # TOML has no null: what is not given is left out.
            given = {k: v for k, v in row.items() if v is not None}
            lines += [f"{k} = {msgspec.json.encode(v).decode()}" for k, v in given.items()]
