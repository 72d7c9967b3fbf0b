"""The command ``poolwatch``.  Nothing heavy is imported before a command needs it."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.config import Config
    from detector.exporters.report import FileReport, ScanIncident

DONE, INPUT, USAGE = 0, 1, 2
# As a shell says of a command that Ctrl-C ended.
INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    out = argparse.ArgumentParser(
        prog="poolwatch",
        description="Finds cryptocurrency mining in network traffic, and measures it.",
        epilog="examples:  poolwatch scan capture.pcap   |   tcpdump -w - | poolwatch scan -",
    )
    out.add_argument("--version", action="store_true", help="print the version and stop")
    sub = out.add_subparsers(dest="command", metavar="COMMAND")
    scan = sub.add_parser("scan", help="look through captures once and print the incidents")
    scan.add_argument(
        "files", nargs="+", metavar="FILE", help="pcap, pcapng, .gz of both; - is standard input"
    )
    scan.add_argument("--json", action="store_true", help="one JSON document on standard output")
    run = sub.add_parser("run", help="all in one: replay, watch, serve metrics until stopped")
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
    dissect = sub.add_parser("dissect", help="what we read in a capture, and tshark's word beside it")
    dissect.add_argument("file", metavar="FILE", help="pcap or pcapng")
    dissect.add_argument(
        "--connection", action="append", default=[], metavar="A:P-B:Q", help="only that one (may be repeated)"
    )
    dissect.add_argument(
        "--subscriber", action="append", default=[], metavar="ADDRESS", help="only what it takes part in"
    )
    dissect.add_argument("--json", action="store_true", help="one JSON document on standard output")
    collecting = _collect_parsers(sub)
    detect = sub.add_parser("detect", help="judge what collectors put on Kafka: one member of the group")
    detect.add_argument("--listen", metavar="ADDRESS:PORT", help="instead of http.listen")
    tables = (*_pools_parsers(sub), *_topics_parsers(sub), _campaigns_parser(sub))
    check = sub.add_parser("check", help="build everything from the configuration and stop")
    show = sub.add_parser("config", help="print the merged configuration as TOML")
    for command in (scan, run, check, show, detect, *collecting, *tables):
        command.add_argument("--config", metavar="FILE", help="TOML file (default: $POOLWATCH_CONFIG)")
    return out


def _flows_parser(sub: "argparse._SubParsersAction") -> None:
    flows = sub.add_parser(
        "flows",
        help="print the records of NetFlow, IPFIX and sFlow in captures",
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
    collect = sub.add_parser(
        "collect", help="collect for Kafka; with the embedded bus the detector is in the same process"
    )
    what = collect.add_subparsers(dest="what", metavar="WHAT", required=True)
    packets = what.add_parser("packets", help="packets of interfaces, or of captures")
    packets.add_argument(
        "replay", nargs="*", metavar="FILE", help="captures or folders of them; - is standard input"
    )
    packets.add_argument(
        "--follow",
        metavar="DIR",
        help="captures that somebody rotates there, as they are written, as one run",
    )
    _capture_options(packets)
    flows = what.add_parser("flows", help="NetFlow and IPFIX datagrams, over UDP or in captures")
    flows.add_argument("replay", nargs="*", metavar="FILE", help="captures instead of receiving")
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
        command.add_argument("--seconds", type=float, metavar="N", help="listen for N seconds and end")
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
        "--source", choices=("auto", "afpacket", "scapy"), help="instead of collectors.capture.source"
    )


def _pools_parsers(sub: "argparse._SubParsersAction") -> Sequence[argparse.ArgumentParser]:
    pools = sub.add_parser("pools", help="the table of pool endpoints")
    does = pools.add_subparsers(dest="what", metavar="WHAT", required=True)
    listing = does.add_parser("list", help="print the rows")
    listing.add_argument("--coin")
    listing.add_argument("--operator")
    checking = does.add_parser("check", help="print what is doubtful about rows")
    importing = does.add_parser("import", help="merge the rows of FILE into INTO (an operator's own list)")
    importing.add_argument("file", metavar="FILE")
    importing.add_argument("into", metavar="INTO", help="named in lists.pools")
    resolving = does.add_parser("resolve", help="look up the addresses of exact, active names")
    resolving.add_argument("--server", action="append", metavar="ADDRESS", help="instead of resolver.servers")
    return listing, checking, importing, resolving


def _campaigns_parser(sub: "argparse._SubParsersAction") -> argparse.ArgumentParser:
    out = sub.add_parser(
        "campaigns",
        help="wallets and accounts that many subscribers mine for",
        description="Links incidents by wallet or account: those of files (incidents.jsonl, or what scan "
        "--json prints; - is standard input), else those on Kafka, of all detectors together.",
    )
    out.add_argument("files", nargs="*", metavar="FILE", help="instead of the topic of incidents")
    out.add_argument("--json", action="store_true", help="one JSON object a campaign")
    out.add_argument("--least", type=int, metavar="N", help="instead of campaigns.least_subscribers")
    return out


def _topics_parsers(sub: "argparse._SubParsersAction") -> Sequence[argparse.ArgumentParser]:
    topics = sub.add_parser("topics", help="the topics on Kafka")
    does = topics.add_subparsers(dest="what", metavar="WHAT", required=True)
    creating = does.add_parser("create", help="make those that are missing; none is changed")
    creating.add_argument("--partitions", type=int, metavar="N", help="instead of kafka.partitions")
    creating.add_argument("--replication", type=int, metavar="N", help="instead of kafka.replication")
    checking = does.add_parser("check", help="compare them with the configuration")
    listing = does.add_parser("list", help="print them")
    return creating, checking, listing


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 0 done, 1 an input could not be read, 2 wrong configuration or usage."""
    options = parser().parse_args(arguments)
    if options.version:
        from importlib.metadata import version

        print(f"poolwatch {version('poolwatch')}")
        return DONE
    if options.command is None:
        parser().print_usage(sys.stderr)
        return USAGE
    from detector.errors import ConfigError, InputError

    try:
        commands: dict[str, Callable[[argparse.Namespace], int]] = {
            "scan": _scan, "run": _run, "check": _check, "config": _config,
            "flows": _flows, "collect": _collect, "detect": _detect, "pools": _pools,
            "topics": _topics, "dissect": _dissect, "campaigns": _campaigns,
        }  # fmt: skip
        return commands[options.command](options)
    except ConfigError as error:
        print(f"poolwatch: {error}", file=sys.stderr)
        return USAGE
    except InputError as error:
        print(f"poolwatch: {error}", file=sys.stderr)
        return INPUT
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    except (OSError, UnicodeEncodeError) as error:
        print(f"poolwatch: cannot write: {error}", file=sys.stderr)
        return INPUT


