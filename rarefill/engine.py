"""Where chunks run: threads of this process, results in the order of the plan."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def default_workers() -> int:
    """One per core that this process may use, 8 at most."""
    return max(
        1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    )


def run(work: Callable[[T], R], chunks: Iterable[T], *, workers: int | None = None) -> Iterator[R]:
    """Work on chunks and yield the results in the chunks' order.

    cv2, torch and file writing release the interpreter's lock, so threads are enough, and models are shared. What a
    chunk gives depends on the chunk alone; the number of workers (None: one per core) changes nothing but the time.

    Raises: what the first failing chunk raised, after the chunks before it were yielded.
    """
    workers = workers or default_workers()
    if workers == 1:
        yield from map(work, chunks)
        return
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="rarefill")
    try:
        for chunk in chunks:
            pending.append(pool.submit(work, chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Threads:
    """How many threads torch had before the first of ours asked for one, and how many ask at present."""

    lock = Lock()
    before = 1
    asking = 0


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's sums in the calling thread: their order, and so the bytes, then depend on no core count.

    Some of torch's libraries keep one setting for the whole process, so it is put back when the last one has left.
    """
    import torch

    with _Threads.lock:
        if _Threads.asking == 0:
            _Threads.before = torch.get_num_threads()
        _Threads.asking += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _Threads.lock:
            _Threads.asking -= 1
            if _Threads.asking == 0:
                torch.set_num_threads(_Threads.before)
