"""Chunks run in any number of threads; results come in the plan's order."""

import threading
import time

import pytest

from rarefill import engine


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_chunks(workers):
    def slow_first(n: int) -> int:
        time.sleep(0.02 if n == 0 else 0)
        return n * n

    assert list(engine.run(slow_first, range(20), workers=workers)) == [n * n for n in range(20)]


@pytest.mark.parametrize("workers", [1, 3])
def test_what_came_before_a_failure_is_delivered(workers):
    def work(n: int) -> int:
        if n == 4:
            raise OSError("gone")
        return n

    got: list[int] = []
    with pytest.raises(OSError, match="gone"):
        got.extend(engine.run(work, range(50), workers=workers))
    assert got == [0, 1, 2, 3]


def test_a_failure_stops_the_chunks_that_have_not_begun():
    begun = []

    def work(n: int) -> int:
        begun.append(n)
        if n == 0:
            raise ValueError("first")
        time.sleep(0.005)
        return n

    with pytest.raises(ValueError, match="first"):
        list(engine.run(work, range(1000), workers=2))
    assert len(begun) < 20


def test_chunks_are_taken_as_they_are_needed():
    taken = []

    def chunks():
        for n in range(100):
            taken.append(n)
            yield n

    results = engine.run(lambda n: n, chunks(), workers=2)
    next(results)
    assert len(taken) < 10
    results.close()
    assert threading.active_count() < 10
