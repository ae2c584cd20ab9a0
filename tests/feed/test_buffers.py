import gc
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cinefeed.core.errors import FeedError
from cinefeed.feed.batch_layout import BatchLayout
from cinefeed.feed.workers.buffers import BufferPool, map_buffer

SHAPE = (4, 1, 1, 3, 2, 2, 1)  # draws, clips, views, frames, height, width, channels


def layout(dtype):
    return BatchLayout(SHAPE[0], SHAPE[1:], np.dtype(dtype))


KINDS = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])


@KINDS
def test_a_buffer_comes_back_when_the_last_view_has_died(shared):
    buffers = BufferPool(layout("uint8"), shared=shared)
    array = buffers.lease().clips
    view = array[1:, ::2].reshape(-1)
    memory = memoryview(array)
    del array
    assert buffers.free == 0
    del view
    assert buffers.free == 0, "a memory view still looks into it"
    del memory
    assert buffers.free == 1


@KINDS
def test_the_mask_holds_a_buffer_as_well(shared):
    buffers = BufferPool(layout("float32"), shared=shared)
    valid = buffers.lease().valid
    assert buffers.free == 0 and valid.shape == (4, 1, 3) and valid.dtype == np.bool_
    del valid
    assert buffers.free == 1


@KINDS
def test_memory_is_used_again(shared):
    buffers = BufferPool(layout("float32"), shared=shared)
    address = buffers.lease().clips.ctypes.data
    assert buffers.lease().clips.ctypes.data == address and buffers.size == 1


@KINDS
def test_two_leases_never_share_memory(shared):
    buffers = BufferPool(layout("uint8"), shared=shared)
    one, two = buffers.lease().clips, buffers.lease().clips
    one[:], two[:] = 1, 2
    assert (one == 1).all() and (two == 2).all()


def test_a_lease_is_writable_and_of_the_type_asked_for():
    array = BufferPool(layout("uint16")).lease().clips
    assert array.flags.writeable and array.dtype == np.uint16 and array.shape == SHAPE


def test_shared_memory_is_seen_by_who_maps_it_and_closed_with_the_pool():
    before = set(Path("/proc/self/fd").iterdir())
    buffers = BufferPool(layout("uint16"), shared=True)
    buffer = buffers.lease()
    there = map_buffer(os.dup(buffer.fd), layout("uint16"), number=0)
    os.close(there.fd)
    there.clips[2], there.valid[1] = 7, True
    assert (buffer.clips[2] == 7).all() and buffer.valid[1].all()
    del buffers
    gc.collect()
    buffer.clips[0] = 3  # what is held outlives the pool
    assert (there.clips[0] == 3).all()
    del buffer, there
    gc.collect()
    assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1  # iterdir's own


def test_more_than_the_limit_is_a_clear_error():
    buffers = BufferPool(layout("uint8"), limit=2)
    held = [buffers.lease(), buffers.lease()]
    with pytest.raises(FeedError, match=r"all 2 batches that the memory budget allows are held"):
        buffers.lease()
    held.pop()
    assert buffers.lease().clips.shape == SHAPE


def test_leases_from_many_threads():
    buffers = BufferPool(layout("int64"))
    faults = []

    def work(number):
        for _ in range(200):
            array = buffers.lease().clips
            array[:] = number
            if not (array == number).all():
                faults.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not faults
    assert buffers.free == buffers.size <= 8  # a thread holds the one before while it leases the next


def test_no_python_runs_when_a_buffer_comes_back():
    """In a callback in Python, Ctrl-C would be printed and lost, and the program would go on."""
    buffers, called = BufferPool(layout("uint8")), []
    buffer = buffers.lease()
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        del buffer
    finally:
        sys.setprofile(None)
    assert buffers.free == 1
    assert called == []


@pytest.mark.parametrize("interleave", [False, True])
def test_a_batch_is_one_piece_of_memory_a_view_and_a_draw_finds_its_clips(interleave):
    """Three draws of two clips, two views; each clip is filled with a number of its own."""
    of_two = BatchLayout(3, (2, 2, 4, 5, 6, 1), np.dtype(np.uint16), interleave)
    buffer = BufferPool(of_two).lease()
    assert buffer.clips.shape == (3, 2, 2, 4, 5, 6, 1) and buffer.valid.shape == (3, 2, 4)
    for draw, clip, view in np.ndindex(3, 2, 2):
        buffer.clips[draw, clip, view] = 100 * draw + 10 * clip + view
        buffer.valid[draw, clip] = np.arange(4) < draw + 2 * clip
    assert of_two.batches == (2 if interleave else 1)
    for number in range(of_two.batches):
        views, valid = of_two.batch(buffer.clips, buffer.valid, number=number, draws=2)
        expected = [10 * number, 100 + 10 * number] if interleave else [0, 10, 100, 110]
        for view, array in enumerate(views):
            assert array.flags.c_contiguous and array.shape == (len(expected), 4, 5, 6, 1)
            assert (array == np.array(expected).reshape(-1, 1, 1, 1, 1) + view).all()
            assert np.shares_memory(array, buffer.clips)
        assert valid.sum(axis=1).tolist() == [min(4, each // 100 + 2 * (each // 10 % 10)) for each in expected]
        assert np.shares_memory(valid, buffer.valid)
