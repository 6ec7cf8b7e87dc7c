"""The counts of the tests of faults: whatever has no counted end is lost."""

from tally import Tally


def test_a_request_without_a_good_end_is_lost():
    tally = Tally(requests=7, left=1, cut_off=1)
    for status in (200, 429, 504):
        tally.answered(status)
    for status in ("completed", "failed"):
        tally.ended({"status": status})
    assert (tally.served, tally.refused, tally.lost, tally.is_clean) == (2, 1, 2, False)
    tally.add(Tally(requests=1, served=1))
    assert (tally.take().requests, tally.requests, tally.is_clean) == (8, 0, True)
    assert not Tally(requests=1, served=1, mixed_up=1).is_clean
