"""Running totals: what the metrics show before there is anything to show."""

from collections import Counter
from types import SimpleNamespace

from detector.minutes import Minute
from detector.totals import Run, Totals


def told(number):
    minute = Minute(number, Counter({("up", "XMR", "lab", "protocol"): 60}), Counter(), Counter())
    return SimpleNamespace(transitions=(), minutes=(minute,))


def test_a_minute_before_all_time_has_no_end():
    totals = Totals()
    assert totals.minute()[1] is None
    live, replay = Run(None, "eth0", live=True), Run(None, "a.pcap")
    totals.runs += [live, replay]
    # What a link closes before it has heard anything.
    totals.take(live, told(-153_722_867))
    assert totals.minute()[1] is None
    totals.take(replay, told(28_333_333))
    assert totals.minute()[1] == 28_333_334 * 60
