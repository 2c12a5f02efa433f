"""Lines on their way to something slow: each is written or counted as dropped, however and how often it is closed."""

import threading

from health_predict.store.background import Background


def test_closing_twice_changes_nothing():
    queue = Background("test", lambda _lines: True, capacity=10, period=0.01, batch=5)
    queue.put(b"1")
    queue.close(timeout=10)
    queue.close(timeout=10)
    assert (queue.written, queue.dropped) == (1, 0)


def test_what_comes_after_the_end_counts_as_dropped():
    queue = Background("test", lambda _lines: True, capacity=10, period=0.01, batch=5)
    queue.close(timeout=10)
    queue.put(b"late")
    assert (queue.written, queue.dropped) == (0, 1)


def test_a_line_that_is_written_after_it_was_given_up_counts_once():
    asked, free = threading.Event(), threading.Event()

    def write(_lines: list[bytes]) -> bool:
        asked.set()
        return free.wait(10)

    queue = Background("test", write, capacity=10, period=0.01, batch=1)
    queue.put(b"1")
    assert asked.wait(10)
    queue.put(b"2")
    queue.close(timeout=0)
    free.set()
    queue._thread.join(10)
    queue.close(timeout=0)
    assert (queue.written, queue.dropped) == (0, 2)


def test_the_thread_itself_may_close_it():
    def write(_lines: list[bytes]) -> bool:
        queue.close(timeout=10)
        return True

    queue = Background("test", write, capacity=10, period=0.01, batch=1)
    queue.put(b"1")
    queue._thread.join(10)
    assert (queue.written, queue.dropped) == (0, 1)


def test_many_threads_close_it_while_it_writes():
    for _ in range(20):
        queue = Background("test", lambda _lines: True, capacity=10_000, period=0.001, batch=3)
        for _ in range(500):
            queue.put(b"1")
        closing = [threading.Thread(target=queue.close, args=(0.0,)) for _ in range(4)]
        for one in closing:
            one.start()
        for one in closing:
            one.join()
        queue._thread.join(10)
        assert queue.written + queue.dropped == 500
