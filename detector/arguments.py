"""The command line of ``poolwatch``: its commands, their options, and what ``--help`` says of each."""

import argparse
from collections.abc import Sequence

EXIT_STATUS = "exit status: 0 done, 1 an input could not be read, 2 wrong configuration or command line"


def parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    out = argparse.ArgumentParser(
        prog="poolwatch",
        description="Finds cryptocurrency mining in network traffic, and measures it.",
        epilog="examples:  poolwatch scan capture.pcap   |   tcpdump -w - | poolwatch scan -\n" + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--version", action="store_true", help="print the version and stop")
    sub = out.add_subparsers(dest="command", metavar="COMMAND")
    scan = _command(sub, "scan", "look through captures once and print the incidents")
    scan.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="pcap, pcapng, .gz of both, or a folder of them; - is standard input",
    )
    scan.add_argument("--json", action="store_true", help="one JSON document on standard output")
    run = _command(sub, "run", "all in one: replay, watch, serve metrics until stopped")
    run.add_argument("replay", nargs="*", metavar="FILE", help="captures or folders instead of run.replay")
    run.add_argument("--once", action="store_true", help="end after the replay and print the incidents")
    run.add_argument("--listen", metavar="ADDRESS:PORT", help="instead of http.listen")
    run.add_argument(
        "--pace", type=float, metavar="N", help="N seconds of the data a second; 0 is all at once"
    )
    run.add_argument("--udp", metavar="ADDRESS", help="receive exports there, on --ports")
    run.add_argument("--ports", metavar="N,N", help="instead of collectors.netflow.ports")
    run.add_argument(
        "--try-interface", metavar="NAME", help="capture there if that can be, and no other is named"
    )
    _capture_options(run)
    for command in (scan, run):
        command.add_argument(
            "--as", dest="kind", choices=("packets", "flows"),
            help="only packets, or only exports (on any port); default: both, exports on known ports",
        )  # fmt: skip
    _flows_parser(sub)
    dissect = _command(sub, "dissect", "what we read in a capture, and tshark's word beside it")
    dissect.add_argument("file", metavar="FILE", help="pcap or pcapng, also .gz; no pipe")
    dissect.add_argument(
        "--connection", action="append", default=[], metavar="A:P-B:Q", help="only that one (may be repeated)"
    )
    dissect.add_argument(
        "--subscriber", action="append", default=[], metavar="ADDRESS", help="only what it takes part in"
    )
    dissect.add_argument("--json", action="store_true", help="one JSON document on standard output")
    collecting = _collect_parsers(sub)
    detect = _command(sub, "detect", "judge what collectors put on Kafka: one member of the group")
    detect.add_argument("--listen", metavar="ADDRESS:PORT", help="instead of http.listen")
    tables = (*_pools_parsers(sub), *_topics_parsers(sub), _campaigns_parser(sub))
    check = _command(sub, "check", "build everything from the configuration and stop")
    show = _command(sub, "config", "print the merged configuration as TOML")
    for command in (scan, run, check, show, detect, *collecting, *tables):
        command.add_argument("--config", metavar="FILE", help="TOML file (default: $POOLWATCH_CONFIG)")
    return out


def _command(
    sub: "argparse._SubParsersAction", name: str, told: str, description: str = "", epilog: str = ""
) -> argparse.ArgumentParser:
    """One more command; its own ``--help`` says at least what the list of commands says of it."""
    whole = description or f"{told[0].upper()}{told[1:]}."
    return sub.add_parser(name, help=told, description=whole, epilog=epilog or None)


def _flows_parser(sub: "argparse._SubParsersAction") -> None:
    flows = _command(
        sub,
        "flows",
        "print the records of NetFlow, IPFIX and sFlow in captures",
        description="Prints the records of NetFlow v1, v5, v7, v9, IPFIX and sFlow 5 that captures hold, on "
        "whatever port: as a table of the first fields, or with all fields.",
        epilog="examples:  poolwatch flows exports.pcap   |   poolwatch flows --count exports.pcap   |   "
        "tcpdump -w - port 2055 | poolwatch flows --json -",
    )
    flows.add_argument(
        "files", nargs="+", metavar="FILE",
        help="pcap, pcapng, .gz of both, a folder of them, or a file of IPFIX messages; - is standard input",
    )  # fmt: skip
    flows.add_argument(
        "--count", action="store_true",
        help="totals by exporter and template instead, as a table, --json or --csv",
    )  # fmt: skip
    how = flows.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object a record")
    how.add_argument("--csv", action="store_true", help="one table under the union of all fields")
    how.add_argument("--protobuf", action="store_true", help="goflow2's FlowMessage, behind its length each")


