"""What is known of one observation domain, as a row of integers (i8) that kernels read and write.

An observation domain is one of an exporter's, by protocol and number: an engine in v5, a source id in v9.
"""

from typing import Final

# Its exporter's number, protocol (as the column ``source`` says) and number; the rate in force, Unix ms of
# the exporter's start (0: not known), when it was last heard; the slot of its layout where that is fixed.
D_EXPORTER, D_VERSION, D_ID, D_RATE, D_BOOT, D_SEEN, D_FIXED = range(7)
# Where else rates come from than from the domain and the records themselves (a union of the flags), and the
# rate that is configured for where the exporter says nothing.
D_RATING, D_FILL = 7, 8
FORCED: Final = 1  # the configured one holds, whatever the exporter says
BY_INTERFACE: Final = 2
FORCED_BY_INTERFACE: Final = 4
# The sequence number that comes next by the standard's way of counting and by the other one (-1: not known),
# which of them holds (STANDARD, OTHER or NONE), how often in a row only the other one fitted, and how much
# speaks against both; datagrams behind in a row; the uptime last told, the newest time of export, and how
# many templates the datagram before had.
(
    D_NEXT, D_NEXT_OTHER, D_COUNTING, D_OTHER_FITS, D_STRANGE, D_BEHIND, D_UPTIME, D_EXPORT, D_TEMPLATES,
) = range(9, 18)  # fmt: skip
STANDARD: Final = 0
OTHER: Final = 1
NONE: Final = 2
# Lost and not yet told; then gaps that a late datagram may still fill: how many, and of each where it begins,
# how long it is, and when it was seen.
D_LOST, D_GAPS, D_GAP = 18, 19, 20
GAPS: Final = 8
GAP: Final = 3
# When it last told a record whose template is known, and data sets dropped for want of a template and not yet
# told.
D_DATA: Final = D_GAP + GAPS * GAP
D_DROPPED: Final = D_DATA + 1
DOMAIN: Final = D_DATA + 2
