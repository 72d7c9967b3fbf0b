"""A draw in, what wallets, explorers and their servers say out: Electrum, Ethereum, bitcoind, monerod.

Each table holds methods with their parameters and result.  All are harmless questions; a block template or a
piece of Ethereum work is asked for once at most, as explorers and scanners do.
"""

from collections.abc import Iterator

from draw import Draw, Line

METHODS = {
    "blockchain.scripthash.subscribe": lambda d: ([d.hash()], d.some(d.hash(), None)),
    "blockchain.scripthash.get_history": lambda d: ([d.hash()], history(d)),
    "blockchain.scripthash.get_balance": lambda d: (
        [d.hash()],
        {"confirmed": d.below(10**9), "unconfirmed": 0},
    ),
    "blockchain.scripthash.listunspent": lambda d: ([d.hash()], history(d)),
    "blockchain.scripthash.unsubscribe": lambda d: ([d.hash()], True),
    "blockchain.address.subscribe": lambda d: ([d.wallet()], d.some(d.hash(), None)),
    "blockchain.transaction.get": lambda d: ([d.hash()], d.hex(d.between(180, 900) * 2)),
    "blockchain.transaction.broadcast": lambda d: ([d.hex(450)], d.hash()),
    "blockchain.transaction.get_merkle": lambda d: ([d.hash(), d.height()], merkle(d)),
    "blockchain.block.header": lambda d: ([d.height()], d.hex(160)),
    "blockchain.block.headers": lambda d: (
        [d.height(), 3],
        {"count": 3, "hex": d.hex(480), "max": 2016},
    ),
    "blockchain.headers.subscribe": lambda d: ([], {"hex": d.hex(160), "height": d.height()}),
    "blockchain.estimatefee": lambda d: ([d.between(1, 25)], d.below(1000) / 1e7),
    "blockchain.relayfee": lambda d: ([], 1e-05),
    "mempool.get_fee_histogram": lambda d: (
        [],
        [[d.below(90), d.below(90000)] for _ in range(4)],
    ),
    "server.ping": lambda d: ([], None),
    "server.banner": lambda d: ([], f"welcome to {d.word()}: this is not a mining pool"),
    "server.features": lambda d: (
        [],
        {"genesis_hash": d.hash(), "hosts": {}, "hash_function": "sha256"},
    ),
    "server.peers.subscribe": lambda d: (
        [],
        [[d.address(), f"{d.word()}.example", ["v1.4", "t50001", "s50002"]]],
    ),
    "server.donation_address": lambda d: ([], d.wallet()),
}
ETHEREUM = {
    "eth_chainId": lambda d: ([], "0x1"),
    "net_version": lambda d: ([], "1"),
    "eth_blockNumber": lambda d: ([], d.quantity()),
    "eth_getBalance": lambda d: (["0x" + d.hex(40), "latest"], d.quantity()),
    "eth_call": lambda d: ([{"to": "0x" + d.hex(40), "data": "0x" + d.hex(72)}, "latest"], "0x" + d.hash()),
    "eth_gasPrice": lambda d: ([], d.quantity()),
    "eth_getTransactionCount": lambda d: (["0x" + d.hex(40), "pending"], d.quantity()),
    "eth_sendRawTransaction": lambda d: (["0x" + d.hex(220)], "0x" + d.hash()),
    "eth_getTransactionReceipt": lambda d: (
        ["0x" + d.hash()],
        {"blockHash": "0x" + d.hash(), "status": "0x1"},
    ),
    "eth_getLogs": lambda d: ([{"topics": ["0x" + d.hash()]}], [{"data": "0x" + d.hash()}]),
    "eth_getBlockByNumber": lambda d: (["latest", False], block(d)),
    "eth_mining": lambda d: ([], d.some(True, False)),
    "eth_hashrate": lambda d: ([], d.some("0x0", d.quantity())),
    "eth_coinbase": lambda d: ([], "0x" + d.hex(40)),
    "eth_syncing": lambda d: ([], False),
    "eth_feeHistory": lambda d: (["0x4", "latest", []], {"baseFeePerGas": [d.quantity(), d.quantity()]}),
    "eth_subscribe": lambda d: ([d.some("newHeads", "logs", "newPendingTransactions")], "0x" + d.hex(32)),
    "eth_accounts": lambda d: ([], ["0x" + d.hex(40)]),
    "web3_clientVersion": lambda d: ([], "Geth/v1.14.11-stable/linux-amd64/go1.23"),
}
NODE = {
    "getblockchaininfo": lambda d: ([], {"chain": "main", "bestblockhash": d.hash(), "difficulty": 9.2e13}),
    "getmininginfo": lambda d: (
        [],
        {"blocks": d.height(), "networkhashps": 7e20, "pooledtx": d.below(9000)},
    ),
    "getmempoolinfo": lambda d: ([], {"loaded": True, "size": d.below(90000), "mempoolminfee": 1e-05}),
    "getnetworkhashps": lambda d: ([120], d.below(10**9) * 1e12),
    "getblock": lambda d: (
        [d.hash(), 1],
        {"hash": d.hash(), "merkleroot": d.hash(), "nonce": d.below(2**32)},
    ),
    "getblockcount": lambda d: ([], d.height()),
    "getbestblockhash": lambda d: ([], d.hash()),
    "getrawtransaction": lambda d: ([d.hash()], d.hex(480)),
    "estimatesmartfee": lambda d: ([6], {"feerate": d.below(900) / 1e7, "blocks": 6}),
    "get_info": lambda d: (None, {"height": d.height(), "top_block_hash": d.hash(), "status": "OK"}),
    "get_block_count": lambda d: (None, {"count": d.height(), "status": "OK"}),
    "get_last_block_header": lambda d: (
        None,
        {
            "block_header": {"hash": d.hash(), "nonce": d.below(2**32), "difficulty": 512000000000},
            "status": "OK",
        },
    ),
    "get_fee_estimate": lambda d: ({"grace_blocks": 10}, {"fee": d.below(90000), "status": "OK"}),
    "mining_status": lambda d: (None, {"active": False, "speed": 0, "threads_count": 0, "status": "OK"}),
}
TEMPLATES = (
    lambda d: (
        "getblocktemplate",
        [{"rules": ["segwit"]}],
        {"version": 536870912, "previousblockhash": d.hash(), "target": d.hash(), "bits": d.hex(8)},
    ),
    lambda d: (
        "get_block_template",
        {"wallet_address": d.monero(), "reserve_size": 8},
        {"blocktemplate_blob": d.hex(400), "blockhashing_blob": d.hex(152), "difficulty": d.below(10**11)},
    ),
)
ERRORS = (
    'unknown method "mining.subscribe"',
    "unsupported method: mining.authorize",
    'invalid request {"method":"mining.submit","params":["x","y"]}',
    "method 'eth_submitLogin' not found; this is not a pool",
    "excessive resource usage",
    "daemon error: DaemonError({'code': -26, 'message': 'mempool min fee not met'})",
)


