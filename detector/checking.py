"""What ``poolwatch check`` looks at beside what it builds: whom and what the configuration names, and
where it writes.  Nothing is made, opened or asked."""

import os
from ipaddress import ip_address
from pathlib import Path

from collectors import privileges
from detector import resolver
from detector.config import Config
from detector.errors import ConfigError


def check(config: Config) -> None:
    """Raises ConfigError, which names the key, on what else only a start would find."""
    capture = config.collectors.capture
    if capture.user:
        try:
            privileges.entry(capture.user)
        except ConfigError as error:
            raise ConfigError(f"collectors.capture.user: {error}") from None
    for text in config.collectors.packets.dns_resolvers:
        try:
            ip_address(text)
        except ValueError as error:
            raise ConfigError(f"collectors.packets.dns_resolvers: {error}") from None
    for text in config.resolver.servers:
        resolver.server(text)
    if capture.follow and not Path(capture.follow).is_dir():
        raise ConfigError(f"collectors.capture.follow: {capture.follow} is no folder")
    if config.output.jsonl:
        folder = Path(config.output.jsonl)
        try:
            for name in ("alerts", "incidents"):
                _writable(folder / f"{name}.jsonl")
        except OSError as error:
            raise ConfigError(f"output.jsonl: {error}") from None


def _writable(file: Path) -> None:
    """A file is appended to; where there is none, the folders above it are made."""
    if file.is_dir():
        raise ConfigError(f"output.jsonl: {file} is a folder")
    at = next(path for path in (file, *file.parents) if path.exists())
    if at != file and not at.is_dir():
        raise ConfigError(f"output.jsonl: {at} is no folder")
    if not os.access(at, os.W_OK if at == file else os.W_OK | os.X_OK):
        raise ConfigError(f"output.jsonl: no right to write in {at}")
