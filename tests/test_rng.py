import numpy as np
import pytest

from cinefeed.core.errors import SettingError
from cinefeed.core.rng import Stage, permutation_for, rng_for, stable_order, words_for


def test_words_are_the_same_on_every_machine():
    # Philox4x64-10 is a published algorithm: these words may never change, or no past run could be repeated.
    words = words_for(0, stage=Stage.PLAN, count=2)
    assert [f"{int(word):016x}" for word in words] == ["02f4ba6408e4d89b", "3dd62b0b9ca8c5b2"]


def test_each_part_of_an_address_matters():
    base = {"seed": 7, "stage": Stage.CLIP, "epoch": 1, "position": 2}
    changes = [{}, {"seed": 8}, {"stage": Stage.AUGMENT}, {"epoch": 2}, {"position": 3}]
    numbers = set()
    for change in changes:
        address = {**base, **change}
        numbers.add(float(rng_for(address.pop("seed"), **address).random()))
    assert len(numbers) == len(changes)


def test_epoch_and_position_cannot_stand_in_for_each_other():
    one = words_for(0, stage=Stage.PLAN, epoch=1, position=2, count=64)
    two = words_for(0, stage=Stage.PLAN, epoch=2, position=1, count=64)
    assert not set(one.tolist()) & set(two.tolist())


def test_a_permutation_holds_every_number_once():
    order = permutation_for(3, stage=Stage.SPLIT, count=1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert not np.array_equal(order, np.arange(1000))


@pytest.mark.parametrize("change", [{"epoch": -1}, {"position": 2**64}])
def test_an_address_out_of_range(change):
    with pytest.raises(SettingError, match=next(iter(change))):
        rng_for(0, stage=Stage.PLAN, **change)
    with pytest.raises(SettingError, match="seed"):
        rng_for(-1, stage=Stage.PLAN)


def test_a_generator_has_no_children():
    # NumPy would seed them from the system's entropy, each time anew.
    with pytest.raises(TypeError, match="spawning"):
        rng_for(0, stage=Stage.CLIP).spawn(1)


def test_generators_are_those_of_the_key_and_counter():
    plain = np.random.Generator(np.random.Philox(key=np.array([7, 2], np.uint64), counter=[0, 5, 3, 0]))
    ours = rng_for(7, stage=Stage.AUGMENT, epoch=3, position=5)
    assert ours.normal(size=9).tolist() == plain.normal(size=9).tolist()


@pytest.mark.parametrize("top", [0, 1, 255, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_stable_order_is_that_of_a_stable_sort(top, dtype, count):
    top = min(top, np.iinfo(dtype).max)
    keys = np.random.default_rng(count).integers(0, top, count, dtype=dtype, endpoint=True)
    keys[count // 2 :] = keys[: count - count // 2]  # each comes twice at least
    assert stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()
