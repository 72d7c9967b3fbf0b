"""Queries that panels are made of.  ``#`` stands for the matchers of the menus for job and instance."""

from typing import Final

RATE: Final = "[$__rate_interval]"
FIRING: Final = 'ALERTS{alertname=~"Poolwatch.+", alertname!="PoolwatchWatchdog", alertstate="firing"}'


def rate(metric: str, *by: str, matchers: str = "") -> str:
    """Per second, summed over instances or kept by labels."""
    label = f" by ({', '.join(by)})" if by else ""
    return f"sum{label} (rate({metric}{{#{matchers}}}{RATE}))"


def total(metric: str, *by: str, matchers: str = "") -> str:
    """A gauge, summed."""
    label = f" by ({', '.join(by)})" if by else ""
    return f"sum{label} ({metric}{{#{matchers}}})"


def most(metric: str, *by: str) -> str:
    """A gauge of which every instance tells the same: the largest."""
    label = f" by ({', '.join(by)})" if by else ""
    return f"max{label} ({metric}{{#}})"


def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    """Half of, and 99 of 100, are faster."""
    buckets = rate(f"{metric}_bucket", "le")
    return tuple((f"histogram_quantile({q}, {buckets})", name) for q, name in ((0.5, "half"), (0.99, "99 %")))
