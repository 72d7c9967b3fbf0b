"""Panels on collectors and their bus, for *Pipeline*."""

from typing import Final

from layout import Panel
from queries import quantiles, rate

PACKET: Final = "poolwatch_collector_packet"
FLOW: Final = "poolwatch_collector_netflow"
BUS: Final = "poolwatch_collector_bus"
DETECTOR: Final = "poolwatch_detector"
NINE: Final = ', protocol="netflow9"'
NOT_NINE: Final = ', protocol!="netflow9"'

LOST: Final = rate(f"{FLOW}_lost_total", "protocol")
CAME: Final = (
    f"({rate(f'{FLOW}_datagrams_total', 'protocol', matchers=NINE)}"
    f" or {rate(f'{FLOW}_records_total', 'protocol', matchers=NOT_NINE)})"
)
DROPS: Final = (
    f"{rate(f'{PACKET}_kernel_drops_total', 'instance', 'interface')}"
    f" / {rate(f'{PACKET}_kernel_packets_total', 'instance', 'interface')}"
)

PANELS: Final = (
    "Packet collectors",
    Panel(
        "lines",
        "Frames",
        "Frames read, per second.",
        "pps",
        ((rate(f"{PACKET}_frames_total", "instance"), "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Octets",
        "Octets captured, link layer included.",
        "Bps",
        ((rate(f"{PACKET}_bytes_total", "instance"), "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Frames refused",
        "By reason; not_ip and fragment are normal.",
        "pps",
        ((rate(f"{PACKET}_refused_total", "reason"), "{{reason}}"),),
        6,
    ),
    Panel(
        "lines",
        "Kernel drops",
        "Of the frames that passed the filter, those that found the ring full.",
        "percentunit",
        ((DROPS, "{{instance}} {{interface}}"),),
        6,
    ),
    Panel(
        "lines",
        "Interfaces",
        "1 while the interface is there, up and has a carrier.",
        "none",
        ((f"{PACKET}_interface_up{{#}}", "{{instance}} {{interface}}"),),
        6,
    ),
    Panel(
        "lines",
        "Interfaces: full rings and reopenings",
        "Times per second that a ring was full, and that an interface came back.",
        "ops",
        (
            (rate(f"{PACKET}_kernel_freezes_total", "interface"), "{{interface}} full"),
            (rate(f"{PACKET}_interface_reopened_total", "interface"), "{{interface}} reopened"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Flow table",
        "Connections in the table; its size is collectors.packets.flow_slots.",
        "none",
        ((f"{PACKET}_table_rows{{#}}", "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Evictions and new connections",
        "Connections entered, and those pushed out because the table was full.",
        "ops",
        ((rate(f"{PACKET}_connections_total"), "entered"), (rate(f"{PACKET}_evictions_total"), "evicted")),
        6,
    ),
    Panel(
        "lines",
        "Candidates",
        "Connections picked by a token or for their first bytes, and segments withheld by a budget.",
        "ops",
        (
            (rate(f"{PACKET}_candidates_total"), "picked"),
            (rate(f"{PACKET}_tentative_total"), "first bytes"),
            (rate(f"{PACKET}_withheld_total"), "withheld"),
        ),
        8,
    ),
    Panel(
        "lines",
        "Reassembly",
        "Connections in reassembly.",
        "none",
        ((f"{PACKET}_reassembly_connections{{#}}", "{{instance}}"),),
        8,
    ),
    Panel(
        "lines",
        "Reassembly drops",
        "Octets, holes or connections, by reason: given_up was lost on the way to us.",
        "ops",
        ((rate(f"{PACKET}_reassembly_drops_total", "reason"), "{{reason}}"),),
        8,
    ),
    "Flow collectors",
    Panel(
        "lines",
        "Datagrams",
        "Export datagrams read, by protocol.",
        "pps",
        ((rate(f"{FLOW}_datagrams_total", "protocol"), "{{protocol}}"),),
        6,
    ),
    Panel(
        "lines",
        "Records",
        "Flow records read, and rows published.",
        "ops",
        (
            (rate(f"{FLOW}_records_total", "protocol"), "{{protocol}}"),
            (rate(f"{FLOW}_rows_total"), "rows published"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Lost by sequence",
        "Of NetFlow v5 flows, v9 datagrams, IPFIX records: those that never came.",
        "percentunit",
        ((f"{LOST} / ({LOST} + {CAME})", "{{protocol}}"),),
        6,
    ),
    Panel(
        "lines",
        "Gaps, late, restarts",
        "Sequences: with a gap, overtaken, begun anew.",
        "ops",
        (
            (rate(f"{FLOW}_gaps_total"), "gaps"),
            (rate(f"{FLOW}_late_total"), "late"),
            (rate(f"{FLOW}_restarts_total"), "restarts"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Datagrams refused",
        "Datagrams or parts of them, by reason; strangers were not let in.",
        "ops",
        (
            (rate(f"{FLOW}_refused_total", "reason"), "{{reason}}"),
            (rate(f"{FLOW}_strangers_total", "reason"), "stranger {{reason}}"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Exporters",
        "Exporters heard in the last hour, and their observation domains.",
        "none",
        (
            (f"{FLOW}_exporters{{#}}", "{{instance}} exporters"),
            (f"{FLOW}_domains{{#}}", "{{instance}} domains"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Templates",
        "Templates known, and what becomes of them per second.",
        "none",
        (
            (f"{FLOW}_templates{{#}}", "{{instance}}"),
            (rate(f"{FLOW}_template_events_total", "event"), "{{event}}"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Waiting for a template",
        "Octets of data sets held.",
        "bytes",
        ((f"{FLOW}_held_bytes{{#}}", "{{instance}}"),),
        3,
    ),
    Panel(
        "lines",
        "Templates that never came",
        "Data sets dropped, by reason.",
        "ops",
        ((rate(f"{FLOW}_dropped_total", "reason"), "{{reason}}"),),
        3,
    ),
    "Bus, collectors",
    Panel(
        "lines",
        "Messages sent",
        "Messages that Kafka has acknowledged, by stream.",
        "ops",
        ((rate(f"{BUS}_messages_total", "stream"), "{{stream}}"),),
        6,
    ),
    Panel(
        "lines",
        "Octets sent",
        "Before compression.",
        "Bps",
        ((rate(f"{BUS}_bytes_total", "stream"), "{{stream}}"),),
        6,
    ),
    Panel(
        "lines",
        "In flight",
        "Octets not yet acknowledged; the bound is kafka.in_flight_bytes.",
        "bytes",
        ((f"{BUS}_in_flight_bytes{{#}}", "{{job}} {{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Messages in flight",
        "Not yet acknowledged; the bound is kafka.in_flight_messages.",
        "none",
        ((f"{BUS}_in_flight_messages{{#}}", "{{job}} {{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Back-pressure",
        "The part of the time that senders of files wait for room.",
        "percentunit",
        ((rate(f"{BUS}_waited_seconds_total", "job", "instance"), "{{job}} {{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Refused and failed",
        "Messages that found no room, and those that Kafka did not take, by reason.",
        "ops",
        (
            (rate(f"{BUS}_refused_total", "stream"), "no room {{stream}}"),
            (rate(f"{BUS}_failed_total", "reason"), "{{reason}}"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Acknowledgement",
        "From the sending of a message to its acknowledgement.",
        "s",
        quantiles(f"{BUS}_send_seconds"),
        6,
    ),
    Panel(
        "lines",
        "No room on the embedded bus",
        "Messages given up in run.",
        "ops",
        ((rate(f"{DETECTOR}_bus_refused_total", "instance"), "{{instance}}"),),
        6,
    ),
)
