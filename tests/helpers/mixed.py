"""A seed in, a capture of ordinary traffic with a few miners in it out, and the list of who mines.

    .venv/bin/python tests/helpers/mixed.py OUT.pcap [--packets 1000000] [--connections N] [--seed 1]

Clients are at home (10.0.0.0/8, 2001:db8::/32), servers are not; a tenth is IPv6, a tenth carries a VLAN
tag.  Connections run beside each other over ``seconds``, with SYN and FIN; 0.2 % of the segments come twice
and 0.2 % in the wrong order.  One connection in a hundred mines: payload, sizes and times of our own
recordings in ``pcaps/`` (Stratum v1 and CryptoNote, in plain text), each with a subscriber and a server of
its own; every such session holds a job and an accepted login.  ``OUT.pcap.json`` lists them and says what
the file is like.

With seed 1: 1,000,000 packets are 30,884 connections, 312 of them mining, mean packet 477 bytes, 86 % of the
bytes payload, made in 3 s; 5,000,000 packets are 154,339 connections, 1,562 of them mining, mean packet 475
bytes, 86 % payload, made in 12 s.
"""

import argparse
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import rewrite_captures
import traffic
from draw import Draw
from framing import PCAP_HEADER, TCP, Ends, Steps, assemble, sizes
from traffic import ACK, SYN, Script

PCAPS = Path(__file__).parents[2] / "pcaps"
# Recordings of plaintext sessions that were accepted, the dialect, and whether they are long and dense.
MINERS = (
    ("xmrig-plain.pcap", "cryptonote", False),
    ("xmrig-argon2.pcap", "cryptonote", True),
    ("xmrig-cnpico-dense.pcap", "cryptonote", True),
    ("cpuminer-sha256d.pcap", "btc-v1", False),
    ("cpuminer-scrypt-dense.pcap", "btc-v1", True),
    ("cpuminer-realpool-sha256d-vardiff.pcap", "btc-v1", False),
    ("cpuminer-idle-highdiff.pcap", "btc-v1", False),
    ("bfgminer-sha256d.pcap", "btc-v1", False),
)
MINING_PORTS = (3333, 3333, 4444, 5555, 14444, 443, 80, 8080, 10128)
START_NS = 1_795_348_800 * 10**9
CHUNK = 200_000


@dataclass(frozen=True)
class Options:
    """What to make.  ``connections`` 0 is one per 32 packets; ``seconds`` is the length of the capture."""

    packets: int = 1_000_000
    connections: int = 0
    mining_share: float = 0.01
    seconds: int = 120
    seed: int = 1


@dataclass(frozen=True)
class Library:
    """Scripts, flattened: those of script i are ``steps`` rows ``first[i]`` to ``first[i + 1]``."""

    scripts: list[Script]
    first: np.ndarray
    steps: Steps
    texts: np.ndarray

    def lengths(self) -> np.ndarray:
        """Packets of each script."""
        return np.diff(self.first)


def flatten(scripts: list[Script]) -> Library:
    """Lay the scripts' packets end to end, their texts too."""
    rows = [packet for script in scripts for packet in script.packets]
    head = np.array([len(row[2]) for row in rows])
    at = np.concatenate(([0], np.cumsum(head)[:-1]))
    side, flags, length, seq, ack, wait = (
        np.array([row[i] for row in rows], kind)
        for i, kind in ((0, "u1"), (1, "u1"), (3, "i8"), (4, "i8"), (5, "i8"), (6, "i8"))
    )
    texts = np.frombuffer(b"".join(row[2] for row in rows), np.uint8)
    first = np.concatenate(([0], np.cumsum([len(s) for s in scripts])))
    return Library(scripts, first, Steps(side, flags, at, head, length, seq, ack, wait), texts)


def session(d: Draw, name: str, dense: bool) -> Script:
    """A recorded mining session as a script; a dense one is cut after its first 40 to 160 packets."""
    script = Script(d, name, TCP, d.pick(MINING_PORTS))
    limit = d.between(40, 160) if dense else 10**9
    whole = (PCAPS / name).read_bytes()
    opened, start = None, 0
    for header, frame in rewrite_captures.frames(whole):
        source, target, flags = rewrite_captures.ends(frame)
        # BFGMiner's file opens with a TLS attempt; the session is the last connection of the file.
        if flags & (SYN | ACK) == SYN:
            script = Script(d, name, TCP, script.port)
            opened, start = (source, target), stamp_ns(header)
        if (source, target) not in (opened, opened[::-1]) or len(script) >= limit:
            continue
        tcp = 14 + 4 * (frame[14] & 15)
        size = struct.unpack_from(">H", frame, 16)[0] + 14
        payload = frame[tcp + 4 * (frame[tcp + 12] >> 4) : size]
        script.wait(max(0, stamp_ns(header) - start))
        start = max(start, stamp_ns(header))
        script.packet(int((source, target) != opened), flags, payload)
    return script


