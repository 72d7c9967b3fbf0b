"""What goflow2 and nfacctd themselves wrote of two NetFlow v5 records.

Both were sent the same datagrams, made for this test with random numbers: goflow2 v2.2.6 (``-format=bin
-transport=file``, whose line feeds between messages are left out here), nfacctd 1.7.7 (print plugin, JSON).
Of 3,000 such records both came to the sums of what was sent: 1,498,945,629 bytes, 757,158 packets.
"""

import numpy as np
from flowmessages import plain

from collectors.importing import flowmessage, jsonflows

GOFLOW2 = (
    bytes.fromhex(
        "6e080218643204c63364423a04a461b55e48db9d0f50b0025a047f00000162040000000070f4f70378f5f70380011888"
        "0118900101980102a00106a801b7e503b001851ab80108d00118f0018010f006caf595aeff8e9ef518f80680ccbaa2a3"
        "8d9ef518800780d481abfb8e9ef518"
    ),
    bytes.fromhex(
        "6d080218643204c63364213a043d92089b489b862850aa025a047f00000162040000000070f4f70378f5f70380011888"
        "0118900101980102a00106a801bd0db001851ab80108d00118f0018010f006caf595aeff8e9ef518f80680ccbaa2a38d"
        "9ef518800780d481abfb8e9ef518"
    ),
)
NFACCTD = (
    (
        b'{"event_type": "purge", "as_src": 64500, "as_dst": 64501, "peer_ip_src": "127.0.0.1", "ifa'
        b'ce_in": 1, "iface_out": 2, "ip_src": "198.51.100.66", "ip_dst": "164.97.181.94", "port_src'
        b'": 62135, "port_dst": 3333, "tcp_flags": "24", "ip_proto": "tcp", "tos": 8, "sampling_rate'
        b'": 100, "timestamp_start": "2026-11-22 20:36:39.000000", "timestamp_end": "2026-11-22 20:3'
        b'7:37.000000", "timestamp_arrival": "2026-11-22 20:37:38.081142", "packets": 304, "bytes": '
        b"249563}"
    ),
    (
        b'{"event_type": "purge", "as_src": 64500, "as_dst": 64501, "peer_ip_src": "127.0.0.1", "ifa'
        b'ce_in": 1, "iface_out": 2, "ip_src": "198.51.100.33", "ip_dst": "61.146.8.155", "port_src"'
        b': 1725, "port_dst": 3333, "tcp_flags": "24", "ip_proto": "tcp", "tos": 8, "sampling_rate":'
        b' 100, "timestamp_start": "2026-11-22 20:36:39.000000", "timestamp_end": "2026-11-22 20:37:'
        b'37.000000", "timestamp_arrival": "2026-11-22 20:37:38.081172", "packets": 298, "bytes": 65'
        b"6155}"
    ),
)
PUBLISHED = [(249563, 304, 62135), (656155, 298, 1725)]
NOW = 1_795_379_858 * 10**9


def test_both_are_read_alike():
    stamps = np.zeros(2, np.int64)
    one = flowmessage.Decoder().decode(GOFLOW2, stamps)
    other = jsonflows.Decoder("pmacct").decode(NFACCTD, stamps)
    rows, others = plain(one), plain(other)
    assert [(r["bytes"], r["packets"], r["src_port"]) for r in rows] == PUBLISHED
    for row, same in zip(rows, others, strict=True):
        assert abs(row.pop("t_received") - NOW) < 10**9
        assert abs(same.pop("t_received") - NOW) < 10**9
        del row["direction"]  # goflow2 does not say, nfacctd has no such key
        assert row == same
        assert (row["sampling_rate"], row["tcp_flags"], row["t_last"] - row["t_first"]) == (
            100,
            24,
            58 * 10**9,
        )
