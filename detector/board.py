"""What is to be told of each incident, and to whom: documents in, alerts that are due out.

The latest state of an incident is all that counts: what comes before it is told is never told.  Several
servers are told the same, each at its own pace.  No clock, no thread, no socket: times are arguments, seconds
of a clock that goes on steadily, or Unix nanoseconds; the owner keeps two threads from being here at once.
"""

import heapq
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Final

from detector.document import Incident
from detector.exporters.alertmanager import NAMES, SEVERITY, Known, labels, moment
from detector.quiet import By, Quiet

Key = tuple[str, str]
"""Incident id and severity: one alert."""

# An end that nobody took for so long is told no more: Alertmanager's own timeout has ended the alert.
ENDED_NS: Final = 3600 * 10**9
AGAIN_S: Final = 1.0


class Alert:
    """One alert.  ``known`` is its identity, None until it is made or found in force; ``ends`` is when it was
    over; ``waiting`` holds the servers that are to be told of its present ``version``."""

    __slots__ = ("document", "due", "ended_ns", "ends", "key", "known", "tries", "version", "waiting")

    def __init__(self, key: Key, document: Incident, servers: int) -> None:
        self.key = key
        self.document = document
        self.known: Known | None = None
        self.ends: str | None = None
        self.ended_ns = 0
        self.version = 0
        self.waiting: set[int] = set()
        self.due = [0.0] * servers
        self.tries = [0] * servers


class _Turns:
    """Who is next with one server: pages, then tickets, then what is told again."""

    def __init__(self) -> None:
        self.fresh: dict[str, dict[Key, None]] = {severity: {} for severity in NAMES}
        self.again: list[tuple[float, Key]] = []
        self.looked_s = 0.0


