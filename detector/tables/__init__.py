"""Declared knowledge, and the loader that refuses a malformed row by name."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import TypeVar

import msgspec

Row = TypeVar("Row", bound=msgspec.Struct)


@cache
def _read(name: str) -> dict[str, list[dict[str, object]]]:
    return tomllib.loads((files(__package__) / f"{name}.toml").read_text("utf-8"))


def rows(table: str, key: str, row: type[Row]) -> tuple[Row, ...]:
    """The rows ``[[key]]`` of ``tables/<table>.toml``.

    Raises ValueError, with table and row, on an unknown or ill-typed field and on an id given twice:
    the tables ship with the program, so that is our own mistake.
    """
    out: dict[str, Row] = {}
    for number, raw in enumerate(_read(table).get(key, ())):
        try:
            made = msgspec.convert(raw, row)
        except msgspec.ValidationError as error:
            raise ValueError(f"{table}.toml, {key} {number} ({raw.get('id')}): {error}") from None
        name: str = made.id  # type: ignore[attr-defined]
        if name in out:
            raise ValueError(f"{table}.toml: {key} {name!r} is there twice")
        out[name] = made
    return tuple(out.values())