def stamp_ns(header: bytes) -> int:
    """The time of a pcap record."""
    seconds, micros = struct.unpack_from("<II", header)
    return seconds * 10**9 + micros * 1000


def written(options: Options, connections: int) -> tuple[Library, np.ndarray, dict[Any, np.ndarray]]:
    """All scripts; the chance of each for a benign connection; per kind its numbers, "mining" among them."""
    d = Draw(options.seed)
    scripts: list[Script] = []
    chance: list[float] = []
    kinds: dict[Any, np.ndarray] = {}

    def add(kind: Any, share: float, new: list[Script]) -> None:
        kinds[kind] = np.arange(len(scripts), len(scripts) + len(new))
        scripts.extend(new)
        chance.extend([share / len(new)] * len(new))

    for kind, (count, share) in traffic.KINDS.items():
        add(kind, share, [kind(d) for _ in range(count)])
    add(
        "mining",
        0.0,
        [session(d, name, dense) for name, _, dense in MINERS for _ in range(6 if dense else 1)],
    )
    fixed = sum(p * len(s) for p, s in zip(chance, scripts, strict=True))
    mined = np.mean([len(scripts[i]) for i in kinds["mining"]])
    wanted = options.packets / connections - options.mining_share * mined
    bulk = (wanted / (1 - options.mining_share) - fixed) / sum(share for _, share in traffic.BULK.values())
    for kind, (count, share) in traffic.BULK.items():
        # Lognormal: most are short, a few are long; the mean is what is left to fill.
        spread = np.exp(np.array([d.random.gauss(0, 0.9) for _ in range(count)]))
        want = np.clip(bulk * spread / spread.mean(), 14, bulk * 12 + 14)
        add(kind, share, [kind(d, int(n)) for n in want])
    return flatten(scripts), np.array(chance), kinds


def chosen(
    options: Options, connections: int, library: Library, chance: np.ndarray, kinds: dict
) -> np.ndarray:
    """The script of each connection, (n,) i8, miners first; a little over the packets wanted."""
    rng = np.random.default_rng(options.seed)
    miners = round(connections * options.mining_share)
    script = rng.choice(chance.size, connections, p=chance / chance.sum())
    script[:miners] = np.resize(rng.permutation(kinds["mining"]), miners)
    lengths = library.lengths()
    bulk = np.concatenate([kinds[kind] for kind in traffic.BULK])
    movable = np.flatnonzero(np.isin(script, bulk))
    total = int(lengths[script].sum())
    for i in rng.permutation(np.resize(movable, 50 * movable.size)):
        if options.packets * 1.002 <= total <= options.packets * 1.01:
            break
        other = int(rng.choice(bulk))
        change = int(lengths[other] - lengths[script[i]])
        if (change > 0) == (total < options.packets * 1.005):
            script[i] = other
            total += change
    return script


