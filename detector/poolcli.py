"""``poolwatch pools``: the table of pool endpoints, for people."""

import argparse
from collections.abc import Callable

from detector import networks, poolfiles, resolver
from detector.attribution import text
from detector.config import Config
from detector.endpoints import Endpoints
from detector.errors import ConfigError
from detector.resolutions import Resolutions
from detector.wording import counted


def run(config: Config, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Do one of list, check, import, resolve; the exit status."""
    if options.what == "import":
        done = poolfiles.import_file(options.file, options.into)
        say(f"{done.read} rows read, {done.added} added, {done.total} in {options.into}")
        return 0
    pools = poolfiles.load(config.lists.pools, with_shipped=config.lists.shipped_pools)
    if options.what == "list":
        for line in pools.table(pools.select(options.coin, options.operator)):
            say(line)
    elif options.what == "check":
        problems = pools.check()
        for problem in problems:
            say(f"{problem.domain}: {problem.problem}")
        say(f"{counted(len(pools.rows), 'row')}, {counted(len(problems), 'remark')}")
    else:
        servers = tuple(options.server or config.resolver.servers)
        if not servers:
            raise ConfigError("resolver.servers is empty and no --server is given: nothing is looked up")
        index = Endpoints()
        resolutions = Resolutions(pools.find, networks.shipped(), index, config.detector.resolutions)
        found = resolver.resolve(
            [row.domain for row in pools.resolvable()], servers, config.resolver.rate_per_s
        )
        for entry in resolver.teach(found, resolutions):
            say(f"{text(entry.address)} port {entry.port} {entry.name} {entry.operator or ''}".rstrip())
    return 0
