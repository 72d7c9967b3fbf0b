"""The command ``poolwatch``.  Nothing heavy is imported before a command needs it."""

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from detector.arguments import parser

if TYPE_CHECKING:
    from detector.config import Config
    from detector.exporters.report import FileReport, ScanIncident

DONE, INPUT, USAGE = 0, 1, 2
# As a shell says of a command that Ctrl-C ended.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 0 done, 1 an input could not be read, 2 wrong configuration or usage."""
    _streams()
    options = parser().parse_args(arguments)
    if options.command is None and not options.version:
        parser().print_usage(sys.stderr)
        return USAGE
    from detector.errors import ConfigError, InputError

    try:
        commands: dict[str, Callable[[argparse.Namespace], int]] = {
            "scan": _scan, "run": _run, "check": _check, "config": _config,
            "flows": _flows, "collect": _collect, "detect": _detect, "pools": _pools,
            "topics": _topics, "dissect": _dissect, "campaigns": _campaigns,
        }  # fmt: skip
        status = _version() if options.version else commands[options.command](options)
        sys.stdout.flush()  # what cannot be written is told, and not by Python at its end
        return status
    except ConfigError as error:
        print(f"poolwatch: {error}", file=sys.stderr)
        return USAGE
    except InputError as error:
        print(f"poolwatch: {error}", file=sys.stderr)
        return INPUT
    except BrokenPipeError:
        _hush()
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (OSError, UnicodeEncodeError) as error:
        print(f"poolwatch: cannot write: {error}", file=sys.stderr)
        _hush()
        return INPUT


def _streams() -> None:
    """Have both outputs, also where whoever started us closed one, and characters that their encoding does
    not know replaced."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _hush() -> None:
    """Nobody reads what is left in the buffer of standard output."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _version() -> int:
    from importlib.metadata import version

    print(f"poolwatch {version('poolwatch')}")
    return DONE


def _say(text: str) -> None:
    print(f"poolwatch: {text}", file=sys.stderr)


def _config(options: argparse.Namespace) -> int:
    from detector.config import as_toml, load

    sys.stdout.write(as_toml(load(options.config)))
    return DONE


def _check(options: argparse.Namespace) -> int:
    from detector import checking, kafkacli, links
    from detector.app import Service
    from detector.config import load

    config = load(options.config)
    Service(config)
    checking.check(config)
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
    from detector.exporters import report
    from detector.exporters.paper import Paper
    from detector.wording import counted

    console = Paper()
    packets, flows = sum(f.packets for f in files), sum(f.flows for f in files)
    what = "live" if live else counted(len(files), "file")
    console.print(f"{what}, {counted(packets, 'packet')}, {counted(flows, 'flow record')}")
    if cut := sum(f.cut for f in files):
        console.print(f"{cut} of them cut by a snap length: what was cut off is not seen")
    refused = {r: sum(f.refused.get(r, 0) for f in files) for f in files for r in f.refused}
    if refused:
        console.print("refused: " + ", ".join(f"{n} {r}" for r, n in sorted(refused.items())))
    if not found:
        console.print(report.nothing(files))
        return
    console.print(report.table(found, width=console.width))
    if len(found) > report.MOST_ROWS:
        console.print(
            f"{report.MOST_ROWS} of {len(found)} incidents shown, the surest first: --json shows all"
        )
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
    reading, found, why = dissectcli.compare(options.file, keep)
    if why:
        _say(why)
    if options.json:
        dissectcli.show_json(options.file, reading, found, why)
    else:
        chosen = bool(options.connection or options.subscriber)
        dissectcli.show_table(reading, found, chosen=chosen)
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