def addressed(options: Options, library: Library, script: np.ndarray, miners: int) -> Ends:
    """Ends for each connection: home clients, of whom miners are their own, and servers elsewhere."""
    rng = np.random.default_rng(options.seed + 1)
    n = script.size
    version = np.where(rng.random(n) < 0.1, 6, 4).astype("u1")
    address = np.zeros((n, 2, 16), np.uint8)
    subscriber = rng.integers(0, max(2, n // 6), n)
    server = rng.integers(0, max(2, n // 20), n)
    subscriber[:miners] = np.arange(miners)
    server[:miners] = np.arange(miners)
    mines = np.arange(n) < miners
    six = version == 6
    address[:, :, 10:12] = np.where(six, 0, 0xFF)[:, None, None]
    for side, (number, four, eight) in enumerate(
        # 10.192/10 and 2001:db8:f000::/36 are the miners'; servers are in 45/8, 151/8 and 2a00:1450::/32.
        ((subscriber, (10, 192), b"\x20\x01\x0d\xb8"), (server, (45, 128), b"\x2a\x00\x14\x50"))
    ):
        place = np.array([four[0] if side == 0 else 151, four[0]], np.uint8)[1 - mines.astype(int)]
        address[:, side, 12] = np.where(six, 0, place)
        address[:, side, 13] = np.where(six, 0, (number >> 16 & 63) | np.where(mines, four[1], 0))
        address[:, side, 14] = np.where(six, 0, number >> 8 & 255)
        address[:, side, 15] = number & 255
        address[six, side, :4] = np.frombuffer(eight, np.uint8)
        address[six, side, 4] = np.where(mines[six], 0xF0, 0x10)
        for byte in range(3):
            address[six, side, 5 + byte] = number[six] >> (16 - 8 * byte) & 255
    port = np.empty((n, 2), np.uint16)
    port[:, 0] = 32768 + np.arange(n) % 28000
    port[:, 1] = np.array([s.port for s in library.scripts])[script]
    return Ends(
        np.array([s.protocol for s in library.scripts], np.uint8)[script],
        version,
        np.where(rng.random(n) < 0.1, rng.integers(2, 4000, n), 0),
        address,
        port,
        rng.integers(0, 2**32, (n, 2)),
        rng.integers(0, 2**24, n),
    )


def scheduled(
    options: Options, library: Library, script: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(connection, step, time in ns) of every packet in the order of time, retransmissions among them."""
    rng = np.random.default_rng(options.seed + 2)
    lengths = library.lengths()[script]
    connection = np.repeat(np.arange(script.size), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    step = library.first[script][connection] + within
    wait = library.steps.wait_ns
    span = wait[library.first[1:] - 1][script]
    room = options.seconds * 10**9
    # What lasts longer than half the capture is played faster.
    pace = np.minimum(1.0, room * 0.5 / np.maximum(span, 1))
    start = rng.random(script.size) * (room - span * pace)
    t = (start[connection] + wait[step] * pace[connection]).astype(np.int64)
    side, size = library.steps.side[step], library.steps.length[step]
    follows = (side[1:] == side[:-1]) & (size[1:] > 0) & (size[:-1] > 0) & (connection[1:] == connection[:-1])
    swap = np.flatnonzero(follows & (rng.random(follows.size) < 0.002))
    t[swap], t[swap + 1] = t[swap + 1], t[swap]
    again = np.flatnonzero((size > 0) & (rng.random(size.size) < 0.002))
    late = t[again] + rng.integers(20, 200, again.size) * 10**6
    connection, step = np.concatenate((connection, connection[again])), np.concatenate((step, step[again]))
    t = np.concatenate((t, late))
    order = np.argsort(t, kind="stable")[: options.packets]
    return connection[order].astype(np.int32), step[order], t[order] + START_NS


def mining(library: Library, script: np.ndarray, ends: Ends, miners: int) -> Iterator[dict[str, Any]]:
    """Who mines where, one object for each mining connection."""
    dialects = {name: dialect for name, dialect, _ in MINERS}
    for i in range(miners):
        name = library.scripts[script[i]].name
        client, server = (ip_address(a.tobytes()) for a in ends.address[i])
        yield {
            "client": str(getattr(client, "ipv4_mapped", None) or client),
            "client_port": int(ends.port[i, 0]),
            "server": str(getattr(server, "ipv4_mapped", None) or server),
            "server_port": int(ends.port[i, 1]),
            "dialect": dialects[name],
            "recording": name,
        }


def write(path: Path, options: Options) -> dict[str, Any]:
    """Make the capture and the list beside it; give back what the list says."""
    connections = options.connections or options.packets // 32
    library, chance, kinds = written(options, connections)
    script = chosen(options, connections, library, chance, kinds)
    miners = round(connections * options.mining_share)
    ends = addressed(options, library, script, miners)
    connection, step, t_ns = scheduled(options, library, script)
    frame = sizes(library.steps, ends, connection, step)
    noise = np.random.default_rng(options.seed + 3).integers(0, 256, 1 << 24, np.uint8)
    with path.open("wb") as out:
        out.write(PCAP_HEADER)
        for begin in range(0, connection.size, CHUNK):
            part = slice(begin, begin + CHUNK)
            where = np.concatenate(([0], np.cumsum(frame[part] + 16)))
            buffer = np.empty(where[-1], np.uint8)
            assemble(
                library.steps,
                ends,
                library.texts,
                noise,
                connection[part],
                step[part],
                t_ns[part],
                where,
                begin,
                buffer,
            )
            out.write(buffer)
    payload = int(library.steps.length[step].sum())
    told = {
        "seed": options.seed,
        "packets": int(connection.size),
        "frame_bytes": int(frame.sum()),
        "mean_packet_bytes": round(float(frame.mean()), 1),
        "payload_share": round(payload / float(frame.sum()), 3),
        "connections": int(np.unique(connection).size),
        "ipv6_share": round(float((ends.version[connection] == 6).mean()), 3),
        "mining": list(mining(library, script, ends, miners)),
    }
    Path(f"{path}.json").write_text(json.dumps(told, indent=1))
    return told


def main() -> None:
    """Make a capture and say what it is like."""
    parser = argparse.ArgumentParser(description="make a mixed capture")
    parser.add_argument("out", type=Path)
    for name in ("packets", "connections", "seconds", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Options, name))
    parser.add_argument("--mining-share", type=float, default=Options.mining_share)
    given = vars(parser.parse_args())
    told = write(given.pop("out"), Options(**given))
    print(json.dumps({**told, "mining": len(told["mining"])}))


if __name__ == "__main__":
    main()
