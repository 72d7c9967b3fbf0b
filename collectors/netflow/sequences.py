"""Sequence numbers: what was lost, told apart from what was overtaken, repeated, or begun anew.

v5 and v7 count flows, v9 datagrams (RFC 3954 section 5.1), IPFIX data records, options among them and
templates not (RFC 7011 section 3.1).  The rules, per observation domain:

- A step ahead opens a gap.  What comes late within ``WAIT_NS`` is taken out of it; what then is left is lost.
- A step back into no gap is a repeat; with a later time of export, or so many in a row, a restart.  An uptime
  that goes back (but for its wrap) is a restart, whatever the sequence says.
- Some exporters count otherwise (IPFIX and v5 by datagrams, v9 by records): where six steps in a row fit
  only that, it holds from then on, and the gaps that it made are forgotten.  IPFIX that counts templates too
  leaves a step as long as the templates of the datagram before: no gap.
- Where steps go back over and over, the sequence says nothing, and nothing is counted by it until it fits
  again for long enough.  A step ahead is never held against it: that is what loss looks like.
"""

from typing import Final

import numpy as np

from collectors.jit import bare as kernel
from collectors.netflow.domains import (
    D_BEHIND,
    D_COUNTING,
    D_EXPORT,
    D_GAP,
    D_GAPS,
    D_LOST,
    D_NEXT,
    D_NEXT_OTHER,
    D_OTHER_FITS,
    D_STRANGE,
    D_TEMPLATES,
    D_UPTIME,
    D_VERSION,
    GAP,
    GAPS,
    NONE,
    OTHER,
    STANDARD,
)

# Protocols as the column ``source`` of the stream says: 3 is NetFlow v1.
PROTOCOLS: Final = (5, 9, 10, 3, 7)
# Counters (i8) of one protocol: datagrams and their octets, records by kind, then what sequences tell.
(
    N_DATAGRAMS, N_OCTETS, N_FLOW, N_OTHER, N_OPTIONS, N_LOST, N_GAPS, N_LATE, N_REPEATED, N_RESTARTS,
) = range(10)  # fmt: skip
PER_PROTOCOL: Final = 10

# A late datagram is waited for so long; reordering on a path takes milliseconds.
WAIT_NS: Final = 2_000_000_000
# For ``expire``: every gap, the input is over.
EVER: Final = (1 << 63) - 1
# A step forward beyond this (v9: datagrams; else records) is no loss that could be.
FAR_DATAGRAMS: Final = 1 << 22
FAR_RECORDS: Final = 1 << 28
# A step back by so much may be a datagram that was overtaken; so many in a row are a restart.
_BEHIND: Final = 4096
_BEHIND_IN_A_ROW: Final = 8
_FITS_IN_A_ROW: Final = 6
_STRANGE_EACH: Final = 4
_STRANGE: Final = 64
# An uptime may go back by so much between datagrams that overtook one another, in ms.
_UPTIME_SLACK: Final = 60_000
_MASK: Final = 0xFFFFFFFF


@kernel
def _close(domain, i):
    """Remove gap ``i``."""
    for g in range(D_GAP + i * GAP, D_GAP + (domain[D_GAPS] - 1) * GAP):
        domain[g] = domain[g + GAP]
    domain[D_GAPS] -= 1


@kernel
def _lose(domain, count):
    """The oldest gap is lost."""
    domain[D_LOST] += domain[D_GAP + 1]
    count[N_LOST] += domain[D_GAP + 1]
    count[N_GAPS] += 1
    _close(domain, 0)


@kernel
def _expire(domain, before_ns, count):
    """Gaps from before that time are lost; while another way of counting is tried, none is."""
    while domain[D_GAPS] and not domain[D_OTHER_FITS] and domain[D_GAP + 2] < before_ns:
        _lose(domain, count)


@kernel
def _open(domain, start, length, received, count):
    if domain[D_GAPS] == GAPS:
        _lose(domain, count)
    g = D_GAP + domain[D_GAPS] * GAP
    domain[g] = start
    domain[g + 1] = length
    domain[g + 2] = received
    domain[D_GAPS] += 1


@kernel
def _fill(domain, told, units, count):
    """Take a late datagram out of the gap that it belongs to; whether there is one.

    ``units`` negative: not known how many, so it is given the rest.
    """
    for i in range(domain[D_GAPS]):
        g = D_GAP + i * GAP
        start, length = domain[g], domain[g + 1]
        left = (told - start) & _MASK
        if left >= length:
            continue
        right = max(np.int64(0), length - left - units) if units >= 0 else np.int64(0)
        if left == 0 and right == 0:
            _close(domain, i)
        elif left == 0:
            domain[g] = (start + length - right) & _MASK
            domain[g + 1] = right
        elif right == 0 or domain[D_GAPS] == GAPS:
            # No room for two pieces: the second is lost at once.
            domain[g + 1] = left
            domain[D_LOST] += right
            count[N_LOST] += right
        elif units:
            for k in range(D_GAP + domain[D_GAPS] * GAP - 1, g + GAP - 1, -1):
                domain[k + GAP] = domain[k]
            domain[D_GAPS] += 1
            domain[g + 1] = left
            domain[g + GAP] = (start + length - right) & _MASK
            domain[g + GAP + 1] = right
            domain[g + GAP + 2] = domain[g + 2]
        return True
    return False