def _say(text: str) -> None:
    print(f"poolwatch: {text}", file=sys.stderr)


def _config(options: argparse.Namespace) -> int:
    from detector.config import as_toml, load

    sys.stdout.write(as_toml(load(options.config)))
    return DONE


def _check(options: argparse.Namespace) -> int:
    from detector import kafkacli, links
    from detector.app import Service
    from detector.config import load

    config = load(options.config)
    Service(config)
    kafkacli.check(config)
    if config.bus == "embedded" and (remark := links.one_process(config.collectors.netflow)):
        _say(remark)
    print("configuration is good")
    return DONE


def _scan(options: argparse.Namespace) -> int:
    from detector.loading import resting

    with resting():
        from prometheus_client import CollectorRegistry

        from detector import app
        from detector.config import load
        from detector.exporters import report
        from detector.exporters.progress import Progress

        config = load(options.config)
        detector = app.Detector(config, CollectorRegistry())
        app.warm_kernels(_say, load=False)
    paths = app.captures(options.files)
    files: list[FileReport] = []
    found: list[ScanIncident] = []
    status = DONE
    stop = threading.Event()
    _on_stop(stop.set)
    with Progress(paths) as progress:
        for path in paths:
            if stop.is_set():
                break
            try:
                replay = app.Replay(detector, path, kind=options.kind or "any")
                files.append(replay.run(stop.is_set, progress.at(path)))
                found += replay.found()
            except app.InputError as error:
                _say(app.printable(str(error)))
                files.append(
                    report.FileReport(
                        path=app.printable(path), packets=0, flows=0, bytes=0, refused={}, error=str(error)
                    )
                )
                status = INPUT
    if options.json:
        sys.stdout.buffer.write(report.scan_json(files, found) + b"\n")
    else:
        _print_table(files, found)
    return status


