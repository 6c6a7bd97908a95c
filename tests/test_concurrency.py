"""Reading ahead, working side by side and writing behind: order, bounds, and what happens to errors."""

import threading
import time

import pytest

from pansharpen_cli.errors import PansharpenError
from pansharpen_cli.system import concurrency
from pansharpen_cli.system.concurrency import Behind, Threads, ahead, in_order


class BrokenError(Exception):
    pass


def threads(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def counted(made, count, broken=None):
    """0 ... count - 1, noted in `made` when they are made."""
    for item in range(count):
        if item == broken:
            raise BrokenError(item)
        made.append(item)
        yield item


@pytest.mark.parametrize("depth", [1, 2, 5, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_ahead_gives_the_same_items(count, depth):
    assert list(ahead(range(count), depth)) == list(range(count))
    assert list(ahead([None] * count, depth)) == [None] * count  # None is an item like any other


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_ahead_is_at_most_so_far_ahead(depth):
    made = []
    for taken, _ in enumerate(ahead(counted(made, 20), depth), start=1):
        time.sleep(0.002)  # time enough to run away
        assert len(made) <= taken + depth


def test_ahead_works_while_the_consumer_does():
    both = threading.Barrier(2, timeout=10)

    def items():
        yield 0
        both.wait()  # passes only while the consumer is busy with the item before
        yield 1

    taken = ahead(items())
    assert next(taken) == 0
    both.wait()
    assert next(taken) == 1


def test_ahead_makes_all_items_in_one_thread():
    names = set(ahead(threading.current_thread().name for _ in range(9)))
    assert len(names) == 1
    assert names != {threading.current_thread().name}


def test_an_error_of_a_reader_comes_where_its_item_would():
    items = ahead(counted([], 10, broken=4), 3)
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(BrokenError):
        next(items)
    assert not threads("reader")


def test_ahead_stops_reading_when_it_is_left():
    made = []
    items = ahead(counted(made, 1000), 2)
    assert next(items) == 0
    items.close()
    assert len(made) <= 4
    assert not threads("reader")


def test_results_come_in_order_and_few_wait():
    started = []
    gate = threading.Event()

    def work(number):
        started.append(number)
        if number == 0:
            gate.wait(10)
        return number

    results = in_order(work, range(100), threads=2)
    threading.Timer(0.2, gate.set).start()
    assert next(results) == 0
    assert len(started) <= 5
    assert list(results) == list(range(1, 100))


@pytest.mark.parametrize("threads_", [1, 3])
def test_work_is_done_at_the_same_time_in_threads_that_began(threads_):
    together = threading.Barrier(threads_, timeout=10)
    began = []

    def work(number):
        together.wait()  # passes only if as many are at work
        return number, threading.current_thread().name

    results = list(in_order(work, range(2 * threads_), threads_, lambda: began.append(threading.current_thread().name)))
    assert [number for number, _ in results] == list(range(2 * threads_))
    names = {name for _, name in results}
    assert names == (set(began) if threads_ > 1 else {threading.current_thread().name})


@pytest.mark.parametrize("threads_", [1, 3])
def test_an_error_of_the_work_comes_out_and_stops_it(threads_):
    done = []

    def work(number):
        if number == 4:
            raise BrokenError(number)
        done.append(number)
        return number

    with pytest.raises(BrokenError):
        list(in_order(work, range(1000), threads_))
    assert len(done) < 20
    assert not threads("worker")


@pytest.mark.parametrize("depth", [0, 1, 2, 7])
def test_behind_makes_all_calls_in_order(depth):
    calls = []
    with Behind(depth) as behind:
        for item in range(50):
            behind(calls.append, item)
    assert calls == list(range(50))
    assert not threads("writer")


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_behind_holds_the_caller_back(depth):
    started, gate = [], threading.Semaphore(0)

    def slow(item):
        assert gate.acquire(timeout=10)
        started.append(item)

    with Behind(depth) as behind:
        for item in range(10):
            gate.release()
            behind(slow, item)
            assert item + 1 - len(started) <= depth
    assert len(started) == 10


def test_behind_does_not_make_the_caller_wait():
    caller_went_on = threading.Event()
    with Behind() as behind:
        behind(caller_went_on.wait, 10)
        caller_went_on.set()


def test_an_error_of_a_call_is_raised_by_a_later_one_and_the_rest_is_not_made():
    calls = []

    def write(item):
        if item == 3:
            raise BrokenError
        calls.append(item)

    def write_all():
        with Behind(2) as behind:
            for item in range(100):
                behind(write, item)

    with pytest.raises(BrokenError):
        write_all()
    assert calls[:3] == [0, 1, 2]
    assert len(calls) < 10
    assert not threads("writer")


def test_an_error_of_the_last_call_is_raised_on_leaving():
    def fail():
        raise BrokenError

    behind = Behind()
    behind.__enter__()
    behind(fail)
    with pytest.raises(BrokenError):
        behind.__exit__(None, None, None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_callers_error_is_not_hidden_by_one_of_a_call(error):
    def fail():
        raise BrokenError

    def caller():
        with Behind(5) as behind:
            behind(fail)
            raise error

    with pytest.raises(error):
        caller()
    assert not threads("writer")


def test_calls_that_wait_are_dropped_after_an_error():
    calls, busy = [], threading.Event()

    def caller():
        with Behind(5) as behind:
            behind(busy.wait, 0.05)
            for item in range(4):
                behind(calls.append, item)
            raise BrokenError

    with pytest.raises(BrokenError):
        caller()
    assert calls == []


def test_a_thread_that_dies_is_not_waited_for(monkeypatch):
    """An error in Python's own code, here of what is no call, ends it before it takes the next one."""
    monkeypatch.setattr(concurrency, "PULSE", 0.05)
    with Threads(1, "mortal") as pool:
        pool.result(pool.submit(print))
        pool._work_queue.put(object())
        never = pool.submit(print)
        with pytest.raises(PansharpenError, match="a thread of the program died"):
            pool.result(never)


def time_out():
    raise TimeoutError


def test_a_slow_call_is_waited_for(monkeypatch):
    monkeypatch.setattr(concurrency, "PULSE", 0.01)
    with Threads(2, "slow") as pool:
        assert pool.result(pool.submit(lambda: time.sleep(0.1) or 7)) == 7
        with pytest.raises(TimeoutError):  # the call's own
            pool.result(pool.submit(time_out))
