"""Rows of PAYLOADS in, the flow rows that a tap would give of the same connection."""

from flowrows import DATA, SECOND, flows

ACTIVE_NS = 60 * SECOND
OVER = 52  # IP and TCP around a payload


def records(talk, rows=None):
    """Flow rows of a ``spoken.Talk``, one a minute; ``rows`` are those that the tap saw, all unless given."""
    made, sizes, opened, now = [], {"c": [], "s": []}, None, None
    for row in talk.rows if rows is None else rows:
        way = "c" if row["src"] == talk.client[0] else "s"
        opened = row["t"] if opened is None else opened
        if len(sizes[way]) < 8:
            sizes[way].append(len(row["data"]))
        if now is None or row["t"] - now["first"] >= ACTIVE_NS:
            now = {"first": row["t"], "c": [0, 0], "s": [0, 0]}
            made.append(now)
        now["last"] = row["t"]
        now[way][0] += 1
        now[way][1] += len(row["data"])
        now["sizes"] = {k: list(v) for k, v in sizes.items()}
    return [_row(talk, opened, one) for one in made]


def _row(talk, opened, one):
    from ipaddress import IPv6Address

    src, dst = (str(IPv6Address(end[0]).ipv4_mapped) for end in (talk.client, talk.server))
    (up, up_octets), (down, down_octets) = one["c"], one["s"]
    return {
        "subscriber": src, "src": src, "dst": dst, "src_port": talk.client[1], "dst_port": talk.server[1],
        "t_first": one["first"], "t_last": one["last"], "t_open": opened, "initiator": 1,
        "packets": up, "bytes": up * OVER + up_octets, "reverse_packets": down,
        "reverse_bytes": down * OVER + down_octets, "tcp_flags": DATA, "reverse_tcp_flags": DATA,
        "payload_packets": up, "payload_bytes": up_octets, "reverse_payload_packets": down,
        "reverse_payload_bytes": down_octets, "first_sizes": one["sizes"]["c"],
        "reverse_first_sizes": one["sizes"]["s"],
    }  # fmt: skip


def metered(talk, rows=None):
    """The same as a ``flows`` batch."""
    return flows(*records(talk, rows))
