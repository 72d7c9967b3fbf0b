"""Fuzzing what reads miners' words with atheris (libFuzzer), coverage of our own code as its guide.

    .venv/bin/python tests/fuzz/lines.py TARGET --seconds 1800 --corpus DIR

TARGET is ``sessions``: payload of both directions of a connection through unwrapping (proxies, HTTP,
WebSocket, Stratum V2), cutting, the parsers of all dialects, sessions, coins and hash rates; or ``wallets``:
texts as addresses, accounts and worker names.  An input of ``sessions`` is a list of chunks, each behind
three octets: what it is (``SERVER``, ``LOST``, ``LAST``, ``AGAIN``) and its length; half of all changes are
made within the JSON of a chunk, by values from a table.  What must hold of any: all at once, and row by row
by an observer that is taken down and put up again from its state in between, tell the same; what is told is
finite, bounded and printable; and one direction alone confirms nobody.  DIR is filled with seeds at first:
all speakers of ``tests/helpers/speakers``, each also inside of what can be around it, look-alikes, and
the examples of the tables.
"""

import argparse
import contextlib
import json
import math
import random
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    sys.exit("atheris is not here: .venv/bin/uv pip install atheris")

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "helpers"), str(TESTS / "detector" / "speech")]

with atheris.instrument_imports(include=["detector"]):
    import msgspec
    from payload_rows import batch

    from detector import checksums, coins, fusion, hashrate, wallets
    from detector.dialects import table
    from detector.observers.payload import CONFIRMING, PayloadObserver
    from detector.redact import Redactor
    from detector.tracks import State

import lookalikes  # noqa: E402
import wrapped  # noqa: E402
from speakers import SPEAKERS  # noqa: E402
from speakers.conversing import converse  # noqa: E402
from spoken import MAKERS, Talk  # noqa: E402

SERVER, LOST, LAST, AGAIN = 1, 2, 4, 8
START, GAP, END = 2, 1, 4
MOST_CHUNKS = 96
MOST_BYTES = 12_000
MINUTE_NS = 60_000_000_000
LONGEST_WHY = 1000
WEIGHED = frozenset(fusion.WEIGHTS)
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**64, 2**256, 10**300, 1e308, 1e-308, -0.5, "", "0", "x",
    "0x", "0x0", "ff", "f" * 8, "0" * 64, "f" * 64, "0" * 63 + "1", "1" * 400, "\x00", "\u202e", "é" * 9,
    [], {}, [[]], [None], "1e999", "mining.notify", "mining.submit", "login", "OK", "NaN", "-1", " ",
    "00ff" * 40,
)  # fmt: skip


@dataclass(frozen=True)
class Said:
    """One chunk of an input."""

    kind: int
    data: bytes


def framed(chunks: Iterable[Said]) -> bytes:
    """Chunks as one input."""
    return b"".join(struct.pack(">BH", c.kind, len(c.data)) + c.data for c in chunks)


def parts(data: bytes) -> Iterator[Said]:
    """The chunks of an input."""
    at = made = 0
    while at + 3 <= len(data) and made < MOST_CHUNKS:
        kind, size = struct.unpack_from(">BH", data, at)
        yield Said(kind, data[at + 3 : at + 3 + size])
        at, made = at + 3 + size, made + 1


# -- seeds -----------------------------------------------------------------------------------------


def of_rows(rows: Iterable[dict[str, Any]], client: bytes) -> list[Said]:
    """Rows of a talk as chunks, as many as an input may have."""
    out, room = [], MOST_BYTES
    for row in rows:
        room -= len(row["data"]) + 3
        if room < 0:
            break
        out.append(Said(0 if row["src"] == client else SERVER, row["data"]))
    return out


