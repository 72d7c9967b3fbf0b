"""*Mining*: what is found.  Traffic, miners, hash rate, power, campaigns."""

from typing import Final

from layout import Dashboard, Panel
from queries import FIRING, most, rate, total

TYPICAL: Final = ', device="typical"'


def in_and_out(by: str) -> tuple[tuple[str, str], ...]:
    """Mbps to subscribers, and from them (drawn downwards)."""
    metric = "poolwatch_mining_mbps"
    return tuple(
        (total(metric, by, matchers=f', direction="{direction}"'), f"{{{{{by}}}}} {word}")
        for direction, word in (("down", "in"), ("up", "out"))
    )


SPREAD: Final = (
    "1.96 * sqrt(" + total("poolwatch_hashrate_variance", matchers=', algorithm=~"$algorithm"') + ")"
)
HASHRATE: Final = total("poolwatch_hashrate", matchers=', algorithm=~"$algorithm"')

PANELS: Final = (
    "Now",
    Panel(
        "stat",
        "Mining traffic",
        "IP octets of mining connections in the last closed minute, both directions.",
        "Mbits",
        ((total("poolwatch_mining_mbps"), ""),),
        4,
    ),
    Panel(
        "stat",
        "Miners",
        "Subscribers that are confirmed to mine.",
        "none",
        ((total("poolwatch_miners", matchers=', state="confirmed"'), ""),),
        3,
    ),
    Panel(
        "stat",
        "Suspected",
        "Subscribers with some evidence, not enough for a page.",
        "none",
        ((total("poolwatch_miners", matchers=', state="suspected"'), ""),),
        3,
    ),
    Panel(
        "stat",
        "Power",
        "By the energy table, for a typical device of each algorithm.",
        "kwatt",
        ((total("poolwatch_power_watts", matchers=TYPICAL) + " / 1000", ""),),
        3,
    ),
    Panel(
        "stat",
        "Energy per day",
        "If the present power lasts for 24 hours, typical devices.",
        "kwatth",
        ((f"24 * {total('poolwatch_power_watts', matchers=TYPICAL)} / 1000", ""),),
        3,
    ),
    Panel(
        "stat",
        "Open incidents",
        "By the severity of their alert: a page is confirmed, a ticket suspected.",
        "none",
        ((total("poolwatch_alerts_firing", "severity"), "{{severity}}"),),
        4,
    ),
    Panel(
        "table",
        "Alerts firing",
        "Prometheus alerts on mining and on poolwatch itself; the runbook page has the alert's name.",
        "none",
        ((f"count by (alertname, severity) ({FIRING})", ""),),
        4,
    ),
    "Traffic",
    Panel(
        "lines",
        "Traffic by coin, in and out",
        "In is to subscribers, out is from them. Coins that no evidence names are unknown.",
        "Mbits",
        in_and_out("coin"),
        12,
    ),
    Panel(
        "lines",
        "Traffic by pool operator, in and out",
        "The operator by the pool table; unlisted endpoints are unknown.",
        "Mbits",
        in_and_out("operator"),
        12,
    ),
    Panel(
        "lines",
        "Traffic by basis",
        "Protocol was read in the traffic, endpoint rests on an address alone, estimate is "
        "scaled by a sampling rate.",
        "Mbits",
        ((total("poolwatch_mining_mbps", "basis"), "{{basis}}"),),
        8,
    ),
    Panel(
        "lines",
        "Traffic and its usual level",
        "The mean of the last hour, and the median of the same hour of the last seven days: "
        "PoolwatchMiningTrafficAboveUsual.",
        "Mbits",
        (("all:poolwatch_mining_mbps:avg1h", "last hour"), ("all:poolwatch_mining_mbps:usual", "usual")),
        8,
    ),
    Panel(
        "lines",
        "Traffic by city",
        "By the place list; subscribers in none are unknown. From the octets counted, so it "
        "moves when a minute is closed.",
        "Mbits",
        ((f"{rate('poolwatch_mining_bytes_by_place_total', 'city')} * 8 / 1e6", "{{city}}"),),
        8,
    ),
    "Miners",
    Panel(
        "lines",
        "Miners by state",
        "Subscribers with an incident.",
        "none",
        ((total("poolwatch_miners", "state"), "{{state}}"),),
        6,
    ),
    Panel(
        "lines",
        "Miners by coin",
        "Confirmed miners; one with two coins counts in both.",
        "none",
        ((total("poolwatch_miners_by_coin", "coin"), "{{coin}}"),),
        6,
    ),
    Panel(
        "table",
        "Miners by sector and city",
        "Confirmed miners by the place list.",
        "none",
        ((total("poolwatch_miners_by_place", "sector", "city"), ""),),
        6,
    ),
    Panel(
        "lines",
        "New and ended per hour",
        "Transitions of incidents, by the state they go to.",
        "none",
        ((f"3600 * {rate('poolwatch_incident_transitions_total', 'to')}", "{{to}}"),),
        6,
    ),
    Panel(
        "lines",
        "Evidence",
        "Observations per second, by kind.",
        "ops",
        ((rate("poolwatch_evidence_total", "kind"), "{{kind}}"),),
        24,
    ),
    "Hash rate",
    Panel(
        "band",
        "Hash rate of $algorithm",
        "From accepted shares and their difficulty, with the 95 % interval (1.96 standard "
        "deviations of their Poisson number).",
        "Hs",
        (
            (HASHRATE, "hash rate"),
            (f"clamp_min({HASHRATE} - {SPREAD}, 0)", "low"),
            (f"{HASHRATE} + {SPREAD}", "high"),
        ),
        8,
        repeat="algorithm",
    ),
    "Power",
    Panel(
        "lines",
        "Power by device",
        "Hash rate times joules per hash of a low, a typical and a high device of the energy table.",
        "kwatt",
        ((f"{total('poolwatch_power_watts', 'device')} / 1000", "{{device}}"),),
        8,
    ),
    Panel(
        "lines",
        "Power by algorithm",
        "Typical devices.",
        "kwatt",
        ((f"{total('poolwatch_power_watts', 'algorithm', matchers=TYPICAL)} / 1000", "{{algorithm}}"),),
        8,
    ),
    Panel(
        "lines",
        "Energy per day by device",
        "At the mean power of the last 24 hours, hours without miners included.",
        "kwatth",
        (("device:poolwatch_energy_kilowatt_hours:per_day", "{{device}}"),),
        8,
    ),
    Panel(
        "lines",
        "Energy per day by algorithm",
        "If the present power lasts for 24 hours, typical devices.",
        "kwatth",
        ((total("poolwatch_energy_kwh_per_day", "algorithm", matchers=TYPICAL), "{{algorithm}}"),),
        12,
    ),
    Panel(
        "lines",
        "Energy per day by coin",
        "The same; unknown where nothing says which coin it is.",
        "kwatth",
        ((total("poolwatch_energy_kwh_per_day_by_coin", "coin", matchers=TYPICAL), "{{coin}}"),),
        12,
    ),
    "Campaigns",
    Panel(
        "stat",
        "Campaigns",
        "Wallets, and patterns of account names at one service, that several subscribers mine for at once.",
        "none",
        ((most("poolwatch_campaigns", "kind"), "{{kind}}"),),
        4,
    ),
    Panel(
        "stat",
        "Largest campaign",
        "Subscribers that mine for one name: `poolwatch campaigns` tells which.",
        "none",
        ((most("poolwatch_campaign_largest", "kind"), "{{kind}}"),),
        4,
    ),
    Panel(
        "table",
        "Subscribers of campaigns by sector",
        "By the place list; one of two campaigns counts twice.",
        "none",
        ((most("poolwatch_campaign_subscribers_by_sector", "sector"), ""),),
        4,
    ),
    Panel(
        "lines",
        "Subscribers of campaigns",
        "All that mine for a name that several mine for.",
        "none",
        ((most("poolwatch_campaign_subscribers", "kind"), "{{kind}}"),),
        4,
    ),
    Panel(
        "lines",
        "Hash rate of campaigns",
        "Measured, of the incidents of campaigns that are open.",
        "Hs",
        ((most("poolwatch_campaign_hashrate", "algorithm"), "{{algorithm}}"),),
        4,
    ),
    Panel(
        "lines",
        "Energy per day of campaigns",
        "If their present power lasts for 24 hours.",
        "kwatth",
        ((f"24 * {most('poolwatch_campaign_power_watts', 'device')} / 1000", "{{device}}"),),
        4,
    ),
)

DASHBOARD: Final = Dashboard(
    "poolwatch-mining",
    "Mining",
    "What is found: traffic, miners, hash rate, power, campaigns.",
    PANELS,
    {"algorithm": "poolwatch_hashrate"},
)
