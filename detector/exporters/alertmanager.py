"""Alertmanager: an incident as an alert of its API, version 2, and the client that hands alerts over.

The labels are the alert's identity there: one that changes makes another alert, and pages again.  So they are
made once, when the alert begins to fire; who begins again while it fires asks what is in force (``find``).
Whatever the wire had a say in is one printable line here, and short.
"""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from detector.config import Alertmanager
from detector.document import EvidenceLine, Incident
from detector.errors import ConfigError
from detector.explain import VERBS, coin_words, energy_words, next_step, quantity, rate_words
from detector.incidents import State
from detector.observers.words import clean

SEVERITY: Final = {State.CONFIRMED: "page", State.SUSPECTED: "ticket"}
NAMES: Final = {"page": "PoolwatchMinerConfirmed", "ticket": "PoolwatchMinerSuspected"}
UNKNOWN: Final = "unknown"
MOST_LABEL: Final = 80
MOST_SUMMARY: Final = 240
MOST_WHY: Final = 240
MOST_DESCRIPTION: Final = 2000
MOST_EVIDENCE: Final = 6
MOST_NAMES: Final = 4
MOST_ANSWER: Final = 64 << 20
READ_BYTES: Final = 1 << 16
# Statuses after which the same request may do better: all others but 2xx say that it never will.
AGAIN: Final = {408, 425, 429}

IDENTITY: Final = {"alertname", "severity", "subscriber", "incident"}

Labels = dict[str, str]


class Known(NamedTuple):
    """What is in force there: an alert's labels and when it began."""

    labels: Labels
    starts: str


class DeliveryError(Exception):
    """Alerts were not taken.  ``again``: they may be later."""

    def __init__(self, problem: str, *, again: bool) -> None:
        super().__init__(problem)
        self.again = again


# -- words -----------------------------------------------------------------------------------------


def labels(document: Incident, severity: str, site: str = "") -> Labels:
    """The identity of an alert, from closed sets but for the subscriber and the incident."""
    place = document.place
    operators = dict.fromkeys(s.operator for s in document.services if s.operator)
    given = {
        "alertname": NAMES[severity],
        "severity": severity,
        "subscriber": document.subscriber,
        "incident": document.id,
        "coin": ",".join(document.coins[:MOST_NAMES]),
        "operator": next(iter(operators), ""),
        "sector": place.sector if place else "",
        "city": place.city if place else "",
    }
    out = {name: clean(value, MOST_LABEL) or UNKNOWN for name, value in given.items()}
    return out | ({"site": clean(site, MOST_LABEL)} if site else {})


def annotations(
    document: Incident, severity: str, config: Alertmanager, campaign: str = ""
) -> dict[str, str]:
    """What people read: summary, description, next step and where to look further; the ``campaign`` that it
    is part of, in words."""
    place = document.place.unit if document.place and document.place.unit else ""
    verb = VERBS[document.state]
    if document.role != "miner" and document.state is State.CONFIRMED:
        verb = f"serves miners as a {document.role}"
    told = ", ".join(document.coins or document.algorithms)
    summary = f"{document.subscriber}{f' ({place})' if place else ''} {verb}{f': {told}' if told else ''}"
    out = {
        "summary": clean(summary, MOST_SUMMARY),
        "description": _description(document),
        "next_step": next_step(document),
        "campaign": clean(campaign, MOST_SUMMARY),
        "dashboard_url": _url(config.dashboard_url, document, severity),
        "runbook_url": _url(config.runbook_url, document, severity),
    }
    return {name: text for name, text in out.items() if text}


def _description(document: Incident) -> str:
    """Belief, the evidence in words and the figures, a line each."""
    lines = [f"Belief {document.belief:.4f} that it mines. What was seen:"]
    lines += [f"- {_evidence(e)}" for e in document.evidence[:MOST_EVIDENCE]]
    if len(document.evidence) > MOST_EVIDENCE:
        lines.append(f"- and {len(document.evidence) - MOST_EVIDENCE} kinds more")
    if not document.evidence:
        lines.append("- what it rested on was withdrawn")
    services = [
        f"{s.address}:{s.port}{f' ({s.name or s.operator})' if s.name or s.operator else ''}"
        for s in document.services
    ]
    watts = document.power_watts
    figures = {
        "Services": _few(services),
        "Workers": _few(document.workers),
        "Programs": _few(document.agents),
        "Shares": f"{document.shares.accepted} accepted, {document.shares.verified} verified"
        if document.shares.accepted
        else "",
        "Hash rate": rate_words(document),
        "Power": f"{quantity(watts.low, 'W')} to {quantity(watts.high, 'W')}" if watts else "",
        "Energy": energy_words(document),
        "Coin": coin_words(document),
        "Traffic": f"{document.bytes.up} octets up, {document.bytes.down} down",
        "Seen": f"{document.first_seen} to {document.last_seen}",
    }
    lines += [f"{name}: {clean(text, MOST_WHY)}" for name, text in figures.items() if text]
    text = "\n".join(lines)
    return text if len(text) <= MOST_DESCRIPTION else text[: MOST_DESCRIPTION - 1] + "…"


def _evidence(line: EvidenceLine) -> str:
    times = f", {line.count} times" if line.count > 1 else ""
    return f"{clean(line.why, MOST_WHY)} [{line.kind}, {clean(line.rule)}{times}, last {line.last}]"


def _few(items: Iterable[str]) -> str:
    given = [clean(item) for item in items]
    more = f" and {len(given) - MOST_NAMES} more" if len(given) > MOST_NAMES else ""
    return ", ".join(given[:MOST_NAMES]) + more


