"""Exporters with wrong clocks: their records' times are corrected to the receive time, and counted."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

NOW_S = 1_700_000_000
HOUR = 3600
BOUND = 300
PAIR = [(8, 4), (12, 4)]
# Elements of first and last: width, and how a stamp in Unix ns is told at an export time and an uptime.
FORMS = {
    "uptime": ((22, 4), (21, 4)),
    "milliseconds": ((152, 8), (153, 8)),
    "seconds": ((150, 4), (151, 4)),
    "delta": ((158, 4), (159, 4)),
    "none": (),
}


def told(form, t_ns, export_s, uptime_ms):
    """What a record says of the time ``t_ns`` by the exporter's own clock."""
    if form == "uptime":
        return struct.pack(">I", (uptime_ms - (export_s * 10**9 - t_ns) // 10**6) & 0xFFFFFFFF)
    if form == "milliseconds":
        return struct.pack(">Q", max(t_ns, 0) // 10**6)
    if form == "seconds":
        return struct.pack(">I", max(t_ns, 0) // 10**9)
    return struct.pack(">I", (export_s * 10**9 - t_ns) // 1000)


def exported(make, form, export_s, first_ns, last_ns, uptime_ms=10**9):
    """A v9 datagram with a record whose exporter says so of it."""
    stamps = b"".join(told(form, t, export_s, uptime_ms) for t in (first_ns, last_ns)) if FORMS[form] else b""
    record = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + stamps
    sets = make.template(256, [*PAIR, *FORMS[form]]), make.data_set(256, record)
    return make.v9(*sets, seconds=export_s, uptime=uptime_ms)


def times(make, *payloads, t_s=NOW_S, **config):
    found = make.replay([make.gathered(*payloads, t=t_s * make.SECOND)], **config)
    assert len(found.rows) == 1
    return found.rows[0]["t_first"], found.rows[0]["t_last"], found.moved


def corrected(moved, by="datagram"):
    return moved.get(("clock_corrected_total", by), 0)


@pytest.mark.parametrize("off_s", [-HOUR, -BOUND - 1, BOUND + 1, HOUR, 400 * 86400])
@pytest.mark.parametrize("form", ["uptime", "milliseconds", "seconds", "delta"])
def test_times_of_a_wrong_clock_are_moved_to_the_receive_time_and_durations_stay(make, form, off_s):
    export = NOW_S + off_s
    first, last = (export - 1900) * make.SECOND, (export - 5) * make.SECOND
    assert times(make, exported(make, form, export, first, last))[:2] == (
        (NOW_S - 1900) * make.SECOND, (NOW_S - 5) * make.SECOND,
    )  # fmt: skip


def test_records_are_counted_and_the_skew_is_shown(make):
    export = NOW_S + HOUR
    moved = times(make, exported(make, "uptime", export, (export - 9) * make.SECOND, export * make.SECOND))[2]
    assert corrected(moved) == 1
    assert corrected(moved, "record") == 0
    assert moved["exporter_clock_skew_seconds", "192.0.2.1"] == HOUR


@pytest.mark.parametrize("off_s", [-BOUND, -1, 0, 1, BOUND])
def test_a_clock_within_the_bound_is_believed(make, off_s):
    export = NOW_S + off_s
    first, last = (export - 60) * make.SECOND, (export - 5) * make.SECOND
    for form in ("uptime", "milliseconds", "delta"):
        found = times(make, exported(make, form, export, first, last))
        assert found[:2] == (first, last)
        assert not corrected(found[2])


def test_no_clock_is_corrected_where_the_bound_is_zero(make):
    first, last = (NOW_S - 9000) * make.SECOND, (NOW_S - 8000) * make.SECOND
    found = times(make, exported(make, "milliseconds", NOW_S - HOUR, first, last), clock_skew_s=0)
    assert found[:2] == (first, last)
    assert not corrected(found[2])
    assert found[2]["exporter_clock_skew_seconds", "192.0.2.1"] == -HOUR


def test_an_export_time_of_zero_is_no_clock(make):
    first, last = -60 * make.SECOND, -5 * make.SECOND
    assert times(make, exported(make, "uptime", 0, first, last))[:2] == (
        (NOW_S - 60) * make.SECOND, (NOW_S - 5) * make.SECOND,
    )  # fmt: skip
    first, last = (NOW_S - 60) * make.SECOND, (NOW_S - 5) * make.SECOND
    found = times(make, exported(make, "milliseconds", 0, first, last))
    assert found[:2] == (first, last)
    assert corrected(found[2]) == 1


def test_absolute_times_that_are_right_under_a_wrong_header_are_left(make):
    first, last = (NOW_S - 60) * make.SECOND, (NOW_S - 5) * make.SECOND
    assert times(make, exported(make, "milliseconds", NOW_S - 10 * HOUR, first, last))[:2] == (first, last)


def test_a_record_without_times_has_the_receive_time_of_a_wrong_clock(make):
    assert times(make, exported(make, "none", NOW_S + HOUR, 0, 0))[:2] == (NOW_S * make.SECOND,) * 2


def test_a_record_that_ends_well_after_its_export_is_moved_to_end_there_and_counted(make):
    for form in ("milliseconds", "seconds", "uptime"):
        first, last = (NOW_S + HOUR - 50) * make.SECOND, (NOW_S + HOUR) * make.SECOND
        found = times(make, exported(make, form, NOW_S, first, last))
        assert found[:2] == ((NOW_S - 50) * make.SECOND, NOW_S * make.SECOND)
        assert corrected(found[2], "record") == 1
        assert not corrected(found[2])


def test_uptimes_by_the_start_that_the_record_tells_follow_the_same_clock(make):
    off, boot = 2 * HOUR, (NOW_S - 86400) * 1000
    fields = [*PAIR, (22, 4), (21, 4), (160, 8)]
    for wrong in (0, off, -off):
        record = bytes((10, 0, 0, 1, 10, 0, 0, 2))
        record += struct.pack(">IIQ", 86_340_000, 86_395_000, boot + wrong * 1000)
        sent = make.ipfix(make.template(256, fields, 10), make.data_set(256, record), seconds=NOW_S + wrong)
        assert times(make, sent)[:2] == ((NOW_S - 60) * make.SECOND, (NOW_S - 5) * make.SECOND)


def test_the_watermark_follows_the_corrected_times(make):
    export = NOW_S + HOUR
    sent = exported(make, "milliseconds", export, (export - 9) * make.SECOND, export * make.SECOND)
    found = make.replay([make.gathered(sent, t=NOW_S * make.SECOND)])
    newest = [clock.newest_ns for _, _, _, header in found.batches for clock in header.clocks]
    assert set(newest) == {NOW_S * make.SECOND}


def plainly(form, export_s, first_ns, last_ns):
    """The rule, for one record received at NOW_S, in plain Python."""
    second, now = 10**9, NOW_S * 10**9
    unit = {"uptime": 10**6, "milliseconds": 10**6, "seconds": second, "delta": 1000}[form]
    first, last = first_ns // unit * unit, last_ns // unit * unit
    export = export_s * second
    if abs(export - now) > BOUND * second:
        shift = now - export
        if form in ("uptime", "delta"):
            first, last = first + shift, last + shift
        elif export and abs(last + shift - now) < abs(last - now):
            first, last = max(first + shift, 1), last + shift
        export = now
    first = min(first, last)
    if last - export > BOUND * second:
        first, last = max(first - (last - export), 0), export
    return first, last


@settings(max_examples=60)
@given(
    st.sampled_from(["uptime", "milliseconds", "seconds", "delta"]),
    st.integers(-20 * HOUR, 20 * HOUR),
    st.integers(0, 2 * HOUR),
    st.integers(0, HOUR * 1000),
    st.sampled_from([0, 0, 0, 1, 3 * HOUR]),
)
def test_times_are_those_of_the_plain_rule(make, form, off_s, length_s, age_ms, ahead_s):
    export = NOW_S + off_s
    last = export * 10**9 - age_ms * 10**6 + (ahead_s if form != "delta" else 0) * 10**9
    first = last - length_s * 10**9
    if form == "delta":  # microseconds in 32 bits: an hour and eleven minutes
        first = max(first, (export - 4200) * 10**9)
        last = max(last, first)
    assert times(make, exported(make, form, export, first, last))[:2] == plainly(form, export, first, last)


def test_records_that_ended_long_ago_do_not_hold_everybody_s_watermark_back(make):
    old = exported(make, "milliseconds", NOW_S, make.SECOND, 2 * make.SECOND)
    found = make.replay([make.gathered(old, t=NOW_S * make.SECOND)])
    assert found.rows[0]["t_last"] == 2 * make.SECOND
    ((newest, delay),) = {
        (c.newest_ns, c.delay_ns) for _, _, _, header in found.batches for c in header.clocks
    }
    # As far behind as a record may be long, by default an hour.
    assert (newest, delay) == ((NOW_S - HOUR) * make.SECOND, 61 * make.SECOND)


def test_one_long_record_is_waited_for_so_long_and_no_longer(make):
    def heard(after_s, length_s):
        now = NOW_S + after_s
        sent = exported(make, "milliseconds", now, (now - length_s) * make.SECOND, now * make.SECOND)
        return make.gathered(sent, t=now * make.SECOND)

    steps = (0, 3000), (HOUR // 2, 30), (HOUR + 1, 30), (2 * HOUR + 2, 30)
    found = make.replay([heard(after, length) for after, length in steps])
    delays = [
        (header.received_ns // make.SECOND - NOW_S, clock.delay_ns // make.SECOND - 60)
        for _, _, _, header in found.batches
        for clock in header.clocks
    ]
    assert {delay for after, delay in delays if after <= HOUR // 2} == {3000}
    assert delays[-1] == (2 * HOUR + 2, 30)


def test_a_record_that_is_longer_than_any_has_no_first_time(make):
    last = NOW_S * make.SECOND
    since = exported(make, "milliseconds", NOW_S, 10**6, last)
    first, end, moved = times(make, since)
    assert (first, end, corrected(moved, "record")) == (last, last, 1)
    first, end, moved = times(
        make, exported(make, "milliseconds", NOW_S, last - 40 * 86400 * make.SECOND, last)
    )
    assert (last - first, corrected(moved, "record")) == (40 * 86400 * make.SECOND, 0)
