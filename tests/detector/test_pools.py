"""The pool table: its rows, look-ups, imports."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector import poolfiles, pools
from detector.errors import ConfigError
from detector.poolnames import COLUMNS, Names, Pool, is_name, parse, plain
from detector.pools import Pools, read

SHIPPED = Pools(pools.shipped())
HEADER = ",".join(COLUMNS)


def row(**cells):
    base = dict.fromkeys(COLUMNS, "") | {"operator": "Op", "domain": "pool.example", "match": "exact"}
    return parse(base | {k: str(v) for k, v in cells.items()})


def line(**cells):
    base = dict.fromkeys(COLUMNS, "") | {"operator": "Op", "domain": "pool.example", "match": "exact"}
    return ",".join((base | cells).values())


def test_the_shipped_rows_are_unique_permissive_and_lower_case():
    keys = [(r.domain, r.match) for r in SHIPPED.rows]
    assert len(keys) == len(set(keys)) > 1000
    assert {r.basis for r in SHIPPED.rows} == {"listed-permissive"}
    assert all(r.domain == plain(r.domain) and is_name(r.domain) for r in SHIPPED.rows)


@pytest.mark.parametrize("given_row", SHIPPED.rows, ids=lambda r: f"{r.match}-{r.domain}")
def test_every_shipped_row_is_found_by_its_name(given_row):
    found = SHIPPED.find(given_row.domain.upper() + ".")
    assert found is not None
    assert found.domain == given_row.domain
    if given_row.match == "suffix":
        assert SHIPPED.find("no-such-host." + given_row.domain) is not None
    cells = ",".join(f'"{cell}"' for cell in given_row.line())
    assert read([HEADER, cells], "x") == [given_row]


def test_every_shipped_source_is_named_in_the_notice():
    notice = (Path(pools.__file__).parent / "tables" / "POOLS-NOTICE.md").read_text()
    other = {"rainbowminer", "rainbowminer-history", "stratumstats", "ethminer", "public-code", "nbminer",
             "turtlecoin-pools", "t-rex", "xmrig", "esp-miner"}  # fmt: skip
    listed = {s.partition("@")[0] for r in SHIPPED.rows for s in r.source.split(";")}
    assert {s for s in listed - other if f"`{s}`" not in notice} == set()
    assert not [r for r in SHIPPED.rows if {s.partition("@")[0] for s in r.source.split(";")} <= other]


def test_no_shipped_row_is_the_parent_of_strangers():
    assert not [p for p in SHIPPED.check() if "parent" in p.problem]


LABELS = st.sampled_from(["a", "b", "pool", "xpool", "com", "net", "ex"])
NAME = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@given(st.lists(st.tuples(NAME, st.sampled_from(["exact", "suffix"])), max_size=12), NAME)
def test_look_up_agrees_with_the_plain_twin(listed, name):
    rows = [Pool(operator="o", domain=d, match=m) for d, m in listed]
    exact = [d for d, m in listed if m == "exact" and d == name]
    under = [d for d, m in listed if m == "suffix" and (name == d or name.endswith("." + d))]
    found = Names(rows).find(name.upper() + ".")
    want = exact[0] if exact else max(under, key=len, default=None)
    assert (found and found.domain) == want


@given(st.text(max_size=300))
def test_any_name_is_looked_up(name):
    assert SHIPPED.find(name) is None or plain(name).endswith(SHIPPED.find(name).domain)


def test_rows_of_one_name_are_told_as_one_and_the_operators_comes_first():
    own = row(operator="Mine", ports="3333", coins="XMR")
    listed = row(operator="Theirs", ports="4444;3333", tls_ports="443", coins="BTC;XMR", fp_risk="cdn")
    found = Pools([own, listed]).find("pool.example")
    assert (found.operator, found.ports, found.tls_ports) == ("Mine", (3333, 4444), (443,))
    assert (found.coins, found.fp_risk, found.all_ports) == (("XMR", "BTC"), "cdn", (443, 3333, 4444))
    assert [p.problem for p in Pools([own, listed]).check() if "rows" in p.problem] == ["2 rows (exact)"]


def test_ports_are_those_of_all_rows_but_never_that_of_dns():
    made = Pools([row(ports="53;3333"), row(domain="b.example", tls_ports="443")])
    assert made.pool_ports == {3333, 443}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"domain": "nodots"}, "domain"),
        ({"domain": "under_score..com"}, "domain"),
        ({"domain": ""}, "domain"),
        ({"ports": "3333;x"}, "ports: 'x' is not a port"),
        ({"ports": "0"}, "ports"),
        ({"tls_ports": "65536"}, "tls_ports"),
        ({"match": "glob"}, "match"),
        ({"kind": "casino"}, "kind"),
        ({"status": "dead"}, "status"),
        ({"fp_risk": "some"}, "fp_risk"),
        ({"domain": "192.0.2.1", "match": "suffix"}, "address"),
        ({"coins": "\x01"}, "coins"),
    ],
)
def test_a_broken_row_is_refused_with_file_and_line(cells, said):
    with pytest.raises(ConfigError, match=r"own\.csv, line 3: ") as caught:
        read([HEADER, line(), line(**cells)], "own.csv")
    assert said in str(caught.value)


@pytest.mark.parametrize("lines", [[], ["operator,domain"], [HEADER, "a,b"], [HEADER, '"a']])
def test_a_file_that_is_no_table_is_refused(lines):
    with pytest.raises(ConfigError, match=r"own\.csv, line [12]: "):
        read(lines, "own.csv")


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text):
    for lines in (text.splitlines(), [HEADER, *text.splitlines()]):
        with suppress(ConfigError):
            assert all(is_name(r.domain) for r in read(lines, "x"))


def test_an_import_merges_drops_repeats_and_is_all_or_nothing(tmp_path):
    source, target = tmp_path / "new.csv", tmp_path / "deep" / "own.csv"
    source.write_text("\n".join([HEADER, line(), line(), line(domain="b.example", ports="3333")]) + "\n")
    done = poolfiles.import_file(source, target)
    assert (done.read, done.added, done.total) == (3, 2, 2)
    again = poolfiles.import_file(source, target)
    assert (again.added, again.total) == (0, 2)
    before = target.read_text()
    source.write_text("\n".join([HEADER, line(domain="c.example"), line(ports="x")]))
    with pytest.raises(ConfigError, match=r"new\.csv, line 3"):
        poolfiles.import_file(source, target)
    assert target.read_text() == before
    assert [p.name for p in target.parent.iterdir()] == ["own.csv"]


def test_files_that_are_absent_or_no_text_are_the_operators_mistake(tmp_path):
    (tmp_path / "raw").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", tmp_path / "raw", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            poolfiles.load([path])


def test_several_files_are_one_table(tmp_path):
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.csv")
        rows = [HEADER] + [line(domain=f"h{j}.p{i}.example", ports="3333;4444") for j in range(1000)]
        paths[-1].write_text("\n".join(rows))
    made = poolfiles.load(paths)
    assert made.counts["rows"] == 3000 + len(SHIPPED.rows)


def test_the_digest_is_of_the_rows_and_not_of_their_order():
    a, b = row(), row(domain="b.example")
    assert Pools([a, b]).digest == Pools([b, a, a]).digest != Pools([a]).digest


def test_rows_are_chosen_by_coin_and_operator_and_printed():
    chosen = SHIPPED.select(coin="xmr", operator="supportxmr")
    assert chosen
    assert {r.operator for r in chosen} == {"SupportXMR"}
    told = SHIPPED.table(chosen)
    assert told[0].startswith("operator")
    assert len(told) == len(chosen) + 1


def test_only_names_in_use_with_a_port_are_looked_up():
    for r in SHIPPED.resolvable():
        assert (r.match, r.status) == ("exact", "active")
        assert r.all_ports
        assert r.kind != "browser-miner"


def test_a_row_that_is_an_address_is_an_endpoint_without_a_look_up():
    (entry,) = Pools([row(domain="84.32.220.219", ports="9000", coins="PRL")]).listed()
    assert (entry.port, entry.origin, entry.expires_ns) == (9000, "listed", None)


def test_a_parent_of_strangers_is_a_problem():
    made = Pools([row(domain="mooo.com", match="suffix"), row(domain="ddns.net"), row(domain="co.uk")])
    assert len([p for p in made.check() if "parent" in p.problem]) == 3