def _collect_parsers(sub: "argparse._SubParsersAction") -> Sequence[argparse.ArgumentParser]:
    collect = _command(
        sub, "collect", "collect for Kafka; with the embedded bus the detector is in the same process"
    )
    what = collect.add_subparsers(dest="what", metavar="WHAT", required=True)
    packets = _command(what, "packets", "packets of interfaces, or of captures")
    packets.add_argument(
        "replay", nargs="*", metavar="FILE", help="captures or folders of them; - is standard input"
    )
    packets.add_argument(
        "--follow",
        metavar="DIR",
        help="captures that somebody rotates there, as they are written, as one run",
    )
    _capture_options(packets)
    flows = _command(
        what,
        "flows",
        "NetFlow, IPFIX and sFlow, received or in captures; or the records of a Kafka topic",
    )
    flows.add_argument(
        "replay", nargs="*", metavar="FILE", help="captures or folders of them, instead of receiving"
    )
    flows.add_argument("--udp", metavar="ADDRESS", default="0.0.0.0", help="address to receive on")
    flows.add_argument("--ports", metavar="N,N", help="instead of collectors.netflow.ports")
    flows.add_argument(
        "--topic", nargs="?", const="", metavar="NAME",
        help="read the Kafka topic that goflow2 or pmacct writes (default: collectors.imports.topic)",
    )  # fmt: skip
    flows.add_argument(
        "--as", dest="form", choices=("goflow2", "goflow2-json", "goflow", "pmacct"),
        help="what the topic holds, instead of collectors.imports.form",
    )  # fmt: skip
    for command in (packets, flows):
        command.add_argument(
            "--seconds", type=float, metavar="N", help="of what is live: listen for N seconds and end"
        )
        command.add_argument("--listen", metavar="ADDRESS:PORT", help="instead of http.listen")
        command.add_argument(
            "--pace", type=float, metavar="N", help="N seconds of the data a second; 0 is all at once"
        )
        command.set_defaults(once=True)
    packets.set_defaults(kind="packets")
    flows.set_defaults(kind="flows", follow="")
    return packets, flows


def _capture_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--interface", action="append", metavar="NAME", help="capture there (repeat it, or put commas)"
    )
    command.add_argument("--filter", metavar="EXPRESSION", help="as pcap-filter(7), for the kernel")
    command.add_argument(
        "--source",
        choices=("auto", "afpacket", "scapy"),
        help="instead of collectors.capture.source: scapy is slow, for systems without AF_PACKET",
    )


def _pools_parsers(sub: "argparse._SubParsersAction") -> Sequence[argparse.ArgumentParser]:
    pools = _command(sub, "pools", "the table of pool endpoints")
    does = pools.add_subparsers(dest="what", metavar="WHAT", required=True)
    listing = _command(does, "list", "print the rows")
    listing.add_argument("--coin", help="only rows of this coin, as in the table: XMR")
    listing.add_argument("--operator", help="only rows of this operator")
    checking = _command(does, "check", "print what is doubtful about rows")
    importing = _command(does, "import", "merge the rows of FILE into INTO (an operator's own list)")
    importing.add_argument("file", metavar="FILE", help="CSV under the columns of the table")
    importing.add_argument("into", metavar="INTO", help="your own list, to be named in lists.pools")
    resolving = _command(does, "resolve", "look up the addresses of exact, active names")
    resolving.add_argument("--server", action="append", metavar="ADDRESS", help="instead of resolver.servers")
    return listing, checking, importing, resolving


def _campaigns_parser(sub: "argparse._SubParsersAction") -> argparse.ArgumentParser:
    out = _command(
        sub,
        "campaigns",
        "wallets and accounts that many subscribers mine for",
        description="Links incidents by wallet or account: those of files (incidents.jsonl, or what scan "
        "--json prints; - is standard input), else those on Kafka, of all detectors together.",
    )
    out.add_argument("files", nargs="*", metavar="FILE", help="instead of the topic of incidents")
    out.add_argument("--json", action="store_true", help="one JSON object a campaign")
    out.add_argument("--least", type=int, metavar="N", help="instead of campaigns.least_subscribers")
    return out


def _topics_parsers(sub: "argparse._SubParsersAction") -> Sequence[argparse.ArgumentParser]:
    topics = _command(sub, "topics", "the topics on Kafka")
    does = topics.add_subparsers(dest="what", metavar="WHAT", required=True)
    creating = _command(does, "create", "make those that are missing; none is changed")
    creating.add_argument("--partitions", type=int, metavar="N", help="instead of kafka.partitions")
    creating.add_argument("--replication", type=int, metavar="N", help="instead of kafka.replication")
    checking = _command(does, "check", "compare them with the configuration")
    listing = _command(does, "list", "print them")
    return creating, checking, listing
