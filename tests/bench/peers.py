"""Who is told to mine by ndpiReader, by tshark and by ``poolwatch scan``: every connection of every capture.

    .venv/bin/python tests/bench/peers.py [--captures ../shared/captures] [--all]
    .venv/bin/python tests/bench/peers.py --spoken [--part 0.4]

tshark lists the connections (TCP and UDP, the innermost ends) and says what its dissectors name in each;
ndpiReader gives one verdict a connection (protocol, category and risks); ``poolwatch scan --json`` gives
incidents, and a connection is told to mine where an incident names its subscriber and its service, so that
everything else between the same two is accused with it.  Truth is the table below: what is not in it does
not mine.  Mining that is encrypted, and attempts that the pool refused, are rows of their own, in neither
total.  ``--spoken`` asks instead of each speaker of ``tests/helpers/speakers``, a session in a capture of its
own, from that ``part`` of its packets on: every dialect that is read in plain text, as its specification has
it.  Exit status 1 when ``poolwatch`` misses a connection that mines in plain text or accuses another.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
sys.path[:0] = [str(part) for part in (HERE, TESTS.parent, TESTS / "helpers", TESTS / "detector" / "speech")]

import processes  # noqa: E402

CAPTURES = HERE.parents[2] / "shared" / "captures"
MINING, ATTEMPT, ENCRYPTED, OTHER = "mining", "refused attempt", "encrypted mining", "no mining"
KINDS = (MINING, ATTEMPT, ENCRYPTED, OTHER)
POSITIVE = "packets/ours-positive"
SPOKEN = "spoken"
# What ../shared/reference/captures.md and truth.json say of the files that are not plain mining.
REFUSED = ("xmrig-badlogin", "cpuminer-unauthorized")
IN_TLS = "xmrig-tls"
# BFGMiner knocks once by TLS at the port where it then mines in plain text.
TLS_ATTEMPTS = {("bfgminer-sha256d", 36182)}
# Of tshark's dissectors those whose traffic is a miner's: none; bitcoin and nano are what nodes say.
MINERS_DISSECTORS: frozenset[str] = frozenset()
CURRENCY_DISSECTORS = frozenset({"bitcoin", "nano"})
LAYERS = frozenset({"eth", "ethertype", "ip", "ipv6", "tcp", "udp", "sll", "null", "raw", "vlan", "frame"})
ENDS = (
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "tcp.srcport",
    "udp.srcport",
    "tcp.dstport",
    "udp.dstport",
)

End = tuple[str, int]
Connection = frozenset[End]


@dataclass
class Capture:
    """One file: its connections with what tshark names in each, and who accuses which."""

    path: Path
    name: str
    named: dict[Connection, set[str]] = field(default_factory=dict)
    accused: dict[str, set[Connection]] = field(default_factory=dict)

    def kind(self, connection: Connection) -> str:
        """What a connection truly is."""
        if self.name.startswith(SPOKEN):
            return MINING
        if not self.name.startswith(POSITIVE):
            return OTHER
        if self.path.stem == IN_TLS or any((self.path.stem, port) in TLS_ATTEMPTS for _, port in connection):
            return ENCRYPTED
        return ATTEMPT if self.path.stem in REFUSED else MINING


def told(command: Iterable[str | Path], spent: Counter[str], who: str) -> str:
    """What a program writes; its CPU time is added to ``spent``.  A bad file is no end."""
    ran = processes.run(list(command))
    spent[who] += ran.cpu_s
    if ran.status:
        print(f"{who}: exit status {ran.status}: {ran.error.strip()[-200:]}", file=sys.stderr)
    return ran.out.decode(errors="replace")


def dissected(path: Path, spent: Counter[str]) -> dict[Connection, set[str]]:
    """Each connection with the names of the dissectors that took part, by tshark."""
    command: list[str | Path] = [
        "tshark",
        "-r",
        path,
        "-n",
        "-T",
        "fields",
        "-E",
        "occurrence=l",
        "-e",
        "frame.protocols",
    ]
    found: dict[Connection, set[str]] = {}
    for line in told(
        [*command, *(part for one in ENDS for part in ("-e", one))], spent, "tshark"
    ).splitlines():
        protocols, *ends = line.split("\t")
        source, target = (four or six for four, six in (ends[0:2], ends[2:4]))
        ports = [tcp or udp for tcp, udp in (ends[4:6], ends[6:8])]
        if source and target and all(ports):
            key = frozenset(((source, int(ports[0])), (target, int(ports[1]))))
            found.setdefault(key, set()).update(set(protocols.split(":")) - LAYERS)
    return found


FLOW = re.compile(r"^\t\d+\t(?:TCP|UDP) (\S+):(\d+) <?->? (\S+):(\d+) (.*)$")
VERDICT = re.compile(r"\[(?:proto|cat|Risk): [^\]]*mining", re.IGNORECASE)


def inspected(path: Path, spent: Counter[str]) -> tuple[set[Connection], int]:
    """The connections that ndpiReader tells to mine, by protocol, category or risk; and how many it lists."""
    mining, listed = set(), 0
    for line in told(("ndpiReader", "-v", "2", "-i", path), spent, "ndpiReader").splitlines():
        if match := FLOW.match(line):
            listed += 1
            source, sport, target, dport, rest = match.groups()
            if VERDICT.search(rest):
                mining.add(frozenset(((source.strip("[]"), int(sport)), (target.strip("[]"), int(dport)))))
    return mining, listed


def scanned(captures: list[Capture], spent: Counter[str]) -> None:
    """Fill in what ``poolwatch scan`` tells of all captures, in one run."""
    document = json.loads(
        told([processes.POOLWATCH, "scan", "--json", *(c.path for c in captures)], spent, "poolwatch")
    )
    by_path = {str(c.path): c for c in captures}
    for incident in document["incidents"]:
        capture = by_path[incident["file"]]
        for service in incident["services"]:
            end = service["address"], service["port"]
            capture.accused["poolwatch"] |= {
                connection
                for connection in capture.named
                if end in connection and incident["subscriber"] in {address for address, _ in connection}
            }


def captures(folder: Path) -> Iterator[Capture]:
    """Every capture below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".pcap", ".pcapng", ".cap"}:
            yield Capture(path, str(path.relative_to(folder).with_suffix("")))