def history(d: Draw) -> list[dict]:
    """An Electrum history of a few transactions."""
    return [{"tx_hash": d.hash(), "height": d.height(), "tx_pos": d.below(4)} for _ in range(d.below(5))]


def merkle(d: Draw) -> dict:
    """An Electrum proof: a list of hashes, as in mining.notify."""
    return {
        "merkle": [d.hash() for _ in range(d.between(1, 12))],
        "block_height": d.height(),
        "pos": d.below(900),
    }


def block(d: Draw) -> dict:
    """An Ethereum block with a nonce, a mix hash and a difficulty."""
    return {"number": d.quantity(), "hash": "0x" + d.hash(), "nonce": "0x" + d.hex(16),
            "miner": "0x" + d.hex(40), "mixHash": "0x" + d.hash(), "difficulty": d.quantity()}  # fmt: skip


def electrum(d: Draw) -> Iterator[Line]:
    """A wallet and its server; pushes, and errors that quote mining methods."""
    d.keep_jsonrpc()
    yield from d.call(
        "server.version", ["electrum/4.5.5", "1.4"], [f"{d.some('ElectrumX', 'Fulcrum')} 1.16.0", "1.4"]
    )
    for _ in range(d.between(2, 8)):
        method = d.pick(METHODS)
        yield from d.call(method, *METHODS[method](d))
        if d.one_in(3):
            header = {"hex": d.hex(160), "height": d.height()}
            yield d.push("blockchain.headers.subscribe", [header])
        if d.one_in(5):
            yield d.push("blockchain.scripthash.subscribe", [d.hash(), d.hash()])
        if d.one_in(6):
            yield from d.fail("blockchain.transaction.broadcast", [d.hex(450)], d.pick(ERRORS))


def ethereum(d: Draw) -> Iterator[Line]:
    """A wallet or a dapp, over HTTP or as WebSocket texts; at most one eth_getWork, as a scanner sends it."""
    d.keep_jsonrpc()
    for _ in range(d.between(2, 8)):
        method = d.pick(ETHEREUM)
        yield from d.call(method, *ETHEREUM[method](d))
        if method == "eth_subscribe":
            yield d.push("eth_subscription", {"subscription": "0x" + d.hex(32), "result": block(d)})
    if d.one_in(4):
        work = ["0x" + d.hash(), "0x" + d.hash(), "0x" + "0" * 8 + d.hex(56)]
        yield from (
            d.call("eth_getWork", [], work) if d.one_in(2) else d.fail("eth_getWork", [], "no mining work")
        )


def node(d: Draw) -> Iterator[Line]:
    """An explorer that asks bitcoind or monerod; at most one block template."""
    d.keep_jsonrpc()
    for _ in range(d.between(1, 6)):
        method = d.pick(NODE)
        yield from d.call(method, *NODE[method](d))
    if d.one_in(3):
        yield from d.call(*d.pick(TEMPLATES)(d))