class Board:
    """``put`` is its verb.  ``servers`` are told; at most ``most`` incidents are kept."""

    def __init__(
        self, servers: int, resend_s: float, most: int, quiet: Quiet | None = None, site: str = ""
    ) -> None:
        self.quiet = quiet or Quiet()
        self.dropped = 0
        self.quieted: Counter[By] = Counter()
        self._site = site
        self._resend_s = resend_s
        self._most = most
        self._open: dict[str, tuple[Incident, Hashable, By | None]] = {}
        self._alerts: dict[Key, Alert] = {}
        self._turns = [_Turns() for _ in range(servers)]

    def __len__(self) -> int:
        return len(self._alerts)

    # -- what comes --------------------------------------------------------------------------------

    def put(self, document: Incident, owner: Hashable, now_ns: int) -> None:
        """Take the latest document of an incident, which is the business of ``owner``."""
        severity = SEVERITY.get(document.state)
        before = self._open.get(document.id)
        if severity is None:
            self._forget(document.id)
            self._settle(document, None, now_ns)
            return
        if before is None and not self._room(severity):
            self.dropped += 1
            return
        by = self.quiet.covers(document, now_ns)
        self._remember(document, owner, by)
        self._settle(document, None if by else severity, now_ns)

    def forget(self, owner: Hashable) -> None:
        """Another tells of these incidents from now on.  What fires is not ended; what has ended is told."""
        for incident in [i for i, (_, whose, _) in self._open.items() if whose == owner]:
            self._forget(incident)
            for severity in NAMES:
                alert = self._alerts.get((incident, severity))
                if alert is not None and alert.ends is None:
                    self._remove(alert)

    def documents(self) -> list[Incident]:
        """The open incidents, quiet ones too."""
        return [document for document, _, _ in self._open.values()]

    def judge_again(self, document: Incident, now_ns: int) -> None:
        """Ask the lists once more about an incident, unless something newer was put meanwhile."""
        now = self._open.get(document.id)
        if now is not None and now[0] is document:
            self.put(document, now[1], now_ns)

    def _room(self, severity: str) -> bool:
        """Whether one more fits; a page takes the place of a ticket."""
        if len(self._open) < self._most:
            return True
        tickets = (i for i, (d, _, _) in self._open.items() if SEVERITY[d.state] == "ticket")
        victim = next(tickets, None) if severity == "page" else None
        if victim is None:
            return False
        self._forget(victim)
        ticket = self._alerts.get((victim, "ticket"))
        if ticket is not None:
            self._remove(ticket)
        self.dropped += 1
        return True

    def _remember(self, document: Incident, owner: Hashable, by: By | None) -> None:
        self._forget(document.id)
        self._open[document.id] = document, owner, by
        if by:
            self.quieted[by] += 1

    def _forget(self, incident: str) -> None:
        gone = self._open.pop(incident, None)
        if gone is not None and gone[2]:
            self.quieted[gone[2]] -= 1

    def _settle(self, document: Incident, wanted: str | None, now_ns: int) -> None:
        """Make what fires what is wanted: an alert of that severity, and none of another."""
        for severity in NAMES:
            key = (document.id, severity)
            alert = self._alerts.get(key)
            if severity == wanted:
                if alert is None:
                    alert = self._alerts[key] = Alert(key, document, len(self._turns))
                    self._tell(alert)
                elif alert.ends is not None:
                    alert.ends = None
                    self._tell(alert)
                alert.document = document
            elif alert is not None and alert.ends is None:
                self._end(alert, document, now_ns)

    def _end(self, alert: Alert, document: Incident, now_ns: int) -> None:
        alert.document = document
        alert.ends, alert.ended_ns = moment(now_ns), now_ns
        if len(self._alerts) > 2 * self._most:
            self._remove(alert)
            self.dropped += 1
        else:
            self._tell(alert)

    def _tell(self, alert: Alert) -> None:
        alert.version += 1
        alert.tries = [0] * len(self._turns)
        alert.waiting = set(range(len(self._turns)))
        for turns in self._turns:
            turns.fresh[alert.key[1]][alert.key] = None
        if not self._turns:
            del self._alerts[alert.key]

    # -- who is due --------------------------------------------------------------------------------

    def due(self, server: int, now_s: float, most: int) -> list[Alert]:
        """At most ``most`` alerts that ``server`` is to be told now; they stay due until it is known what
        became of them.  What is told again is looked for once a second, so that it goes in batches."""
        turns = self._turns[server]
        if now_s - turns.looked_s >= AGAIN_S:
            turns.looked_s = now_s
            while turns.again and turns.again[0][0] <= now_s:
                at_s, key = heapq.heappop(turns.again)
                alert = self._alerts.get(key)
                if alert is not None and alert.due[server] == at_s:
                    turns.fresh[key[1]].setdefault(key)
        out: list[Alert] = []
        for queue in turns.fresh.values():
            out += [self._alerts[key] for key in _first(queue, most - len(out))]
        return out

    def waiting(self, server: int) -> int:
        """How many alerts the server is to be told now."""
        return sum(len(queue) for queue in self._turns[server].fresh.values())

    def adopt(self, alerts: Iterable[Alert], found: Iterable[Known], now_ns: int) -> list[Alert]:
        """Give alerts their identity: what is in force where there is one, of this incident or, where a
        detector without memory began again, of this subscriber.  Those that are still to be told: an end of
        what does not fire is not, nor what was forgotten meanwhile: another tells of it.  What fires of an
        incident in another severity than ours is ended."""
        known = list(found)
        mine = {(k.labels["incident"], k.labels["severity"]): k for k in known}
        others = {
            (k.labels["subscriber"], k.labels["severity"]): k
            for key, k in mine.items()
            if key not in self._alerts
        }
        out = []
        for alert in alerts:
            incident, severity = alert.key
            if self._alerts.get(alert.key) is not alert:
                continue
            if alert.known is None:
                alert.known = mine.get(alert.key) or others.pop((alert.document.subscriber, severity), None)
                if alert.known is None and alert.ends is not None:
                    self._remove(alert)
                    continue
                alert.known = alert.known or self._made(alert, (incident, "ticket") in mine, now_ns)
            out.append(alert)
            for key in ((incident, other) for other in NAMES):
                if key in mine and key not in self._alerts:
                    stale = self._alerts[key] = Alert(key, alert.document, len(self._turns))
                    stale.known = mine[key]
                    self._end(stale, alert.document, now_ns)
        return out

    def _made(self, alert: Alert, was_ticket: bool, now_ns: int) -> Known:
        document, (incident, severity) = alert.document, alert.key
        given = labels(document, severity, self._site)
        ticket = self._alerts.get((incident, "ticket"))
        if severity == "page" and (was_ticket or (ticket is not None and ticket.known is not None)):
            # Such a page must not inhibit its own ticket: nobody would be told that the ticket is over.
            given["after"] = "ticket"
        # The data's time may be ahead of ours; an alert of the future would not fire.
        return Known(given, min(document.first_seen, moment(now_ns)))

    def told(self, server: int, alert: Alert, version: int, now_s: float) -> None:
        """The server has taken this version of an alert."""
        if alert.version != version or self._alerts.get(alert.key) is not alert:
            return
        alert.waiting.discard(server)
        alert.tries[server] = 0
        self._turns[server].fresh[alert.key[1]].pop(alert.key, None)
        if alert.ends is None:
            self._later(server, alert, now_s)
        elif not alert.waiting:
            self._remove(alert)

    def failed(self, server: int, alert: Alert, *, most: int, now_s: float, now_ns: int) -> bool:
        """The server has not taken it.  Whether it stays due; else it is told when its turn comes again."""
        if self._alerts.get(alert.key) is not alert:
            return False
        alert.tries[server] += 1
        if alert.tries[server] <= most:
            return True
        alert.tries[server] = 0
        self._turns[server].fresh[alert.key[1]].pop(alert.key, None)
        if alert.ends is not None and now_ns - alert.ended_ns > ENDED_NS:
            self._remove(alert)
        else:
            self._later(server, alert, now_s)
        return False

    def _later(self, server: int, alert: Alert, now_s: float) -> None:
        """Due again after ``resend_s``; the first time somewhat sooner, each at its own, to spread them."""
        wait_s = self._resend_s
        if not alert.due[server]:
            wait_s *= 0.5 + (zlib.crc32(alert.key[0].encode()) & 0xFFFF) / 0x20000
        alert.due[server] = now_s + wait_s
        heapq.heappush(self._turns[server].again, (alert.due[server], alert.key))

    def _remove(self, alert: Alert) -> None:
        if self._alerts.get(alert.key) is alert:
            del self._alerts[alert.key]
            for turns in self._turns:
                turns.fresh[alert.key[1]].pop(alert.key, None)


def _first(queue: dict[Key, None], most: int) -> list[Key]:
    return [key for key, _ in zip(queue, range(most), strict=False)]
