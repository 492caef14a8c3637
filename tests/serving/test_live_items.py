"""Upserts and deletions: visible at once, gone at once, kept over swaps and restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from muxrec.errors import DataError
from muxrec_serving.answering import service as service_module
from muxrec_serving.answering.service import Service
from muxrec_serving.answering.state import ServingState
from muxrec_serving.errors import RequestError
from muxrec_serving.live.journal import Journal
from muxrec_serving.query import Wanted

PLOT = np.linspace(-1, 1, 16).tolist()


def names(answer: dict) -> list[str]:
    return [neighbour["item_id"] for neighbour in answer["neighbours"]]


def similar(service: Service, item_id: str, **wanted) -> dict:
    import json

    return json.loads(service.similar(item_id, Wanted(**wanted)))


def plot_of(service: Service, item_id: str) -> list[float]:
    """A raw plot whose vector is the item's own: the sample tower only adds and divides."""
    slot = service.view.slot(item_id)
    return service.view.vector(slot).tolist()


def test_a_new_item_is_found_at_once_and_is_a_query_at_once(service: Service):
    async def story():
        assert similar(service, "item-1", k=1)["source"] == "precomputed"
        made = await service.put("new", {"item_id": "new", "plot": plot_of(service, "item-1")})
        assert made["created"] is True
        # The same vector as item-1: the nearest of all.
        assert names(similar(service, "item-1", k=3))[0] == "new"
        assert names(similar(service, "new", k=3))[0] == "item-1"

    asyncio.run(story())


def test_a_replaced_item_moves(service: Service):
    async def story():
        before = similar(service, "item-2", k=5)
        made = await service.put(
            "item-2", {"item_id": "item-2", "plot": plot_of(service, "item-1")}
        )
        assert made["created"] is False
        assert names(similar(service, "item-2", k=1)) == ["item-1"]
        assert names(similar(service, "item-1", k=1)) == ["item-2"]
        assert names(before) != names(similar(service, "item-2", k=5))
        answers = [similar(service, name, k=150) for name in ("item-1", "item-3")]
        assert all(names(answer).count("item-2") == 1 for answer in answers)

    asyncio.run(story())


def test_a_deleted_item_is_never_returned_again(service: Service):
    async def story():
        nearest = names(similar(service, "item-1", k=5))
        await service.delete(nearest[0])
        assert names(similar(service, "item-1", k=4)) == nearest[1:]
        for k in (1, 19, 60, 198):
            assert nearest[0] not in names(similar(service, "item-1", k=k))
        with pytest.raises(RequestError, match="no item has the id"):
            similar(service, nearest[0])
        with pytest.raises(RequestError, match="no item has the id"):
            await service.delete(nearest[0])

    asyncio.run(story())


def test_a_deleted_item_can_come_back(service: Service):
    async def story():
        await service.delete("item-1")
        made = await service.put("item-1", {"item_id": "item-1", "plot": PLOT})
        assert made["created"] is True
        assert similar(service, "item-1")["item_id"] == "item-1"

    asyncio.run(story())


def test_live_items_meet_filters_and_are_found_by_title(connect, service: Service):
    async def story():
        async with connect(service) as client:
            item = {
                "plot": plot_of(service, "item-1"),
                "genre": "opera|comedy",
                "title": "Zauberflöte",
            }
            assert (await client.put("/v1/items/a%2Fb", json=item)).status_code == 201
            found = (await client.get("/v1/search?q=zauberflote")).json()["results"]
            assert found == [{"item_id": "a/b", "title": "Zauberflöte"}]
            answer = (await client.get("/v1/items/item-1/similar?filter=genre:opera")).json()
            assert names(answer) == ["a/b"]
            answer = (await client.get("/v1/items/item-1/similar?filter=genre:western&k=60")).json()
            assert "a/b" not in names(answer)
            shown = (await client.get("/v1/items/a%2Fb")).json()
            assert (shown["title"], shown["live"]) == ("Zauberflöte", True)
            assert (await client.get("/v1/items/a%2Fb/similar?k=2")).status_code == 200
            assert (await client.delete("/v1/items/a%2Fb")).status_code == 200
            assert (await client.get("/v1/search?q=zauberflote")).json()["results"] == []

    asyncio.run(story())


def test_a_raw_item_is_ranked_by_its_content_and_never_answers_itself(connect, service: Service):
    async def story():
        async with connect(service) as client:
            item = {"item_id": "item-1", "plot": plot_of(service, "item-9")}
            answer = await client.post("/v1/similar", json={"items": [item], "k": 3})
            result = answer.json()["results"][0]
            assert result["source"] == "encoded"
            assert names(result)[0] == "item-9"
            assert "item-1" not in names(result)

    asyncio.run(story())


def test_a_batch_equals_single_answers_and_an_unknown_id_fails_alone(connect, service: Service):
    async def story():
        async with connect(service) as client:
            ids = ["item-1", "nobody", "item-2"]
            body = {"item_ids": ids, "k": 4}
            results = (await client.post("/v1/similar", json=body)).json()["results"]
            assert results[1]["error"]["code"] == "unknown_item"
            for at in (0, 2):
                alone = (await client.get(f"/v1/items/{ids[at]}/similar?k=4")).json()
                assert results[at] == alone

    asyncio.run(story())