def spoken(folder: Path, part: float) -> Iterator[Capture]:
    """A capture of each speaker's session, of four jobs of eight shares, without the first ``part`` of it."""
    from dialogues import connection
    from scapy.utils import wrpcap
    from speakers import SPEAKERS
    from speakers.conversing import converse
    from spoken import Talk

    for number, kind in enumerate(SPEAKERS):
        talk = Talk()
        converse(kind(), talk, jobs=4, shares=8)
        said = [(row["data"], row["src"] == talk.client[0]) for row in talk.rows]
        path = folder / f"{number:02}.pcap"
        packets = connection(number + 1, 3333, said)
        wrpcap(str(path), packets[int(part * len(packets)) :])
        yield Capture(path, f"{SPOKEN}: {kind.name}")


PROGRAMS = ("poolwatch", "ndpiReader", "tshark")


def counted(some: list[Capture]) -> dict[str, tuple[int, dict[str, int]]]:
    """For each kind how many connections there are, and how many each program tells to mine."""
    out = {}
    for kind in KINDS:
        mine = [(c, key) for c in some for key in c.named if c.kind(key) == kind]
        out[kind] = len(mine), {who: sum(key in c.accused[who] for c, key in mine) for who in PROGRAMS}
    return out


def show(all_of_them: list[Capture], everything: bool) -> None:
    """A line for each capture that mines or where somebody is accused, then the sums."""
    print("| capture | connections | " + " | ".join(PROGRAMS) + " | tshark names |")
    print("|---|---|" + "---|" * (len(PROGRAMS) + 1))
    for capture in all_of_them:
        rows = counted([capture])
        loud = any(capture.accused.values()) or capture.name.startswith("packets/ours") or everything
        for kind, (number, by) in rows.items() if loud else ():
            if number:
                named = sorted(
                    {n for key, ns in capture.named.items() if capture.kind(key) == kind for n in ns}
                )
                cells = " | ".join(str(by[who]) for who in PROGRAMS)
                print(f"| {capture.name} | {number} {kind} | {cells} | {', '.join(named)[:60]} |")
    print("\n| all captures | connections | " + " | ".join(f"{who}: told to mine" for who in PROGRAMS) + " |")
    print("|---|---|" + "---|" * len(PROGRAMS))
    for kind, (number, by) in counted(all_of_them).items():
        print(f"| {kind} | {number} | " + " | ".join(str(by[who]) for who in PROGRAMS) + " |")


def main() -> int:
    """Ask all three and count."""
    parser = argparse.ArgumentParser(description="who is told to mine, by three programs")
    parser.add_argument("--captures", type=Path, default=CAPTURES)
    parser.add_argument(
        "--spoken", action="store_true", help="of every speaker of the tests, in place of captures"
    )
    parser.add_argument("--part", type=float, default=0.0, help="joined in the middle of what is spoken")
    parser.add_argument("--all", action="store_true", help="a line for the captures with nothing to tell too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = (
            list(spoken(Path(folder), options.part)) if options.spoken else list(captures(options.captures))
        )
        return compare(found, options.all)


def compare(found: list[Capture], everything: bool) -> int:
    """The tables; the exit status."""
    spent: Counter[str] = Counter()
    listed = currency = 0
    for capture in found:
        capture.named = dissected(capture.path, spent)
        mining, number = inspected(capture.path, spent)
        listed += number
        if strange := mining - set(capture.named):
            print(
                f"{capture.name}: ndpiReader accuses {len(strange)} that tshark does not list",
                file=sys.stderr,
            )
        by_name = {key for key, names in capture.named.items() if names & MINERS_DISSECTORS}
        currency += sum(bool(names & CURRENCY_DISSECTORS) for names in capture.named.values())
        capture.accused = {"ndpiReader": mining, "tshark": by_name, "poolwatch": set()}
    scanned(found, spent)
    print(processes.machine())
    show(found, everything)
    print(
        f"\n{len(found)} captures; ndpiReader lists {listed} connections, tshark "
        f"{sum(len(c.named) for c in found)}, {currency} of them by a dissector of a currency's nodes; "
        "CPU s: " + ", ".join(f"{who} {spent[who]:.1f}" for who in PROGRAMS)
    )
    sums = counted(found)
    return int(sums[MINING][1]["poolwatch"] < sums[MINING][0] or sums[OTHER][1]["poolwatch"] > 0)


if __name__ == "__main__":
    sys.exit(main())
