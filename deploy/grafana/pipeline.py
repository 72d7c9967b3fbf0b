"""*Pipeline*: whether the figures can be trusted.  Collectors, bus, detectors."""

from typing import Final

import collecting
from layout import Dashboard, Panel
from queries import FIRING, quantiles, rate, total

OUTPUT: Final = "poolwatch_detector_output_bus"
DETECTOR: Final = "poolwatch_detector"

PANELS: Final = (
    "Health",
    Panel(
        "stat",
        "Instances up",
        "Of each job, those that answer Prometheus.",
        "none",
        (('sum by (job) (up{#, job=~"poolwatch-.+"})', "{{job}}"),),
        6,
    ),
    Panel(
        "stat",
        "Instances down",
        "Those that are listed and do not answer.",
        "none",
        (('sum(up{#, job=~"poolwatch-.+"} == bool 0)', ""),),
        3,
    ),
    Panel(
        "stat",
        "Watermark lag",
        "How old that is of which surely all has come. Replays are as old as their data.",
        "s",
        (("max(time() - poolwatch_detector_watermark_timestamp_seconds{#})", ""),),
        3,
    ),
    Panel(
        "stat",
        "Bus lag",
        "Messages on the bus that no detector has judged.",
        "none",
        ((total(f"{DETECTOR}_bus_lag_messages"), ""),),
        3,
    ),
    Panel(
        "table",
        "Alerts firing",
        "Prometheus alerts; the runbook page has the alert's name.",
        "none",
        ((f"count by (alertname, severity) ({FIRING})", ""),),
        4,
    ),
    Panel(
        "table",
        "Versions",
        "What each detector runs.",
        "none",
        (("sum by (job, instance, version) (poolwatch_build_info{#})", ""),),
        5,
    ),
    Panel(
        "lines",
        "Restarts in an hour",
        "Times that the counters of a detector began anew.",
        "none",
        ((f"resets({DETECTOR}_batch_seconds_count{{#}}[1h])", "{{instance}}"),),
        24,
    ),
    *collecting.PANELS,
    "Detector",
    Panel(
        "lines",
        "Messages judged",
        "By stream.",
        "ops",
        ((rate(f"{DETECTOR}_messages_total", "stream"), "{{stream}}"),),
        6,
    ),
    Panel(
        "lines",
        "Rows judged",
        "By stream.",
        "ops",
        ((rate(f"{DETECTOR}_rows_total", "stream"), "{{stream}}"),),
        6,
    ),
    Panel(
        "lines",
        "Batch latency",
        "Wall time to take in one message.",
        "s",
        quantiles(f"{DETECTOR}_batch_seconds"),
        6,
    ),
    Panel(
        "heatmap",
        "Batch latency, all",
        "Messages per second by the time that they took.",
        "s",
        ((rate(f"{DETECTOR}_batch_seconds_bucket", "le"), "{{le}}"),),
        6,
    ),
    Panel(
        "lines",
        "Lag by partition",
        "Messages on the bus and not judged.",
        "none",
        ((total(f"{DETECTOR}_bus_lag_messages", "partition"), "{{partition}}"),),
        6,
    ),
    Panel(
        "lines",
        "Watermark lag",
        "How old that is of which surely all has come; minutes close and incidents resolve so much later.",
        "s",
        ((f"time() - {DETECTOR}_watermark_timestamp_seconds{{#}}", "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Partitions",
        "Partitions that each detector judges.",
        "none",
        ((f"{DETECTOR}_partitions{{#}}", "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Assignments",
        "Of partitions by the group, per second.",
        "ops",
        ((rate(f"{DETECTOR}_rebalances_total", "instance"), "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "State written",
        "Records per second.",
        "ops",
        ((rate(f"{DETECTOR}_state_records_total", "instance"), "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "State octets",
        "Before compression.",
        "Bps",
        ((rate(f"{DETECTOR}_state_bytes_total", "instance"), "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "State lost",
        "Records that were unreadable, and items left out of those that were too large.",
        "ops",
        (
            (rate(f"{DETECTOR}_state_corrupt_total"), "unreadable"),
            (rate(f"{DETECTOR}_state_cut_total"), "left out"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Messages skipped",
        "Messages of the bus that could not be read, by stream and reason.",
        "ops",
        (
            (rate(f"{DETECTOR}_bus_messages_refused_total", "stream", "reason"), "{{stream}} {{reason}}"),
            (rate(f"{DETECTOR}_bus_corrupt_batches_total"), "checksum"),
        ),
        6,
    ),
    Panel(
        "lines",
        "Batches",
        "By their numbers: lost on the way, come twice, or sent by collectors that disagree on what is home.",
        "ops",
        tuple(
            (rate(f"{DETECTOR}_arrivals_{what}_total"), what) for what in ("lost", "repeated", "disagreeing")
        ),
        6,
    ),
    Panel(
        "lines",
        "Store bounds",
        "What was forgotten because there was no room.",
        "ops",
        tuple(
            (rate(f"{DETECTOR}_store_dropped_{what}_total"), what)
            for what in ("subscribers", "sessions", "contacts", "resolved")
        ),
        6,
    ),
    Panel(
        "lines",
        "Payload refused",
        "Lines on candidate connections that no dialect reads, by reason.",
        "ops",
        ((rate(f"{DETECTOR}_payload_refused_total", "reason"), "{{reason}}"),),
        6,
    ),
    Panel(
        "lines",
        "Deliveries",
        "Alerts and documents handed to a sink, by what became of them.",
        "ops",
        ((rate("poolwatch_alert_deliveries_total", "sink", "outcome"), "{{sink}} {{outcome}}"),),
        6,
    ),
    Panel(
        "lines",
        "Output to Kafka",
        "Alerts, incidents, endpoints and state: messages acknowledged, by stream; failed, by reason.",
        "ops",
        (
            (rate(f"{OUTPUT}_messages_total", "stream"), "{{stream}}"),
            (rate(f"{OUTPUT}_failed_total", "reason"), "failed {{reason}}"),
        ),
        12,
    ),
    Panel(
        "lines",
        "Output in flight",
        "Octets that Kafka has not yet acknowledged.",
        "bytes",
        ((f"{OUTPUT}_in_flight_bytes{{#}}", "{{instance}}"),),
        6,
    ),
    Panel(
        "lines",
        "Label overflow",
        "Label sets beyond the cap of 1,000, summed up as other.",
        "none",
        (("poolwatch_label_overflow_total{#}", "{{instance}}"),),
        6,
    ),
)

DASHBOARD: Final = Dashboard(
    "poolwatch-pipeline",
    "Pipeline",
    "Whether the figures can be trusted: collectors, bus, detectors.",
    PANELS,
    {},
)
