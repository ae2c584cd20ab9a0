import gc
import threading

import numpy as np

from cinefeed.feed.slots import Slots


def test_a_slot_comes_back_when_the_last_view_has_died():
    slots = Slots((4, 3), dtype="uint8")
    array = slots.lease()
    view = array[1:, ::2].reshape(-1)
    memory = memoryview(array)
    del array
    assert slots.free == 0
    del view
    assert slots.free == 0, "a memory view still looks into it"
    del memory
    assert slots.free == 1


def test_memory_is_used_again():
    slots = Slots((4, 3), dtype="float32")
    address = slots.lease().ctypes.data
    assert slots.lease().ctypes.data == address


def test_two_leases_never_share_memory():
    slots = Slots((4, 3), dtype="uint8")
    one, two = slots.lease(), slots.lease()
    one[:], two[:] = 1, 2
    assert (one == 1).all() and (two == 2).all()


def test_a_lease_is_writable_and_of_the_type_asked_for():
    array = Slots((2, 5), dtype="uint16").lease()
    assert array.flags.writeable and array.dtype == np.uint16 and array.shape == (2, 5)


def test_leases_from_many_threads():
    slots = Slots((16,), dtype="int64")
    faults = []

    def work(number):
        for _ in range(200):
            array = slots.lease()
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
    assert slots.free <= 4
