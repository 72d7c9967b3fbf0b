"""The first and the last octets of a long JSON body in, an object of what a miner reads of it out.

A template of a full block has 1 to 4 MB, nearly all of it transactions: of bitcoind's an array in the middle
(BIP 22), of monerod's one text; so has a block that is handed in.  What is wanted stands before or behind.
"""

import re
from typing import Any, Final

import msgspec

FIRST: Final = 16 << 10
LAST: Final = 16 << 10
KEPT: Final = 512
"""Digits of a text that goes on: a header, and of CryptoNote's block what its parent stands in."""

_MEMBERS: Final = (
    "bits", "blockhashing_blob", "coinbasevalue", "curtime", "difficulty", "height", "longpollid",
    "previousblockhash", "prev_hash", "seed_hash", "status", "target", "version", "wide_difficulty",
)  # fmt: skip
_ENVELOPE: Final = ("error", "id", "jsonrpc", "method")
_PAIR: Final = re.compile(
    rb'"(%s)"\s*:\s*("[^"\\]{0,4096}"|-?[0-9][0-9.eE+-]{0,40}|null)(?=\s*[,}])'
    % "|".join(_MEMBERS + _ENVELOPE).encode()
)
_BLOB: Final = re.compile(rb'"blocktemplate_blob"\s*:\s*"([0-9a-fA-F]{%d})' % KEPT)
_BLOCK: Final = re.compile(rb'"params"\s*:\s*\[\s*"([0-9a-fA-F]{%d})' % KEPT)
_BLOCKS: Final = frozenset({"submitblock", "submit_block"})
_PARENTS: Final = frozenset({"previousblockhash", "prev_hash"})


def excerpt(first: bytes, last: bytes) -> bytes | None:
    """A template or a block with its scalar members alone, None for what is neither."""
    told: dict[str, Any] = {}
    for name, value in (*_PAIR.findall(first), *_PAIR.findall(last)):
        try:
            told[name.decode()] = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    said = {name: told.pop(name) for name in _ENVELOPE if name in told}
    if said.get("method") in _BLOCKS:
        block = _BLOCK.search(first)
        return None if block is None else msgspec.json.encode({**said, "params": [block[1].decode()]})
    if "method" in said or _PARENTS.isdisjoint(told):
        return None
    blob = _BLOB.search(first) or _BLOB.search(last)
    if blob is not None:
        told["blocktemplate_blob"] = blob[1].decode()
    return msgspec.json.encode({**said, "result": told})
