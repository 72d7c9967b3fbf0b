"""Which coin, and why: the order of what decides, and contradictions."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector import algorithms, coins, pools, tables, wallets
from detector.coins import Basis, decide
from detector.evidence import Connection, Contact

XMR = "44AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A"
BTC = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"
DOGE = "DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L"
RAVEN_OR_VERUS = "RE9v8tCKiALVmkWbirTKc5cZpSJtuXswJ8"
EVM = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"


def told(algorithm=None, named=None, accounts=(), listed=(), exchange=False, at_port=()):
    made = decide(algorithm, named, tuple(accounts), tuple(listed), exchange, tuple(at_port))
    return made.coin, made.basis, made.paid


def test_an_algorithm_of_one_coin_decides_alone():
    assert told("autolykos2", "ERG", [BTC], ["KAS"]) == ("ERG", Basis.ALGORITHM, ("BTC",))


def test_what_the_job_names_comes_next():
    assert told("rx/0", "ZEPH", [], ["XMR"]) == ("ZEPH", Basis.JOB, ())


def test_a_verified_wallet_decides_among_the_coins_of_the_algorithm():
    assert told("rx/0", None, [XMR], ["ZEPH"]) == ("XMR", Basis.WALLET, ())
    assert "checksum verified" in decide("rx/0", None, (XMR,), (), False).why


def test_an_address_of_many_coins_is_told_by_the_algorithm():
    assert told("kawpow", None, [RAVEN_OR_VERUS]) == ("RVN", Basis.WALLET, ())
    assert told("ethash", None, [EVM]) == (None, Basis.NOTHING, ())


def test_a_wallet_without_a_checksum_says_so():
    key = "fbe49d8f84cd76a0a967a5564861bdc54fa1b60f871d81cd9cc694790a869e8d"
    made = decide("fishhash", None, (key,), (), False)
    assert (made.coin, made.basis) == ("IRON", Basis.WALLET)
    assert "form alone" in made.why
    made = decide("ethash", None, (EVM,), ("ETC",), False)
    assert (made.coin, made.basis) == ("ETC", Basis.ENDPOINT)


def test_the_endpoint_decides_last_and_only_among_what_the_algorithm_mines():
    assert told("sha256d", None, ["account.1"], ["BCH"]) == ("BCH", Basis.ENDPOINT, ())
    assert told("scrypt", None, [], ["BTC", "LTC"]) == ("LTC", Basis.ENDPOINT, ())
    assert told("scrypt", None, [], ["LTC", "DOGE"]) == (None, Basis.NOTHING, ())
    assert told("scrypt", None, [], ["BTC"]) == (None, Basis.NOTHING, ())
    assert told(None, None, [], ["MULTI"]) == (None, Basis.NOTHING, ())


MANY = ("HUSH", "KMD", "VRSC", "YEC", "ZEC", "ZEN")


def at(operator, port, listed, algorithm=None, weak=False):
    """What a contact with such an endpoint decides, beside a session of the algorithm."""
    client, server = (bytes(16), 40000), (bytes(15) + b"\1", port)
    contact = Contact(
        subscriber=client[0], connection=Connection(client, server, 6), client=client, server=server,
        role="miner", operator=operator, coins=tuple(listed), weak=weak,
    )  # fmt: skip
    facts = None if algorithm is None else SimpleNamespace(algorithm=algorithm, coin=None, wallets=())
    return coins.of(facts, contact)


@pytest.mark.parametrize(
    ("operator", "port", "listed", "algorithm", "coin"),
    [
        ("LuckPool", 3956, MANY, None, "VRSC"),
        ("luckpool", 3856, MANY, "equihash/200,9", "KMD"),
        ("Nanopool", 10300, ("MULTI",), None, "XMR"),
        ("HeroMiners", 1140, (), "kawpow", "RVN"),
        ("2Miners", 6060, ("MULTI",), None, None),  # several coins share the port
        ("2Miners", 1010, ("MULTI",), "equihash/200,9", "ZEC"),  # which the algorithm tells apart
        ("2Miners", 1010, ("MULTI",), "rx/0", None),
        ("LuckPool", 3333, MANY, None, None),  # a port that the table does not have
        ("Nanopool", 3956, ("MULTI",), None, None),  # another operator's port
        (None, 10300, ("MULTI",), None, None),  # a port alone says nothing
        ("LuckPool", 3956, ("KMD", "ZEC"), None, None),  # listing and port contradict each other
        ("LuckPool", 3956, MANY, "kawpow", None),
        ("Nanopool", 10300, ("ETC",), None, "ETC"),  # where the listing is clear, it stands
        ("NiceHash", 10300, ("MULTI",), None, None),
    ],
)
def test_the_port_tells_the_coin_of_a_pool_that_serves_many(operator, port, listed, algorithm, coin):
    made = at(operator, port, listed, algorithm)
    assert made.coin == coin
    assert made.basis is (Basis.NOTHING if coin is None else Basis.ENDPOINT)
    assert made.why


def test_the_port_is_the_reason_that_is_given_and_a_weak_endpoint_has_none():
    assert "port" in at("LuckPool", 3956, MANY).why
    assert "port" not in at("Nanopool", 10300, ("ETC",)).why
    assert at("LuckPool", 3956, MANY, weak=True).coin is None


def test_a_wallet_goes_before_the_port():
    assert told("rx/0", None, [XMR], ["MULTI"], at_port=["ZEPH"]) == ("XMR", Basis.WALLET, ())
    assert told(None, None, [XMR], ["MULTI"], at_port=["XMR"]) == ("XMR", Basis.WALLET, ())


def test_the_table_of_ports_names_operators_of_the_pool_table_and_ports():
    known = {row.operator for row in pools.shipped()}
    known |= {"Binance Pool", "CrazyPool", "EMCD", "MintPond", "WoolyPooly"}  # of lists of an operator's own
    for row in tables.rows("pool_ports", "operator", coins.Operator):
        assert row.id in known, row.id
        for port, served in row.ports.items():
            assert 0 < int(port) < 1 << 16
            assert served
            assert len(set(served)) == len(served)
            assert "MULTI" not in served


def test_a_wallet_that_the_algorithm_cannot_mine_is_what_is_paid():
    assert told("ethash", None, [BTC]) == (None, Basis.NOTHING, ("BTC",))
    assert told("ethash", None, [BTC], ["BTC"]) == (None, Basis.NOTHING, ("BTC",))
    assert told("octopus", "CFX", [BTC]) == ("CFX", Basis.ALGORITHM, ("BTC",))


def test_a_pool_that_exchanges_names_no_coin_by_wallet_or_listing():
    assert told("sha256d", None, [BTC], ["BTC"], exchange=True) == (None, Basis.NOTHING, ("BTC",))
    assert told("rx/0", None, [f"DOGE:{DOGE}.rig"]) == (None, Basis.NOTHING, ("DOGE",))
    assert told("kawpow", None, [f"RVN:{RAVEN_OR_VERUS}"]) == (None, Basis.NOTHING, ("RVN",))


def test_without_an_algorithm_the_wallet_needs_the_endpoint_to_agree():
    assert told(None, None, [XMR]) == (None, Basis.NOTHING, ())
    assert told(None, None, [XMR], ["XMR", "ZEPH"]) == ("XMR", Basis.WALLET, ())


def test_wallets_that_disagree_decide_nothing():
    assert told("scrypt", None, [DOGE, "LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1"]) == (None, Basis.NOTHING, ())


@pytest.mark.parametrize(
    ("operator", "name", "does"),
    [
        ("NiceHash", None, True),
        (None, "randomxmonero.auto.nicehash.com", True),
        ("unMineable", None, True),
        ("HashVault", "pool.hashvault.pro", False),
        (None, "notnicehash.com", False),
        (None, None, False),
    ],
)
def test_pools_that_exchange_are_known_by_operator_or_name(operator, name, does):
    assert coins.exchanges(operator, name) is does


def test_the_table_names_algorithms_that_are_there_and_every_wallet_coin_is_known():
    for row in tables.rows("coins", "coin", coins.Coin):
        assert row.algorithms
        assert set(row.algorithms) <= set(algorithms.load()), row.id
    for form in wallets.load().values():
        for coin in form.coins:
            known = [coins.can_mine(a, coin) for a in algorithms.load()]
            # Coins whose algorithm nobody measures have no row to be held against.
            assert any(known) or coin in {"DERO", "XCH", "QUBIC", "NIM", "DCR", "TON", "WOW"}, coin


ANY = st.one_of(st.none(), st.sampled_from(sorted(algorithms.load())))
ACCOUNTS = st.lists(st.one_of(st.text(max_size=40), st.sampled_from([XMR, BTC, DOGE, EVM])), max_size=3)
COINS = st.lists(st.sampled_from(["BTC", "XMR", "LTC", "MULTI", "NOBODY"]), max_size=3, unique=True)


@given(ANY, st.sampled_from([None, "XMR"]), ACCOUNTS, COINS, st.booleans(), COINS)
def test_a_coin_is_never_one_that_the_algorithm_cannot_mine(
    algorithm, named, accounts, listed, exchange, at_port
):
    made = decide(algorithm, named, tuple(accounts), tuple(listed), exchange, tuple(at_port))
    assert (made.coin is None) == (made.basis is Basis.NOTHING)
    assert made.why
    if named is None and made.coin is not None and algorithm is not None:
        assert coins.can_mine(algorithm, made.coin) is not False
    assert made.coin not in made.paid
