"""The collectors' sections of the configuration, and the reading of the one TOML file.

A file and the environment in, one frozen struct out; every mistake is a ConfigError that names its key.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from collectors.errors import ConfigError

Made = TypeVar("Made", bound=msgspec.Struct)

PREFIX = "POOLWATCH_"
# Variables that start like ours and are not keys: the kernel cache, and what tests and benchmarks use.
NOT_KEYS = ("CACHE_DIR", "CONFIG", "TEST_", "BENCH_")
# What msgspec says of a value that is none of a few, and where; not which they are.
_ENUM: Final = re.compile(r"Invalid enum value .* - at `\$\.([^`]+)`", re.S)


def parse(text: str, environment: Mapping[str, str], kind: type[Made], name: str) -> Made:
    """The configuration of ``text`` (TOML) with ``POOLWATCH_SECTION__KEY`` variables on top.

    Raises ConfigError on broken TOML, an unknown key (with a suggestion) or a value out of range.
    """
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name}: {error}") from None
    _known(tree, kind, name, ())
    _overlay(tree, environment, kind)
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {in_words(error, kind)}") from None


def in_words(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> str:
    """What is wrong with a ``kind``: the key, and of one that may be one of a few values which they are."""
    said = str(error).replace("`$.", "`")
    found = _ENUM.fullmatch(str(error))
    values = _values(kind, found[1].split(".")) if found else ()
    return f"{said}: must be {' or '.join(values)}" if values else said


def _values(hint: Any, path: list[str]) -> tuple[str, ...]:
    for part in path:
        section = _section(hint)
        if section is None:
            return ()
        hint = get_type_hints(section).get(part.partition("[")[0])
    return tuple(msgspec.json.encode(value).decode() for value in _literals(hint))


def _literals(hint: Any) -> Iterator[Any]:
    for inner in get_args(hint):
        if get_origin(hint) is Literal:
            yield inner
        else:
            yield from _literals(inner)


def _section(hint: Any) -> type[msgspec.Struct] | None:
    """The struct behind a field's type, None where it holds a plain value."""
    for option in (hint, *get_args(hint)):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option
    return None


def _known(tree: Mapping[str, Any], kind: type[msgspec.Struct], name: str, path: tuple[str, ...]) -> None:
    hints = get_type_hints(kind)
    for key, value in tree.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            where = ".".join((*path, key))
            hint = f", did you mean {'.'.join((*path, near[0]))!r}?" if near else ""
            raise ConfigError(f"{name}: unknown key {where!r}{hint}")
        section = _section(hints[key])
        if section is not None and isinstance(value, dict):
            _known(value, section, name, (*path, key))


def _overlay(tree: dict[str, Any], environment: Mapping[str, str], kind: type[msgspec.Struct]) -> None:
    for variable in sorted(v for v in environment if v.startswith(PREFIX)):
        rest = variable.removeprefix(PREFIX)
        if rest.startswith(NOT_KEYS):
            continue
        path = rest.lower().split("__")
        _known(_nested(path, None), kind, f"environment variable {variable}", ())
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"environment variable {variable}: {part!r} is not a section")
        node[path[-1]] = _value(environment[variable], _hint(kind, path))


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value


def _hint(kind: type[msgspec.Struct], path: list[str]) -> Any:
    for part in path[:-1]:
        section = _section(get_type_hints(kind)[part])
        if section is None:
            raise ConfigError(f"{part!r} is not a section")
        kind = section
    return get_type_hints(kind)[path[-1]]


def _value(text: str, hint: Any) -> Any:
    """A variable's text as a value: itself for a string, a comma list for a list, else as TOML says."""
    if hint is str:
        return text
    if get_origin(hint) is tuple and not text.lstrip().startswith("["):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return parts if get_args(hint)[0] is str else [_plain(part) for part in parts]
    return _plain(text)


def _plain(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
