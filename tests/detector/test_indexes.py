"""Endpoint indexes: one for the live links, one a replay."""

import msgspec
from flowrows import NOON, SECOND, packed

from detector.endpoints import HOUR_NS, Endpoints, Entry
from detector.following import Caps, Following
from detector.indexes import LIVE, MOST_RUNS, MOST_WAITING, Indexes
from detector.learner import Config as LearnerConfig
from detector.resolutions import Config as ResolutionConfig

CAPS = Caps.of(ResolutionConfig(), LearnerConfig())


def entry(number=1, **more):
    return Entry(
        address=packed(f"51.15.{number >> 8}.{number & 255}"), port=3333, protocol=6, origin="resolved",
        name="pool.example", first_ns=NOON, last_ns=NOON, expires_ns=NOON + HOUR_NS, why="test", **more,
    )  # fmt: skip


def indexes(fits=lambda _: True):
    return Indexes(Endpoints, lambda index: Following(index, fits, CAPS))


def test_what_is_told_of_a_run_is_known_in_that_run_only():
    made = indexes()
    made.follow(LIVE, entry(1), NOON)
    made.of("a file")
    made.follow("a file", entry(2), NOON)
    assert [e.address for e in made.of(LIVE)] == [packed("51.15.0.1")]
    assert [e.address for e in made.of("a file")] == [packed("51.15.0.2")]
    assert made.of(LIVE) is made.of(LIVE)


def test_what_was_told_of_a_run_before_it_came_waits_for_it():
    made = indexes()
    made.follow("a file", entry(1), NOON)
    assert len(made.of("a file")) == 1
    made.follow("a file", entry(2), NOON)
    assert len(made.of("a file")) == 2
    assert made.counts()["changed"] == 2


def test_what_waits_is_bounded():
    made = indexes()
    for number in range(MOST_RUNS + 5):
        made.follow(f"run {number}", entry(), NOON)
    assert len(made._waiting) == MOST_RUNS
    assert len(made.of("run 0")) == 0
    assert len(made.of(f"run {MOST_RUNS + 4}")) == 1
    one = entry()
    for _ in range(MOST_WAITING + 5):
        made.follow("large", one, NOON)
    assert len(made._waiting["large"]) == MOST_WAITING


def test_a_run_that_is_dropped_is_begun_anew_and_its_counts_stay():
    made = indexes()
    first = made.of("a file")
    made.follow("a file", entry(1), NOON)
    made.follow("a file", entry(1), NOON)
    before = made.counts()
    made.drop("a file")
    made.drop("unknown")
    assert made.counts() == before
    assert (before["changed"], before["same"]) == (1, 1)
    assert made.of("a file") is not first
    assert len(made.of("a file")) == 0


def test_what_waits_for_a_dropped_run_goes_with_it():
    made = indexes()
    made.follow("a file", entry(1), NOON)
    made.drop("a file")
    assert len(made.of("a file")) == 0


def test_the_live_index_is_never_dropped():
    made = indexes()
    live = made.of(LIVE)
    made.follow(LIVE, entry(1), NOON)
    made.drop(LIVE)
    assert made.of(LIVE) is live
    assert len(live) == 1


def test_counts_name_every_outcome():
    made = indexes(fits=lambda e: e.address != packed("51.15.0.9"))
    made.follow(LIVE, entry(9), NOON)
    made.follow(LIVE, msgspec.structs.replace(entry(1), origin="listed"), NOON)
    made.follow(LIVE, entry(2), NOON - 3600 * SECOND)
    made.follow(LIVE, entry(3), NOON)
    made.follow(LIVE, entry(3), NOON)
    got = made.counts()
    assert got.pop("shortened") >= 0
    assert got == {"changed": 2, "same": 1, "ahead": 1, "refused_unfit": 1, "refused_listed": 1}


def test_the_live_index_lets_go_of_what_expired():
    made = indexes()
    made.follow(LIVE, entry(1), NOON)
    live = made.of(LIVE)
    live.expire(NOON + live.limits.keep_ns + 2 * HOUR_NS)
    assert len(live) == 0
