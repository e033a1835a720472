"""Long computations in pieces: every image once, on all threads, smaller where memory runs out."""

import threading

import pytest
import torch
from nets import random_images, small_density

from pixeldefend import PixelDefend
from pixeldefend.pixelcnn import model
from pixeldefend.pixelcnn.pieces import equal_pieces, work_through

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "size"), [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 32), (7, 1)])
def test_pieces_are_of_one_size_and_cover_everything(count, size):
    found = equal_pieces(10, 10 + count, size)
    assert len({rows.stop - rows.start for rows, _ in found}) <= 1
    assert all(rows.stop - rows.start <= size for rows, _ in found)
    assert [n for _, own in found for n in range(own.start, own.stop)] == list(range(10, 10 + count)), "each is one piece's"
    assert all(own.start == rows.start and own.stop <= rows.stop for rows, own in found)
    assert len(found) == -(-count // size)


@pytest.mark.parametrize("first", [0, 500])
def test_an_image_that_two_pieces_share_is_the_later_one_s_whoever_ends_first(first, two_threads):
    """1,001 images are 0..500 and 500..1000."""
    out, ended = torch.zeros(1001, dtype=torch.int), threading.Event()

    def work(rows, step):
        if rows.start != first:
            assert ended.wait(30)
        threading.Timer(0.2, ended.set).start()  # after the other's results are written
        return torch.full((rows.stop - rows.start,), rows.start + 1, dtype=torch.int)

    work_through(1001, 501, work, device=CPU, out=out)
    assert out.tolist() == [1] * 500 + [501] * 501


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_is_there_when_it_is_wanted(progress, capsys):
    work_through(10, 4, lambda rows, step: step(), device=CPU, progress=progress)
    assert ("3/3" in capsys.readouterr().err) == progress


def test_threads_share_the_work_and_torch_starts_no_others(two_threads):
    seen = []
    both = threading.Barrier(2, timeout=30)  # passed only if two pieces are under way at once

    def work(rows, step):
        both.wait()
        seen.append((rows.start, rows.stop, torch.get_num_threads()))
        step()

    work_through(10, 100, work, device=CPU)
    assert sorted(seen) == [(0, 5, 1), (5, 10, 1)]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("count", "pieces"), [(9, [9]), (10, [5, 5]), (40, [14, 14, 14])])
def test_a_piece_is_not_made_small_for_a_second_thread(count, pieces, two_threads):
    sizes = []
    work_through(count, 15, lambda rows, step: sizes.append(rows.stop - rows.start), device=CPU, smallest=5)
    assert sizes == pieces


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no"), MemoryError(), RuntimeError("x: can't allocate memory")])
def test_what_does_not_fit_in_memory_is_split_and_finished(threads, error, two_threads, caplog):
    torch.set_num_threads(threads)
    out = torch.zeros(21, dtype=torch.int)

    def work(rows, step):
        if rows.stop - rows.start > 3:
            raise error
        step()
        return torch.arange(rows.start, rows.stop, dtype=torch.int)

    work_through(21, 10, work, device=CPU, out=out)
    assert out.tolist() == list(range(21))
    assert "does not fit in memory; going on with" in caplog.text


def test_one_image_that_does_not_fit_is_an_error():
    def work(rows, step):
        raise torch.OutOfMemoryError("not even one")

    with pytest.raises(torch.OutOfMemoryError, match="not even one"):
        work_through(4, 2, work, device=CPU)


def test_an_error_in_one_thread_stops_the_others(two_threads):
    started, stopped = threading.Event(), threading.Event()

    def work(rows, step):
        if rows.start == 0:
            assert started.wait(30)
            raise RuntimeError("broken")
        started.set()
        try:
            for _ in range(3000):
                threading.Event().wait(0.01)
                step()
        except BaseException:
            stopped.set()
            raise

    with pytest.raises(RuntimeError, match="broken"):
        work_through(2, 1, work, device=CPU)
    assert stopped.is_set()
    assert torch.get_num_threads() == 2


def test_purification_survives_short_memory_and_any_number_of_threads(two_threads, monkeypatch, caplog):
    density, images = small_density(1), random_images(9, 1, 8, 8)
    torch.set_num_threads(1)
    expected = PixelDefend(density, eps_defend=16)(images)
    torch.set_num_threads(2)
    assert torch.equal(PixelDefend(density, eps_defend=16)(images), expected)
    real = model.Decoder

    def decoder(network, choose, *, batch, **size):
        if batch > 3:
            raise torch.OutOfMemoryError("too many")
        return real(network, choose, batch=batch, **size)

    monkeypatch.setattr(model, "Decoder", decoder)
    assert torch.equal(PixelDefend(density, eps_defend=16)(images), expected)
    assert "does not fit in memory" in caplog.text