def _print_table(files: "list[FileReport]", found: "list[ScanIncident]", *, live: bool = False) -> None:
    from rich.console import Console

    from detector.exporters import report
    from detector.wording import counted

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False)
    packets, flows = sum(f.packets for f in files), sum(f.flows for f in files)
    what = "live" if live else counted(len(files), "file")
    console.print(f"{what}, {counted(packets, 'packet')}, {counted(flows, 'flow record')}")
    refused = {r: sum(f.refused.get(r, 0) for f in files) for f in files for r in f.refused}
    if refused:
        console.print("refused: " + ", ".join(f"{n} {r}" for r, n in sorted(refused.items())))
    if not found:
        console.print("no mining found")
        return
    console.print(report.table(found))
    for line in report.summary_lines(report.summary([f.incident for f in found], files)):
        console.print(line)


def _run(options: argparse.Namespace) -> int:
    from detector.config import load
    from detector.live import serve

    config: Config = load(options.config)
    return serve(config, options, _say, _print_table, _on_stop)


def _flows(options: argparse.Namespace) -> int:
    from collectors import jit
    from detector import flowcli
    from detector.errors import ConfigError
    from detector.reading import captures

    if options.protobuf and options.count:
        raise ConfigError("--protobuf writes records, and totals are none")
    jit.announce(_say)
    files = captures(options.files)
    refused: dict[str, int] = {}
    show = flowcli.print_json if options.json else flowcli.print_csv if options.csv else flowcli.print_table
    try:
        if options.protobuf:
            flowcli.print_protobuf(files, refused)
        elif options.count:
            flowcli.print_counts(flowcli.count(files, refused), show)
        else:
            reading = flowcli.read_for_json if options.json else flowcli.read
            show(reading(files, refused))
    except KeyboardInterrupt:
        return INTERRUPTED
    if refused:
        _say("refused: " + ", ".join(f"{n} {reason}" for reason, n in sorted(refused.items())))
    return DONE


def _dissect(options: argparse.Namespace) -> int:
    from collectors import jit
    from detector import dissectcli

    jit.announce(_say)
    keep = dissectcli.wanted(options.connection, options.subscriber)
    reading, found = dissectcli.compare(options.file, keep)
    if options.json:
        dissectcli.show_json(options.file, reading, found)
    else:
        dissectcli.show_table(reading, found)
    return DONE


def _collect(options: argparse.Namespace) -> int:
    from detector.collect import collect
    from detector.config import load

    return collect(load(options.config), options, _say, _print_table, _on_stop)


def _detect(options: argparse.Namespace) -> int:
    from detector.config import load
    from detector.member import serve

    return serve(load(options.config), options, _say, _on_stop)


def _pools(options: argparse.Namespace) -> int:
    from detector.config import load
    from detector.poolcli import run

    return run(load(options.config), options, print)


def _topics(options: argparse.Namespace) -> int:
    from detector.config import load
    from detector.kafkacli import run

    return run(load(options.config), options, print)


def _campaigns(options: argparse.Namespace) -> int:
    from detector.campaigncli import run
    from detector.config import load

    return run(load(options.config), options, print)


def _on_stop(stop: Callable[[], None]) -> None:
    """Ctrl-C and SIGTERM end the work cleanly; a second one ends it at once."""

    def handler(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
