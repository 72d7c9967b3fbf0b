"""QUIC Initial packets made by hand, sealed by another library's ciphers."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hellomaker import PLAIN, vector

from collectors.packet import quic

ID = bytes.fromhex("8394c8f03e515708")
V2 = 0x6B3343CF
MESSAGE = PLAIN[5:]


def number(value, width=2):
    """RFC 9000 section 16."""
    return (value | {1: 0, 2: 1, 4: 2}[width] << (8 * width - 2)).to_bytes(width, "big")


def crypto(offset, data):
    return b"\6" + number(offset) + number(len(data)) + data


def seal(frames, version=1, connection_id=ID, keys_of=ID, packet=0, token=b"", pad=1200, width=4):
    """An Initial packet of a client, as RFC 9001 section 5 has it; padded to a datagram of ``pad`` octets."""
    keys = quic.client_keys(version, keys_of)
    first = 0xC0 | quic.VERSIONS[version].initial << 4 | (width - 1)
    head = version.to_bytes(4, "big") + vector(1, connection_id) + b"\0" + number(len(token), 1) + token
    frames = frames.ljust(max(4, pad - len(head) - 1 - 2 - width - 16), b"\0")
    head = bytes([first]) + head + number(width + len(frames) + 16)
    pn = packet.to_bytes(width, "big")
    nonce = bytes(a ^ b for a, b in zip(keys.iv, packet.to_bytes(12, "big"), strict=True))
    sealed = AESGCM(keys.key).encrypt(nonce, frames, head + pn)
    encryptor = Cipher(algorithms.AES(keys.protection), modes.ECB()).encryptor()
    mask = encryptor.update((pn + sealed)[4:20])
    hidden = bytes(a ^ b for a, b in zip(pn, mask[1:], strict=False))
    return bytes([head[0] ^ (mask[0] & 15)]) + head[1:] + hidden + sealed
