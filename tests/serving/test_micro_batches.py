from __future__ import annotations

import asyncio

import numpy as np
import pytest

from muxrec_serving.answering.state import ServingState
from muxrec_serving.errors import RequestError
from muxrec_serving.live.encoding import MicroBatcher, encode_items


def item(seed: int) -> dict:
    return {"plot": np.random.default_rng(seed).normal(size=16).tolist()}


def test_concurrent_items_share_runs_and_get_their_own_vectors(state: ServingState):
    sizes: list[int] = []
    alone = [encode_items(state, [item(n)])[0] for n in range(40)]

    async def story():
        batcher = MicroBatcher(sizes.append)
        found = await asyncio.gather(*(batcher.encode(state, [item(n)]) for n in range(40)))
        batcher.close()
        return [result[0] for result in found]

    for one, shared in zip(alone, asyncio.run(story()), strict=True):
        # 1e-6: float32 sums of another batch size.
        assert np.allclose(one.vector, shared.vector, atol=1e-6)
    assert sizes == [32, 8]


def test_a_bad_item_fails_alone(state: ServingState):
    async def story():
        batcher = MicroBatcher(lambda _: None)
        bad = batcher.encode(state, [{"plot": [1.0]}])
        results = await asyncio.gather(
            batcher.encode(state, [item(1)]),
            bad,
            batcher.encode(state, [item(2)]),
            return_exceptions=True,
        )
        batcher.close()
        return results

    first, second, third = asyncio.run(story())
    assert len(first) == len(third) == 1
    assert isinstance(second, RequestError)
    assert "16 finite numbers" in second.message


def test_items_of_two_bundles_are_encoded_by_their_own_towers(states: list[ServingState]):
    async def story():
        batcher = MicroBatcher(lambda _: None)
        found = await asyncio.gather(*(batcher.encode(state, [item(1)]) for state in states))
        batcher.close()
        return found

    assert len(asyncio.run(story())) == 3


def test_a_failure_of_the_tower_reaches_every_waiter(state: ServingState):
    class Broken:
        encoder = property(lambda self: (_ for _ in ()).throw(RuntimeError("broken tower")))

    async def story():
        batcher = MicroBatcher(lambda _: None)
        waiting = [batcher.encode(Broken(), [item(n)]) for n in range(3)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        batcher.close()
        return results

    assert [str(error) for error in asyncio.run(story())] == ["broken tower"] * 3


def test_a_large_batch_is_cut_into_runs(state: ServingState):
    sizes: list[int] = []

    async def story():
        batcher = MicroBatcher(sizes.append)
        found = await batcher.encode(state, [item(n) for n in range(70)])
        batcher.close()
        return found

    assert len(asyncio.run(story())) == 70
    assert sizes == [32, 32, 6]


@pytest.mark.parametrize("count", [1, 3])
def test_the_message_names_the_item_of_a_batch(state: ServingState, count: int):
    async def story():
        batcher = MicroBatcher(lambda _: None)
        try:
            await batcher.encode(state, [*(item(n) for n in range(count - 1)), {"title": "x"}])
        finally:
            batcher.close()

    with pytest.raises(RequestError) as caught:
        asyncio.run(story())
    assert caught.value.message.startswith("the item" if count == 1 else "item 2: the item")
