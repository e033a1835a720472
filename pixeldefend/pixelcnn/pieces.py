"""Long computations over many images, piece by piece: on every CPU thread at once, and smaller where memory runs out."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import torch
from tqdm import tqdm

log = logging.getLogger(__name__)
Work = Callable[[slice, Callable[[], None]], None]


def equal_pieces(start: int, end: int, size: int) -> list[slice]:
    """Slices of one size, at most ``size``, that cover start..end-1; the last ones may share some images."""
    if start == end:
        return []
    count = -(-(end - start) // size)
    size = -(-(end - start) // count)
    return [slice(s, s + size) for s in (min(start + n * size, end - size) for n in range(count))]


def work_through(count: int, size: int, work: Work, *, device: torch.device, smallest: int = 1, steps: int = 1,
                 unit: str = "image", progress: bool = False) -> None:  # fmt: skip
    """Call ``work(rows, step)`` for slices ``rows`` of at most ``size`` that cover 0..count-1.

    ``work`` calls ``step`` ``steps`` times while it is at it, which moves the progress bar and is where it may be stopped.
    On a CPU the pieces are at most as large as makes use of all of torch's threads, but not smaller than ``smallest`` for
    that, and each thread works on a piece of its own: nothing is lost on waiting for each other after each of many short
    operations. A piece that does not fit in memory is halved, as are all that follow, with a warning in the log.

    Raises whatever ``work`` raises; out of memory only for a single image.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    size = min(size, -(-count // max(1, min(threads, count // smallest))))
    waiting = equal_pieces(0, count, size)
    with tqdm(total=len(waiting) * steps, unit=unit, disable=None if progress else True) as bar:
        while waiting:
            failed = _attempt(waiting, work, threads, bar)
            if not failed:
                return
            if size == 1:
                raise failed[0][1]
            size = -(-size // 2)
            log.warning("a batch does not fit in memory; going on with %d images at a time", size)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            waiting = [piece for rows, _ in failed for piece in equal_pieces(rows.start, rows.stop, size)]
            bar.total = bar.n + len(waiting) * steps


def _attempt(pieces: list[slice], work: Work, threads: int, bar: tqdm) -> list[tuple[slice, Exception]]:
    """Work on all pieces; those for which memory did not suffice, with the error."""
    stop = threading.Event()

    def step() -> None:
        if stop.is_set():
            raise _Stopped
        bar.update()

    def attempt(rows: slice) -> tuple[slice, Exception] | None:
        if stop.is_set():
            raise _Stopped
        try:
            work(rows, step)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return rows, error.with_traceback(None)  # the traceback would keep the buffers alive
        return None

    if threads == 1 or len(pieces) == 1:
        results = [attempt(rows) for rows in pieces]
    else:
        results = _in_threads(attempt, pieces, threads, stop)
    return [result for result in results if result is not None]


def _in_threads(attempt: Callable, pieces: list[slice], threads: int, stop: threading.Event) -> list:
    """``attempt`` for every piece, each on a thread of its own in which torch starts no others."""
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            futures = [pool.submit(attempt, rows) for rows in pieces]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # what is not finished by now will not be wanted
    finally:
        torch.set_num_threads(threads)
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None and not isinstance(error, _Stopped):
            raise error
    return [future.result() for future in futures]


def _out_of_memory(error: Exception) -> bool:
    """torch has a class for GPUs only; a CPU's allocator raises a plain ``RuntimeError``."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


class _Stopped(Exception):
    """Another piece failed, or the user interrupted: what is under way is given up."""
