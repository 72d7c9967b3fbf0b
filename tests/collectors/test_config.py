"""One file, the environment on top, and complaints by name."""

from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.config import parse
from collectors.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 2055
    name: str = "tap"
    networks: tuple[str, ...] = ("10.0.0.0/8",)
    ports: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    when: Literal["always", "never"] = "always"
    levels: tuple[Literal[1, 2], ...] = ()


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    inner: Inner = Inner()
    debug: bool = False
    rows: tuple[Row, ...] = ()
    one: Row | None = None


def read(text="", **environment):
    return parse(text, environment, Outer, "c.toml")


def test_the_empty_file_is_valid():
    assert read() == Outer()


def test_a_wrong_key_is_refused_by_name_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"c\.toml: unknown key 'inner.prot', did you mean 'inner.port'\?"):
        read("[inner]\nprot = 1")
    with pytest.raises(ConfigError, match=r"unknown key 'zzz'$"):
        read("zzz = 1")


def test_a_variable_may_list_numbers_between_commas():
    assert read(POOLWATCH_INNER__PORTS="2055, 4739,").inner.ports == (2055, 4739)
    assert read(POOLWATCH_INNER__PORTS="[6343]").inner.ports == (6343,)
    assert read(POOLWATCH_INNER__PORTS="6343").inner.ports == (6343,)
    assert read(POOLWATCH_INNER__NETWORKS="1,2").inner.networks == ("1", "2")
    for wrong in ("2055,x", "0", "2055;4739", "1.5"):
        with pytest.raises(ConfigError, match=r"inner.ports"):
            read(POOLWATCH_INNER__PORTS=wrong)


def test_a_value_out_of_range_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"Expected `int` >= 1 - at `inner.port`"):
        read("[inner]\nport = 0")
    with pytest.raises(ConfigError, match=r"Expected `int`, got `str` - at `inner.port`"):
        read('[inner]\nport = "x"')
    with pytest.raises(ConfigError, match=r"c\.toml: "):
        read("[inner\nport = 1")
    with pytest.raises(ConfigError, match=r"Expected `object`"):
        read("inner = 3")


def test_of_a_few_values_it_is_said_which_they_are():
    words = '"always" or "never"'
    with pytest.raises(ConfigError, match=rf"c\.toml: .*'x' - at `one.when`: must be {words}$"):
        read('one.when = "x"')
    with pytest.raises(ConfigError, match=rf"at `rows\[1\].when`: must be {words}$"):
        read('rows = [{}, {when = "a\\nb"}]')
    with pytest.raises(ConfigError, match=r"at `rows\[0\].levels\[1\]`: must be 1 or 2$"):
        read("rows = [{levels = [1, 3]}]")
    with pytest.raises(ConfigError, match=r"got `int` - at `one.when`$"):
        read("one.when = 1")


def test_the_environment_goes_on_top():
    got = read(
        "[inner]\nport = 7\nname = 'file'",
        POOLWATCH_INNER__PORT="9",
        POOLWATCH_INNER__NETWORKS="10.0.0.0/8, 127.0.0.0/8",
        POOLWATCH_DEBUG="true",
        POOLWATCH_CACHE_DIR="/x",
        POOLWATCH_TEST_KAFKA="h:1",
        HOME="/root",
    )
    assert got == Outer(inner=Inner(port=9, name="file", networks=("10.0.0.0/8", "127.0.0.0/8")), debug=True)
    assert read(POOLWATCH_INNER__NAME="5").inner.name == "5", "a string stays one"
    assert read(POOLWATCH_INNER__NETWORKS="").inner.networks == ()
    assert read(POOLWATCH_INNER__NETWORKS='["a"]').inner.networks == ("a",)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("POOLWATCH_INNER__PROT", "1", "POOLWATCH_INNER__PROT: unknown key 'inner.prot', did you mean"),
        ("POOLWATCH_INNER__PORT", "many", "Expected `int`"),
        ("POOLWATCH_DEBUG__MORE", "1", "'debug' is not a section"),
        ("POOLWATCH_INNER", "1", "Expected `object`"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(variable, value, words):
    with pytest.raises(ConfigError, match=words):
        read(**{variable: value})


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(read(text), Outer)
    except ConfigError:
        return
