"""Declared fields of a job's message in, jobs of the session out: what a share is worth, by which algorithm.

The algorithm is the job's own, else what was told beside the jobs, else what the account says, else the
dialect's.  Hashes are expected hashes per share; where they wait for the algorithm, ``ledger`` knows.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from detector import algorithms, ledger
from detector.dialects import (
    alephium,
    bitcoin,
    channels,
    chia,
    cryptonote,
    difficulty,
    equihash,
    ergo,
    ethereum,
    getwork,
    graphs,
    nimiq,
    targets,
    templates,
)
from detector.dialects.messages import ONLY, InForce, Job, Submit
from detector.dialects.table import Dialect, Table
from detector.ledger import Pending, Session

_PARSERS: Final[dict[str, Callable[[dict[str, Any], InForce], list[Job]]]] = {
    "alephium": alephium.jobs,
    "bitcoin": bitcoin.jobs,
    "channels": channels.jobs,
    "chia": chia.jobs,
    "cryptonote": cryptonote.jobs,
    "equihash": equihash.jobs,
    "ergo": ergo.jobs,
    "ethereum": ethereum.jobs,
    "getwork": getwork.jobs,
    "graphs": graphs.jobs,
    "nimiq": nimiq.jobs,
    "targets": targets.jobs,
    "templates": templates.jobs,
}
SHARES: Final[dict[str, Callable[[dict[str, Any], InForce], Submit | None]]] = {
    "btc-v1": bitcoin.share,
    "gbt": templates.share,
    "getwork": getwork.share,
    "sv2-plain": channels.share,
}
"""What of a share is hashed, by dialect."""
_TOLD: Final[dict[str, Callable[[dict[str, Any]], str | None]]] = {
    "bitcoin": bitcoin.told,
    "cryptonote": cryptonote.told,
    "equihash": equihash.told,
    "graphs": graphs.told,
}


def jobs(s: Session, table: Table, dialect: Dialect, fields: dict[str, Any]) -> list[Job]:
    """The jobs of one message, none of them filed yet."""
    force = s.force
    if force.difficulty is None and force.hashes is None and s.from_start:
        force.difficulty = dialect.begins
    made = _PARSERS[dialect.parser](fields, force)
    for job in made:
        if job.algorithm is None:
            job.algorithm = force.algorithm or _by_account(s, table, dialect)
        if job.hashes is None and job.algorithm is not None:
            job.hashes = difficulty.product(job.difficulty, algorithms.factor(job.algorithm))
    return made


def _by_account(s: Session, table: Table, dialect: Dialect) -> str | None:
    for names in (s.wallets, s.workers):
        if names:
            known, algorithm = table.account(dialect.id, names[-1])
            return algorithm if known else dialect.algorithm
    return dialect.algorithm


def told(s: Session, dialect: Dialect, fields: dict[str, Any], request: Pending) -> None:
    """Take the algorithm that a share tells: of its job, and where the form of a share tells it, of all."""
    found = algorithm(dialect, fields)
    if found is not None:
        takes(s, dialect, found, request)


def algorithm(dialect: Dialect, fields: dict[str, Any]) -> str | None:
    """The algorithm that a share tells."""
    find = _TOLD.get(dialect.parser)
    return None if find is None else find(fields)


def takes(s: Session, dialect: Dialect, algorithm: str, request: Pending) -> None:
    """A share tells its algorithm."""
    some = [request.known]
    if dialect.parser == "bitcoin":
        some = []  # its difficulties wait for the algorithm as one sum
    elif dialect.parser != "cryptonote":
        s.force.algorithm = s.force.algorithm or algorithm
        some += s.jobs.values()
    for job in some:
        if job is not None and job.algorithm is None:
            job.algorithm = algorithm
    if s.algorithm is None:
        s.algorithm = algorithm


def find(s: Session, dialect: Dialect | None, name: str) -> Job | None:
    """The job that a share names; the latest where its miner is known to name wrong ones (errata B7), or
    may be and the job can hardly be one from before the session was heard.  Where there is one at a time, it
    is the latest of all connections."""
    job = s.jobs.get(name)
    if s.kin is not None and (job is None or name == ONLY):
        job = s.kin.jobs.get(name, job)
    if job is None and dialect is not None and dialect.parser == "channels":
        return channels.known(s.force, s.jobs, name)
    if job is None and s.jobs and dialect is not None and dialect.loose is not None:
        wrong = _pattern(dialect.loose)
        if any(wrong(agent) for agent in s.agents) or (not s.agents and s.jobs_seen >= 2):
            return next(reversed(s.jobs.values()))
    return job


@lru_cache
def _pattern(text: str) -> Callable[[str], object]:
    return re.compile(text, re.IGNORECASE).search


def turned(s: Session, dialect: str) -> None:
    """The session speaks another dialect from now on: what its jobs told of the algorithm holds no more."""
    if s.jobs_seen:
        s.force.algorithm = None
    s.dialect = dialect


def file(s: Session, dropped: dict[str, int], job: Job, t_ns: int) -> None:
    """Put a job into the session's table; the oldest makes room."""
    ledger.change(s, dropped, job.algorithm, t_ns)
    ledger.harden(s, job)
    s.algorithm = job.algorithm or s.algorithm
    s.jobs.pop(job.id, None)
    s.jobs[job.id] = job
    if s.kin is not None:
        s.kin.file(job)
    if len(s.jobs) > ledger.MAX_JOBS:
        del s.jobs[next(iter(s.jobs))]
        dropped["jobs"] += 1
    while len(s.force.channels) > ledger.MAX_CHANNELS:
        del s.force.channels[next(iter(s.force.channels))]
        dropped["channels"] += 1