def test_live_items_are_encoded_again_by_the_next_bundle(states: list[ServingState]):
    async def story():
        service = Service(states[0])
        await service.put("new", {"item_id": "new", "plot": plot_of(service, "item-1")})
        await service.delete("item-4")
        await service.swap(states[1])
        assert service.view.state is states[1]
        assert service.view.slot("item-4") is None
        expected = states[1].vectors @ service.view.vector(service.view.slot("new"))
        expected[states[1].catalogue.positions["item-4"]] = -np.inf
        best = states[1].catalogue.item_ids[int(expected.argmax())]
        assert names(similar(service, "new", k=1)) == [best]
        service.close()

    asyncio.run(story())


def test_a_write_during_a_swap_is_not_lost(states: list[ServingState]):
    async def story():
        service = Service(states[0])
        puts = [service.put(f"new-{n}", {"plot": PLOT}) for n in range(20)]
        await asyncio.gather(*puts[:10], service.swap(states[1]), *puts[10:])
        assert len(service.view.overlay.items) == 20
        assert service.view.state is states[1]
        service.close()

    asyncio.run(story())


def test_an_item_that_the_next_bundle_cannot_encode_is_counted_and_comes_back(
    states: list[ServingState], monkeypatch: pytest.MonkeyPatch
):
    from muxrec_serving.live import encoding, entries

    async def story():
        service = Service(states[0])
        await service.put("new", {"plot": PLOT})
        await service.put("other", {"plot": PLOT})
        real = encoding.encode_items

        def picky(state, items):
            results = real(state, items)
            return [RequestError(422, "bad_item", "no"), *results[1:]]

        monkeypatch.setattr(entries, "encode_items", picky)
        await service.swap(states[1])
        assert list(service.view.overlay.items) == ["other"]
        assert "muxrec_live_items_not_encodable 1.0" in service.metrics.text().decode()
        monkeypatch.undo()
        await service.swap(states[0])
        assert list(service.view.overlay.items) == ["new", "other"]
        service.close()

    asyncio.run(story())


def test_the_overlay_has_a_limit(service: Service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service_module, "MAX_LIVE_ITEMS", 1)

    async def story():
        await service.put("a", {"plot": PLOT})
        await service.put("a", {"plot": PLOT})
        with pytest.raises(RequestError, match="publish a bundle") as caught:
            await service.put("b", {"plot": PLOT})
        assert caught.value.status == 409

    asyncio.run(story())


def test_several_workers_take_no_writes(state: ServingState):
    service = Service(state, read_only="one worker only")

    async def story():
        with pytest.raises(RequestError, match="one worker only") as caught:
            await service.put("a", {"plot": PLOT})
        assert caught.value.status == 409
        with pytest.raises(RequestError):
            await service.delete("item-1")

    asyncio.run(story())
    service.close()


def test_the_journal_brings_live_items_back(state: ServingState, tmp_path: Path):
    path = tmp_path / "live" / "journal"

    async def first():
        service = Service(state, journal=Journal.open(path))
        await service.put("new", {"item_id": "new", "plot": PLOT, "title": "Früher"})
        await service.put("gone", {"plot": PLOT})
        await service.delete("gone")
        await service.delete("item-3")
        service.close()

    asyncio.run(first())
    again = Service(state, journal=Journal.open(path))
    assert again.view.title(again.view.slot("new")) == "Früher"
    assert again.view.slot("gone") is None
    assert again.view.slot("item-3") is None
    again.close()


def test_a_cut_last_line_is_dropped_and_the_rest_stays(tmp_path: Path):
    path = tmp_path / "journal"
    journal = Journal.open(path)
    journal.append("a", {"plot": [1.5], "poster": b"\x00\xff"})
    journal.append("b", None)
    journal.close()
    whole = path.read_bytes()
    for cut in range(1, 20):
        path.write_bytes(whole[:-cut])
        journal = Journal.open(path)
        assert journal.entries == {"a": {"plot": [1.5], "poster": b"\x00\xff"}}
        journal.append("c", None)
        journal.close()
        assert list(Journal.open(path).entries) == ["a", "c"]


def test_a_changed_line_is_refused_and_named(tmp_path: Path):
    path = tmp_path / "journal"
    journal = Journal.open(path)
    journal.append("a", {"plot": [1.5]})
    journal.append("b", None)
    journal.close()
    path.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
    with pytest.raises(DataError, match=r"journal:1 was changed"):
        Journal.open(path)


def test_two_servers_cannot_share_a_journal(tmp_path: Path):
    held = Journal.open(tmp_path / "journal")
    with pytest.raises(DataError, match="in use by another server"):
        Journal.open(tmp_path / "journal")
    held.close()


def test_a_journal_of_overtaken_lines_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from muxrec_serving.live import journal as module

    monkeypatch.setattr(module, "_COMPACT_ABOVE", 10)
    path = tmp_path / "journal"
    journal = Journal.open(path)
    for n in range(50):
        journal.append("a", {"plot": [n]})
    journal.close()
    journal = Journal.open(path)
    assert path.read_bytes().count(b"\n") == 1
    with pytest.raises(DataError, match="in use"):
        Journal.open(path)
    journal.append("b", None)
    journal.close()
    assert Journal.open(path).entries == {"a": {"plot": [49]}, "b": None}


def test_a_journal_where_none_can_be_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        Journal.open(tmp_path / "file" / "journal")
