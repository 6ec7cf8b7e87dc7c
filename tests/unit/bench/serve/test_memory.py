"""Whether memory grows: judged on what comes after warming up, and only where there is enough to judge."""

import pytest

from careedit_deployments.bench.memory import ALLOWED_MIB, Level, MemoryWatch, growth


def levels(*mib):
    return [Level(float(second), value) for second, value in enumerate(mib)]


@pytest.mark.parametrize(
    ("mib", "flat"),
    [
        ([100.0] * 24, True),
        ([10.0] * 6 + [100.0] * 18, True),  # what warms up is no growth
        ([100.0 + i * ALLOWED_MIB / 4 for i in range(24)], False),
        ([100.0, 104.0] * 12, True),  # a saw is flat
        ([100.0 - i for i in range(24)], True),
        ([1000.0 + i for i in range(24)], True),  # within 3 %
        ([100.0] * 12 + [100.0 + 2 * ALLOWED_MIB] * 12, False),
    ],
)
def test_growth_is_told_from_warming_up(mib, flat):
    found = growth("replica", 1, levels(*mib))
    assert found is not None and found.flat is flat


def test_a_process_that_was_seen_too_rarely_is_not_judged():
    assert growth("replica", 1, levels(*[100.0] * 8)) is None
    assert growth("replica", 1, []) is None


def test_descendants_are_watched():
    import subprocess
    import sys

    code = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        watch = MemoryWatch()
        for _ in range(16):
            watch.look()
        child.stdin.close()
    (found,) = [one for one in watch.growths() if one.pid == child.pid]
    assert found.flat and found.begin_mib > 0 and found.name.startswith("python")