def around(chunks: list[Said]) -> Iterator[list[Said]]:
    """The same conversation inside of other things."""
    yield [Said(0, b"PROXY TCP4 198.51.100.7 203.0.113.9 4000 3333\r\n"), *chunks]
    yield [
        Said(0, b"\x05\x01\x00"), Said(SERVER, b"\x05\x00"), Said(0, b"\x05\x01\x00\x03\x04pool\x0d\x05"),
        Said(SERVER, b"\x05\x00\x00\x01\0\0\0\0\0\0"), *chunks,
    ]  # fmt: skip
    yield [
        Said(0, b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n"),
        Said(SERVER, b"HTTP/1.1 200 OK\r\n\r\n"),
        *chunks,
    ]
    yield [
        Said(0, b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        Said(SERVER, b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n"),
        *(Said(c.kind, wrapped.frame(c.data, masked=not c.kind & SERVER)) for c in chunks),
    ]
    yield [Said(c.kind, wrapped.reply(c.data) if c.kind & SERVER else wrapped.post(c.data)) for c in chunks]


def talks() -> Iterator[list[Said]]:
    """Every speaker, every maker, look-alikes."""
    for kind in SPEAKERS:
        talk = Talk()
        converse(kind(), talk, jobs=2, shares=2)
        yield of_rows(talk.rows, talk.client[0])
    for make in MAKERS:
        talk = Talk()
        make(talk)
        yield of_rows(talk.rows, talk.client[0])
    for _, said in islice(lookalikes.conversations(3), 80):
        yield [Said(0 if client else SERVER, data) for data, client in said][:MOST_CHUNKS]


def seeds(target: str) -> Iterator[bytes]:
    """The first inputs."""
    if target == "wallets":
        for form in wallets.load().values():
            for text in (*form.hits, *form.misses):
                yield from (text.encode(), f"{text}.rig1+500".encode(), f"BTC:{text}".encode())
        return
    for number, chunks in enumerate(talks()):
        yield framed(chunks)
        yield framed(Said(c.kind, piece) for c in chunks for piece in (c.data[:40], c.data[40:]))
        made = list(around(chunks))
        yield framed(made[number % len(made)])
    for row in table.load().forms:
        yield framed(Said(side, line.encode() + b"\n") for line in row.hits for side in (0, SERVER))


def words() -> Iterator[str]:
    """What the dialects' examples are made of, as libFuzzer's dictionary wants it."""
    known: set[str] = set()
    for row in table.load().forms:
        for line in row.hits:
            known |= set(re.findall(r'"[A-Za-z_./0-9-]{2,40}"', line))
    for number, word in enumerate(sorted(known)):
        yield f'w{number}="\\"{word[1:-1]}\\""\n'


# -- changes ---------------------------------------------------------------------------------------


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def spoiled(line: bytes, dice: random.Random) -> bytes:
    """A JSON line with a value put in place of another, taken away or said twice."""
    value = json.loads(line)
    found = list(places(value)) if isinstance(value, dict | list) else []
    if not found:
        return line
    inside, key = dice.choice(found)
    do = dice.randrange(4)
    if do == 0:
        del inside[key]
    elif do == 1 and isinstance(inside, list):
        inside.insert(key, inside[key])
    elif do == 2:
        other, place = dice.choice(found)
        inside[key] = json.loads(json.dumps(other[place]))
    else:
        inside[key] = dice.choice(HOSTILE)
    return json.dumps(value, ensure_ascii=dice.random() < 0.5).encode(errors="surrogatepass") + b"\n"


def changed(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's mutator of chunks: their JSON, their order, or octets as it sees fit."""
    dice = random.Random(seed)
    chunks = list(parts(data))
    if not chunks or dice.random() < 0.5:
        return bytes(atheris.Mutate(data, most))
    at, do = dice.randrange(len(chunks)), dice.randrange(8)
    one = chunks[at]
    if do == 0:
        chunks.insert(dice.randrange(len(chunks)), one)
    elif do == 1:
        del chunks[at]
    elif do == 2:
        chunks[at] = Said(one.kind ^ dice.choice((SERVER, LOST, LAST, AGAIN)), one.data)
    elif do == 3:
        cut = dice.randrange(len(one.data) + 1)
        chunks[at : at + 1] = [Said(one.kind, one.data[:cut]), Said(one.kind, one.data[cut:])]
    else:
        with contextlib.suppress(ValueError, RecursionError):
            chunks[at] = Said(one.kind, spoiled(one.data, dice)[:0xFFFF])
    return framed(chunks)[:most]


# -- what must hold --------------------------------------------------------------------------------


def spoken_rows(chunks: list[Said]) -> list[dict[str, Any]]:
    """Rows of the chunks, on one connection; as any collector would send them."""
    talk = Talk(begun=not (chunks and chunks[0].kind & LOST))
    for chunk in chunks:
        side = "s" if chunk.kind & SERVER else "c"
        talk.wait(0.25)
        flags = 0
        if chunk.kind & LOST:
            talk.seq[side] = (talk.seq[side] + 7) & 0xFFFFFFFF
            flags |= GAP
        talk.say(side, chunk.data, flags | (END if chunk.kind & LAST else 0))
        if chunk.kind & AGAIN:
            talk.rows.append(dict(talk.rows[-1]))
    return talk.rows


class Told:
    """What all steps gave: evidence by its name with counts summed, last facts, vetoes.

    Who is miner and who is pool is left out of evidence: that is as it was known at the end of a step.
    """

    def __init__(self) -> None:
        self.evidence: dict[Any, Any] = {}
        self.facts: dict[Any, Any] = {}
        self.vetoes: set[Any] = set()

    def take(self, seen: Any) -> None:
        """One step more."""
        for e in seen.evidence:
            key = e.subscriber, e.kind, e.rule, e.connection, e.last_ns // MINUTE_NS
            first, last, count, why = self.evidence.get(key, (e.first_ns, e.last_ns, 0, e.why))
            self.evidence[key] = min(first, e.first_ns), max(last, e.last_ns), count + e.count, why
        self.facts.update({(f.subscriber, f.connection, f.copy): f for f in seen.sessions})
        self.vetoes |= {(v.subscriber, v.connection, v.rule, v.at_ns, v.why) for v in seen.vetoes}
        # Whoever hears of a veto forgets the connection.
        for _, connection, *_ in self.vetoes:
            self.facts = {key: facts for key, facts in self.facts.items() if key[1] != connection}
            self.evidence = {key: told for key, told in self.evidence.items() if key[3] != connection}

    def kinds(self) -> set[str]:
        """Kinds of evidence."""
        return {kind for _, kind, *_ in self.evidence}


def by_rows(rows: list[dict[str, Any]], often: int) -> Told:
    """Row by row; each so many rows the observer is another, restored from a state record."""
    told, observer = Told(), PayloadObserver()
    for number, row in enumerate(rows):
        told.take(observer.step(batch([row])))
        if number % often == often - 1:
            kept = msgspec.msgpack.encode(observer.state(row["subscriber"]))
            observer = PayloadObserver()
            observer.restore(row["subscriber"], msgspec.msgpack.decode(kept, type=State))
    return told


def check_facts(facts: Any) -> None:
    """Raises where a fact is none."""
    for value in (facts.hashes, facts.most_hashes_per_share, facts.claimed):
        assert value is None or (math.isfinite(value) and value >= 0), facts
    assert min(msgspec.structs.astuple(facts.shares)) >= 0, facts
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(facts), type=type(facts)) == facts
    for name in (*facts.workers, *facts.wallets, *facts.agents):
        name.encode()
    coins.of(facts, None)
    made = hashrate.rates([facts])
    hashrate.kwh_per_day(hashrate.power(made))
    for rate in made:
        assert 0 <= rate.low <= rate.high < math.inf, rate


def sessions(data: bytes) -> None:
    """Raises whatever is wrong."""
    chunks = list(parts(data))
    if not chunks:
        return
    rows = spoken_rows(chunks)
    observer, told = PayloadObserver(), Told()
    told.take(observer.step(batch(rows)))
    again = by_rows(rows, 1 + len(data) % 7)
    assert told.facts == again.facts, (told.facts, again.facts)
    assert told.evidence == again.evidence, (told.evidence, again.evidence)
    assert told.vetoes == again.vetoes, (told.vetoes, again.vetoes)
    for facts in told.facts.values():
        check_facts(facts)
    assert told.kinds() <= WEIGHED
    for _, _, _, why in told.evidence.values():
        assert why.isprintable(), why
        assert len(why) <= LONGEST_WHY, why
    if told.kinds() & CONFIRMING:
        for end in {row["src"] for row in rows}:
            alone = Told()
            alone.take(PayloadObserver().step(batch([row for row in rows if row["src"] == end])))
            assert not alone.kinds() & CONFIRMING, "one direction confirms"


REDACTOR = Redactor(b"a key that is long enough")


def addresses(data: bytes) -> None:
    """Raises whatever is wrong."""
    text = data.decode(errors="replace")
    for kind in checksums.KINDS:
        held = checksums.holds(kind, text)
        assert held is None or type(held) is bytes
    found = wallets.read(text)
    wallets.pattern(text)
    if found is not None:
        again = wallets.read(found.text)
        assert again is not None, found
        assert (again.coins, again.verified) == (found.coins, found.verified), found
        assert found.text in text
        assert found.text not in REDACTOR.text(f"the wallet {found.text} of", [found.text])
    for algorithm in (None, "sha256d", "rx/0"):
        decided = coins.decide(algorithm, None, (text,), ("BTC", "XMR"), exchange=len(data) % 2 == 0)
        assert decided.why


TARGETS = {"sessions": sessions, "wallets": addresses}


def main() -> None:
    """Parse the command line and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    if not any(options.corpus.iterdir()):
        for seed in seeds(options.target):
            (options.corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    known = options.corpus.parent / "lines.dict"
    known.write_text("".join(words()))
    more = {"custom_mutator": changed} if options.target == "sessions" else {}
    atheris.Setup(
        [sys.argv[0], str(options.corpus), f"-max_total_time={options.seconds}", f"-dict={known}",
         f"-max_len={MOST_BYTES if more else 600}",
         f"-artifact_prefix={options.corpus.parent}/{options.target}-", "-timeout=60", "-rss_limit_mb=6000",
         "-print_final_stats=1"],
        TARGETS[options.target],
        **more,
    )  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
