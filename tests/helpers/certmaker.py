"""TLS server hellos made by hand, and certificates by another library."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hellomaker import vector

KEY = ec.derive_private_key(12345, ec.SECP256R1())
DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def certificate(common="pool.example.org", others=(), padding=0):
    """In DER, by another library."""
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "O" * 60)] * (padding // 60)
    subject += [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer.example")]))
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(DAY)
        .not_valid_after(DAY + datetime.timedelta(days=9))
    )
    if others:
        names_ = [x509.DNSName(name) for name in others]
        names_.append(x509.RFC822Name("who@mail.example"))
        made = made.add_extension(x509.SubjectAlternativeName(names_), critical=False)
    return made.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def server_hello(*extensions, version=b"\3\3", cipher=b"\xc0\x2f"):
    body = version + bytes(32) + vector(1, b"s" * 32) + cipher + b"\0"
    if extensions:
        body += vector(2, b"".join(extensions))
    return b"\2" + vector(3, body)


def chain(*ders):
    return b"\x0b" + vector(3, vector(3, b"".join(vector(3, der) for der in ders)))


def records(*messages, size=None):
    """Each message in a record of its own, or all in records of ``size`` octets."""
    parts = messages
    if size:
        joined = b"".join(messages)
        parts = [joined[i : i + size] for i in range(0, len(joined), size)]
    return b"".join(b"\x16\3\3" + vector(2, part) for part in parts)