@kernel
def _fits(domain, told, ahead):
    """Whether the step fits; where only the other way of counting does, often enough, that one holds."""
    if ahead == 0:
        domain[D_OTHER_FITS] = 0
        if domain[D_STRANGE]:
            domain[D_STRANGE] -= 1
            if not domain[D_STRANGE] and domain[D_COUNTING] == NONE:
                domain[D_COUNTING] = STANDARD
        return True
    if domain[D_COUNTING] == NONE:
        return False
    other = domain[D_NEXT] if domain[D_COUNTING] == OTHER else domain[D_NEXT_OTHER]
    if other != told:
        if ahead == domain[D_TEMPLATES]:
            return True
        domain[D_OTHER_FITS] = 0
        return False
    domain[D_OTHER_FITS] += 1
    if domain[D_OTHER_FITS] >= _FITS_IN_A_ROW:
        domain[D_COUNTING] = STANDARD if domain[D_COUNTING] == OTHER else OTHER
        domain[D_OTHER_FITS] = 0
        domain[D_GAPS] = 0
        return True
    # Behind, it is no repeat either: go on from it.
    return ahead >= 0x80000000


@kernel
def _strange(domain):
    domain[D_STRANGE] += _STRANGE_EACH
    if domain[D_STRANGE] >= _STRANGE:
        domain[D_STRANGE] = _STRANGE
        domain[D_COUNTING] = NONE
        domain[D_GAPS] = 0


@kernel
def sequence(domain, told, units, other, templates, uptime, export, received, far, count):
    """Account for a datagram that says ``told``; ``count`` are its protocol's counters.

    ``units`` is what it counts by the standard, ``other`` by the other way (negative: not known);
    ``templates`` how many it has; ``uptime`` ms, negative where the protocol has none; ``export`` and
    ``received`` Unix ns.
    """
    _expire(domain, received - WAIT_NS, count)
    before = domain[D_UPTIME]
    back = (before - uptime) & _MASK
    restarted = uptime >= 0 and before >= 0 and _UPTIME_SLACK < back < 0x80000000
    expected = domain[D_NEXT_OTHER] if domain[D_COUNTING] == OTHER else domain[D_NEXT]
    if expected >= 0 and not restarted:
        ahead = (told - expected) & _MASK
        if not _fits(domain, told, ahead):
            if domain[D_COUNTING] == NONE:
                if ahead >= far:
                    _strange(domain)
            elif ahead < far:
                _open(domain, expected, ahead, received, count)
            elif ahead < 0x100000000 - _BEHIND:
                restarted = True
                _strange(domain)
            elif _fill(domain, told, other if domain[D_COUNTING] == OTHER else units, count):
                count[N_LATE] += 1
                return
            else:
                domain[D_BEHIND] += 1
                if export <= domain[D_EXPORT] and domain[D_BEHIND] <= _BEHIND_IN_A_ROW:
                    count[N_REPEATED] += 1
                    return
                restarted = True
                _strange(domain)
    if restarted:
        count[N_RESTARTS] += 1
        domain[D_OTHER_FITS] = 0
        domain[D_EXPORT] = export
    domain[D_BEHIND] = 0
    domain[D_UPTIME] = uptime
    domain[D_EXPORT] = max(domain[D_EXPORT], export)
    domain[D_TEMPLATES] = templates
    domain[D_NEXT] = (told + units) & _MASK if units >= 0 else np.int64(-1)
    domain[D_NEXT_OTHER] = (told + other) & _MASK if other >= 0 else np.int64(-1)


@kernel
def expire(domains, most, before_ns, counters):
    """Gaps of the first ``most`` domains from before that time are lost, though nothing came since."""
    for d in range(most):
        domain = domains[d]
        if domain[D_GAPS]:
            protocol = 0
            for k in range(len(PROTOCOLS)):
                if PROTOCOLS[k] == domain[D_VERSION]:
                    protocol = k
            count = counters[protocol * PER_PROTOCOL : (protocol + 1) * PER_PROTOCOL]
            if before_ns == EVER:
                domain[D_OTHER_FITS] = 0
            _expire(domain, before_ns, count)
