"""Headers are rebuilt and hashed; an algorithm is decided beyond chance only."""

# real lines are long
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector import proof
from detector.dialects import bitcoin, lines, table
from detector.dialects.messages import InForce, Submit, Work, turned

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "captures" / "packets" / "ours-positive"
# Block 125552 of Bitcoin, whose header every description of the hash uses as its example.
BLOCK = bytes.fromhex(
    "0100000081cd02ab7e569e8bcd9317e2fe99f2de44d49ab2b8851ba4a308000000000000"
    "e320b6c2fffc8d750423db8b1eb942ae710e951ed797f7affc8892b0f1fc122bc7f5d74df2b9441a42a14695"
)


def test_a_known_block_verifies_as_sha256d_and_not_as_scrypt():
    assert proof.verifies("sha256d", BLOCK, 200_000)
    assert not proof.verifies("sha256d", BLOCK, 1e12)
    assert not proof.verifies("scrypt", BLOCK, 200_000)


def test_the_known_scrypt_vector_of_litecoin():
    header = bytes.fromhex(
        "01000000f615f7ce3b4fc6b8f61e8f89aedb1d0852507650533a9e3b10b9bbcc30639f279fcaa86746e1ef52d3edb3c4ad8259"
        "920d509bd073605c9bf1d59983752a6b06b817bb4ea78e011d012d59d4"
    )
    # litecoin's scrypt_test.cpp
    assert proof.HASHES["scrypt"](header)[::-1].hex() == (
        "0000000110c8357966576df46f3b802ca897deb7ad18b12f1c24ecff6386ebd9"
    )


def shares(name):
    """(work, submit, difficulty) of every share of a capture, read plainly."""
    from payload_rows import capture

    loaded, found, jobs, force = table.load(), [], {}, InForce()
    for row in capture(CAPTURES / name):
        for text in row["data"].splitlines():
            said = lines.read(text)
            called = loaded.name(said)
            reader = loaded.called(called, said) if called else loaded.replied(said, "subscribe")
            if reader is None:
                continue
            fields = reader.fields(said)
            if reader.kind == "subscribed":
                force.extranonce1 = fields["extranonce1"]
            elif reader.kind == "difficulty":
                force.difficulty = fields["difficulty"]
            elif reader.kind == "job":
                (jobs[fields["job"]],) = bitcoin.jobs(fields, force)
            elif reader.kind == "submit":
                job = jobs[fields["job"]]
                found.append((job.work, bitcoin.share(fields, force), job.difficulty))
    return found


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the shared captures are not here")
@pytest.mark.parametrize(
    ("name", "count", "algorithm", "other"),
    [
        ("cpuminer-scrypt-dense.pcap", 394, "scrypt", "sha256d"),
        ("cpuminer-sha256d.pcap", 15, "sha256d", "scrypt"),
        ("cpuminer-realpool-sha256d-vardiff.pcap", 28, "sha256d", "scrypt"),
    ],
)
def test_every_share_of_a_real_capture_verifies_for_its_algorithm_only(name, count, algorithm, other):
    got = [(proof.header(work, share), d) for work, share, d in shares(name)]
    assert len(got) == count
    assert all(proof.verifies(algorithm, header, d) for header, d in got)
    assert not any(proof.verifies(other, header, d) for header, d in got)


def tried(found, sample=32):
    """A proof whose checks verify as ``found`` says, at difficulty 1 for scrypt (65536 hashes each)."""
    made = proof.Proof()
    for _ in range(found):
        made.counts["scrypt"] = made.counts.get("scrypt", 0) + 1
        made.log10["scrypt"] = made.log10.get("scrypt", 0.0) + 4.816
        made._decide()
    return made


def test_one_lucky_share_decides_nothing_and_two_do():
    assert tried(1).decided is None
    assert tried(1).verified == 0
    assert tried(2).decided == "scrypt"
    assert tried(2).verified == 2


def test_two_algorithms_beyond_chance_decide_nothing():
    made = proof.Proof(log10={"scrypt": 7.0, "sha256d": 8.0})
    made._decide()
    assert made.decided is None


def test_the_share_that_decides_is_of_what_it_decides_though_it_would_do_for_another():
    made, share = proof.Proof(), Submit("", "", "", "", None, turned(BLOCK).hex())
    for decided in (None, "sha256d"):
        found = made.check(None, share, 2**-16, 1)  # of scrypt any hash does
        assert made.decided == decided
    assert found == "sha256d"
    assert (made.verified, made.counts) == (2, {"sha256d": 2, "scrypt": 2})


def test_checking_ends_at_the_sample_and_early_where_nothing_verifies():
    work = Work("00" * 32, "00", "00", [], "20000000", "1702905c", "00")
    made = proof.Proof()
    for n in range(8):
        assert made.wants(32), n
        assert made.check(work, Submit("00", "00000000", "00000000", "", None), 1e9, 1) is None
    assert not made.wants(32)
    assert not proof.Proof(checked=32, counts={"scrypt": 32}).wants(32)


def test_rolled_version_bits_are_taken_within_the_mask_only():
    work = Work("00" * 32, "00", "00", [], "20000000", "1702905c", "00")
    plain = proof.header(work, Submit("00", "00000000", "00000000", "", None))
    rolled = proof.header(work, Submit("00", "00000000", "00000000", "ffffffff", 0x1FFFE000))
    default = proof.header(work, Submit("00", "00000000", "00000000", "ffffffff", None))
    assert plain[:4] == bytes.fromhex("00000020")
    assert rolled[:4] == (0x20000000 | 0x1FFFE000).to_bytes(4, "little")
    assert default == rolled
    assert rolled[4:] == plain[4:]


HEX = st.text("0123456789abcdefABCDEFg", max_size=70)
EIGHT = st.text("0123456789abcdef", min_size=8, max_size=8)


@given(HEX, HEX, HEX, st.lists(HEX, max_size=4), EIGHT, HEX, HEX, HEX, HEX, HEX)
def test_any_fields_give_a_header_or_none(
    previous, first, second, branches, version, bits, en1, en2, ntime, nonce
):
    work = Work(previous, first, second, branches, version, bits, en1)
    header = proof.header(work, Submit(en2, ntime, nonce, "", None))
    assert header is None or len(header) == 80


def test_a_proof_survives_serialising():
    made = tried(2)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=proof.Proof) == made
