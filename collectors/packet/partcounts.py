"""Counters of fragments, tunnels and forged segments: what the compiled pass counted, moved to a registry."""

from prometheus_client import CollectorRegistry, Counter

from collectors.errors import Reason
from collectors.packet import fragments, lasting, vias
from collectors.packet.ageing import NOT_TAKEN, UNTAKEN, Outputs


class PartMetrics:
    """Everything that moves in this file, declared where it moves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.fragments = Counter(
            "poolwatch_collector_packet_fragments_total",
            "IP fragments (seen, repeated, overlap, bad, orphaned) and what became of the packets that were "
            "to be put together (the rest).",
            ("outcome",),
            registry=registry,
        )
        self.untold = Counter(
            "poolwatch_collector_packet_tunnels_untold_total",
            "Connections whose tunnel found no room in the table of tunnels.",
            registry=registry,
        )
        self.lasting = Counter(
            "poolwatch_collector_packet_lasting_total",
            "Connections older than a minute whose pushes and TLS records are kept (opened), that lost "
            "their place after a silence (evicted) or found none (no_room); what was not kept of them: "
            "pushes beyond eight a minute, places where the next TLS record was not found.",
            ("outcome",),
            registry=registry,
        )
        self.untaken = Counter(
            "poolwatch_collector_packet_payload_refused_total",
            "TCP segments whose payload no end point takes, and which is left out: without ACK, of a RST, "
            "of a SYN inside a connection.",
            ("reason",),
            registry=registry,
        )
        for reason in UNTAKEN:
            self.untaken.labels(reason)
        for outcome in lasting.OUTCOMES:
            self.lasting.labels(outcome)
        for outcome in fragments.OUTCOMES:
            self.fragments.labels(outcome)

    def count(self, out: Outputs, refused: Counter) -> None:
        """Move what was counted since the last call; a fragment whose first never came is ``refused``."""
        counts = out.pieces.counts
        for outcome, by in zip(fragments.OUTCOMES, counts.tolist(), strict=True):
            if by:
                self.fragments.labels(outcome).inc(by)
        if counts[fragments.ORPHANED]:
            refused.labels(Reason.FRAGMENT).inc(int(counts[fragments.ORPHANED]))
        kept = out.lasting.state[lasting.OPENED :]
        for outcome, by in zip(lasting.OUTCOMES, kept.tolist(), strict=True):
            if by:
                self.lasting.labels(outcome).inc(by)
        kept[:] = 0
        if out.vias.state[vias.UNTOLD]:
            self.untold.inc(int(out.vias.state[vias.UNTOLD]))
        untaken = out.counters[NOT_TAKEN : NOT_TAKEN + len(UNTAKEN)]
        for reason, by in zip(UNTAKEN, untaken.tolist(), strict=True):
            if by:
                self.untaken.labels(reason).inc(by)
        untaken[:] = 0
        counts[:] = 0
        out.vias.state[vias.UNTOLD] = 0
