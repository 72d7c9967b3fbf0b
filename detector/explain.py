"""Words for people: an incident as one sentence, and quantities with their units."""

from typing import Final

from detector.document import Incident
from detector.incidents import State

PREFIXES: Final = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
VERBS: Final = {
    State.SUSPECTED: "may mine",
    State.CONFIRMED: "mines",
    State.RESOLVED: "has stopped mining",
    State.QUIET: "is no longer suspected of mining",
}


def quantity(value: float, unit: str) -> str:
    """A number with three significant digits and an SI prefix: 24512.0, "H/s" gives 24.5 kH/s."""
    for factor, prefix in PREFIXES:
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def rate_words(document: Incident) -> str:
    """Each hash rate with its interval; an upper bound where no share was seen."""
    words = []
    for rate in document.hashrate:
        bounds = f"{quantity(rate.low, '')}-{quantity(rate.high, rate.unit)}"
        if rate.value is None:
            words.append(f"under {quantity(rate.high, rate.unit)} {rate.algorithm}")
        else:
            words.append(f"{quantity(rate.value, rate.unit)} {rate.algorithm} ({bounds})")
    return ", ".join(words)


def coin_words(document: Incident) -> str:
    """Each coin and why it is that one; why none is named; what is paid where that is another matter."""
    words = [f"{r.coin or 'unknown'} ({r.why})" for r in document.coin_reasons]
    if document.paid_coins:
        words.append(f"paid in {', '.join(document.paid_coins)}")
    return "; ".join(words)


def energy_words(document: Incident) -> str:
    """Kilowatt hours a day, and between which bounds."""
    energy = document.kwh_per_day
    return "" if energy is None else f"{energy.typical:.3g} kWh a day ({energy.low:.3g} to {energy.high:.3g})"


def headline(document: Incident) -> str:
    """One line for a pager: who, what, how sure, on what evidence, and the next step."""
    verb = VERBS[document.state]
    if document.role != "miner" and document.state is State.CONFIRMED:
        verb = f"serves miners as a {document.role}"
    where = document.place.unit if document.place and document.place.unit else ""
    head = f"{document.subscriber}{f' ({where})' if where else ''} {verb}"
    facts = [coin_words(document) if document.coins else ", ".join(document.algorithms)]
    facts += [rate_words(document), energy_words(document)]
    facts += [", ".join(document.dialects), f"belief {document.belief:.4f}"]
    why = document.evidence[0].why if document.evidence else "what it rested on was withdrawn"
    return f"{head}: {'; '.join(f for f in facts if f)}. {why}. {next_step(document)}"


def next_step(document: Incident) -> str:
    """What the one who reads it should do."""
    if document.state is State.CONFIRMED:
        return "Find the host behind this address and its owner."
    if document.state is State.SUSPECTED:
        return "Watch it; nothing is proved yet."
    return "Nothing to do."