def _url(pattern: str, document: Incident, severity: str) -> str:
    for name, value in (
        ("alertname", NAMES[severity]), ("subscriber", document.subscriber), ("incident", document.id),
    ):  # fmt: skip
        pattern = pattern.replace("{" + name + "}", quote(value, safe=""))
    return pattern


def alert(
    document: Incident,
    severity: str,
    known: Known,
    ends: str | None,
    config: Alertmanager,
    campaign: str = "",
) -> dict[str, Any]:
    """One element of the body of ``POST /api/v2/alerts``; ``ends``: when it was over, None while it fires."""
    told = annotations(document, severity, config, campaign)
    out = {"labels": known.labels, "annotations": told, "startsAt": known.starts}
    if ends is not None:
        # What ends before it begins is refused, and would fire on: a clock was set back.
        out["startsAt"], out["endsAt"] = min(known.starts, ends), ends
    if config.dashboard_url:
        out["generatorURL"] = told["dashboard_url"]
    return out


def moment(ns: int) -> str:
    """Unix nanoseconds as Alertmanager writes and reads them."""
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- the client ------------------------------------------------------------------------------------


class Server:
    """One Alertmanager.  ``find`` asks, ``post`` tells; each call is one connection, opened and closed."""

    def __init__(self, url: str, config: Alertmanager) -> None:
        """Raises ConfigError on what is no URL, and on a file of passwords or keys that cannot be used."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
            raise ConfigError(f"alertmanager.urls: {url!r} is not http(s)://HOST:PORT[/PREFIX]")
        try:
            self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
            self._host.encode("idna")
            http.client.HTTPConnection(self._host, self._port)
        except (ValueError, http.client.InvalidURL) as error:
            raise ConfigError(f"alertmanager.urls: {url!r}: {error}") from None
        self.name = parts.netloc
        self._prefix = quote(parts.path.rstrip("/"), safe="/%:@~!$&'()*+,;=") + "/api/v2/alerts"
        self._timeout_s = config.timeout_s
        self._site = clean(config.site, MOST_LABEL)
        self._tls = _tls(config) if parts.scheme == "https" else None
        self._headers = {"Content-Type": "application/json", "User-Agent": "poolwatch"}
        if config.username:
            secret = f"{config.username}:{_secret(config.password_file)}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"

    def post(self, alerts: list[dict[str, Any]]) -> None:
        """Hand over alerts.  Raises DeliveryError."""
        self._ask("POST", self._prefix, json.dumps(alerts).encode())

    def find(self, subscribers: Iterable[str]) -> list[Known]:
        """What fires there of these subscribers, as far as it is ours.  Raises DeliveryError."""
        # A dot in brackets: versions differ in what a backslash in a matcher is.
        which = quote(f'subscriber=~"{"|".join(subscribers).replace(".", "[.]")}"')
        ours = quote(f'alertname=~"{"|".join(NAMES.values())}"')
        try:
            answer = self._ask("GET", f"{self._prefix}?filter={which}&filter={ours}")
            given = [Known(dict(a["labels"]), str(a["startsAt"])) for a in json.loads(answer)]
            return [
                k
                for k in given
                if k.labels.get("site", "") == self._site
                and k.labels.keys() >= IDENTITY
                and all(isinstance(value, str) for value in k.labels.values())
            ]
        except DeliveryError as error:
            # Some that stand in for Alertmanager take alerts and do not list them.
            if error.again:
                raise
            return []
        except (ValueError, KeyError, TypeError, RecursionError):
            return []

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        made: http.client.HTTPConnection
        if self._tls is not None:
            made = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            made.request(method, path, body, self._headers)
            answer = made.getresponse()
            text = self._body(answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # ValueError: a name that is none (IDNA), a header that is none.
            raise DeliveryError(f"{type(error).__name__}: {error}", again=True) from None
        finally:
            made.close()
        if not 200 <= answer.status < 300:
            again = answer.status >= 500 or answer.status in AGAIN
            raise DeliveryError(
                f"status {answer.status}: {clean(text.decode('utf-8', 'replace'))}", again=again
            )
        return text

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        """An answer's body.  The socket's own timeout is that of each octet: one that drips would hold us."""
        ends_s = time.monotonic() + self._timeout_s
        parts, left = [], MOST_ANSWER
        while left > 0 and (part := answer.read1(min(left, READ_BYTES))):
            parts.append(part)
            left -= len(part)
            if time.monotonic() > ends_s:
                raise TimeoutError("the answer does not end")
        if left <= 0:
            raise DeliveryError(f"an answer of over {MOST_ANSWER} octets", again=False)
        return b"".join(parts)


def _tls(config: Alertmanager) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None)
    except (OSError, ValueError) as error:
        raise ConfigError(f"alertmanager.ca_file, cert_file, key_file: {error}") from None
    return context


def _secret(path: str) -> str:
    """The first line of a file."""
    try:
        return (Path(path).read_text("utf-8").splitlines() or [""])[0]
    except (OSError, ValueError) as error:
        raise ConfigError(f"alertmanager.password_file: {error}") from None


def servers(config: Alertmanager) -> list[Server]:
    """A client for each.  Raises ConfigError."""
    for key, url in (("dashboard_url", config.dashboard_url), ("runbook_url", config.runbook_url)):
        # One that is no URL is refused with the alert that it is in: nobody would be paged.
        if url and urlsplit(url).scheme not in {"http", "https"}:
            raise ConfigError(f"alertmanager.{key}: {url!r} is not http(s)://...")
    return [Server(url, config) for url in config.urls]
