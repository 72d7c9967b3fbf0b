"""Encrypted connections that do not mine, as sizes of what each side sends: written from their
specifications, no code shared with ``detector.dialects.noise``.  Each maker gives (client's sizes, server's
sizes), as a tap sees them: what is sent at one time in segments of at most MSS octets.
"""

import random

MSS = 1448


def segments(*sends):
    """What is sent, cut into segments."""
    out = []
    for size in sends:
        out += [MSS] * (size // MSS) + ([size % MSS] if size % MSS else [])
    return out


def bip324(rng):
    """Bitcoin's transport since 2023: 64 octets of key and up to 4095 of garbage from both, a terminator of
    16, an empty version packet, then messages in packets of 3 + 1 + contents + 16 octets."""

    def packet(contents):
        return 3 + 1 + contents + 16

    def pings():
        return [packet(rng.choice([1 + 8, 1 + 8, 1 + 36, 1 + 37, 13 + rng.randrange(300)])) for _ in range(6)]

    # Core sends no garbage to one of whom it knows no better; others send as much as they like.
    garbage = [rng.choice([0, rng.randrange(4096), rng.randrange(256)]) for _ in range(2)]
    version = packet(13 + rng.randrange(90, 130))
    client = segments(64 + garbage[0], 16 + packet(0) + version, packet(13) + packet(13), *pings())
    server = segments(64 + garbage[1] + 16 + packet(0), version, packet(13) + packet(1 + 8), *pings())
    if rng.random() < 0.5:  # key and garbage by themselves
        server = segments(64 + garbage[1], 16 + packet(0) + version, packet(13), *pings())
    return client, server


def bolt8(rng):
    """Lightning: acts of 50, 50 and 66 octets, then a length in 18 octets and a message with its tag."""

    def message(size):
        return 18 + size + 16

    init = message(2 + 2 + 2 + rng.randrange(2, 12))
    client = [50, 66 + init if rng.random() < 0.3 else 66, init]
    rest = [message(rng.choice([6, 6, 132, 141, 148, 1450])) for _ in range(12)]
    return segments(*client, *rest[:6]), segments(50, init, *rest[6:])


def tls(rng):
    """TLS 1.2 or 1.3: a hello of some hundred octets, a flight with certificates, records."""
    hello = rng.choice([517, rng.randrange(160, 700), rng.randrange(1500, 1900)])
    flight = rng.choice([rng.randrange(2000, 6000), rng.randrange(120, 260)])
    finished = rng.choice([64, 80, 126, 58 + rng.randrange(60)])
    up = [22 + rng.randrange(30, 900) for _ in range(6)]
    down = [22 + rng.choice([rng.randrange(30, 200), rng.randrange(200, 9000)]) for _ in range(6)]
    return segments(hello, finished, *up), segments(flight, *down)


def ssh(rng):
    """SSH: identification lines, key exchange, packets of blocks."""
    up = [16 * rng.randrange(2, 8) + 4 for _ in range(6)]
    down = [16 * rng.randrange(2, 30) + 4 for _ in range(6)]
    return (
        segments(rng.randrange(20, 45), 16 * rng.randrange(60, 100), 1208, 16, *up),
        segments(rng.randrange(20, 45), 16 * rng.randrange(60, 90), 16 * rng.randrange(30, 90), *down),
    )


def obfs4(rng):
    """obfs4: a key of 32 octets, padding, two marks of 16; 64 octets and the same from the server."""
    up = [rng.randrange(21, MSS) for _ in range(6)]
    down = [rng.randrange(21, MSS) for _ in range(6)]
    return (
        segments(32 + rng.randrange(85, 8129) + 32, *up),
        segments(64 + rng.randrange(0, 8100) + 32, *down),
    )


def libp2p(rng):
    """Noise XX after multistream, each message with a length of two octets."""
    up = [18 + rng.randrange(10, 400) for _ in range(6)]
    down = [18 + rng.randrange(10, 400) for _ in range(6)]
    select, payload = 20 + len("/noise\n") + 1, rng.randrange(100, 170)
    return segments(select, 34, 2 + 64 + payload, *up), segments(select, 2 + 96 + payload, *down)


def noise_nx(rng):
    """Another protocol of Noise NX over X25519: 32 octets, then 96 and a certificate of any size."""
    up = [16 + rng.randrange(1, 600) for _ in range(6)]
    down = [16 + rng.randrange(1, 600) for _ in range(6)]
    length = rng.choice([0, 2])
    return segments(32 + length, *up), segments(96 + length + rng.randrange(0, 200), *down)


def sensors(rng):
    """Messages of few sizes: an instrument that is read out, a game, a keep-alive."""
    asks, tells = rng.sample(range(20, 300), 2), rng.sample(range(20, 300), 3)
    return [rng.choice(asks) for _ in range(8)], [rng.choice(tells) for _ in range(8)]


def any_size(rng):
    """Sizes of no protocol: the small ones as often as the large ones."""
    top = rng.choice([300, MSS])
    return [rng.randrange(1, top) for _ in range(8)], [rng.randrange(1, top) for _ in range(8)]


def begins_alike(rng):
    """64 octets are answered by anything but 234, or something else is answered by 234."""
    client, server = any_size(rng)
    first = rng.choice([(64, rng.choice([64, 96, 128, 170, 233, 235])), (rng.choice([32, 63, 65, 128]), 234)])
    return [first[0], *client[:7]], [first[1], *server[:7]]


MAKERS = (bip324, bolt8, tls, ssh, obfs4, libp2p, noise_nx, sensors, any_size, begins_alike)


def seeded(maker, number):
    """The ``number``-th connection of a maker: the first eight sizes of both sides."""
    client, server = maker(random.Random(f"{maker.__name__} {number}"))
    return client[:8], server[:8]
