"""What is kept within tiny bounds, by random steps, beside a model of a few lines."""

from __future__ import annotations

import random

import pytest

from flask_wschat.messages import Message, size_of
from tests.backends.cluster import Cluster

DATA: list[str | bytes] = ["x", "ż", "🐢", "\0", b"\xff"]


class Model:
    """A topic as it should be."""

    def __init__(self, size: int, max_bytes: int) -> None:
        self.size = size
        self.max_bytes = max_bytes
        self.seq = 0
        self.epoch = "none"
        self.kept: list[tuple[int, str | bytes]] = []
        self.mids: dict[str, int] = {}

    def keep(self, data: str | bytes) -> None:
        self.seq += 1
        self.kept.append((self.seq, data))
        del self.kept[: -self.size]
        while len(self.kept) > 1 and self.taken > self.max_bytes:
            del self.kept[0]

    @property
    def taken(self) -> int:
        return sum(size_of(data) for _, data in self.kept)


@pytest.mark.parametrize(
    ("size", "max_bytes"), [(1, 1), (2, 10), (5, 1), (5, 50), (20, 200)]
)
def test_each_page_is_what_a_model_has(
    cluster: Cluster, size: int, max_bytes: int
) -> None:
    chance = random.Random(size * max_bytes)
    options = {"size": size, "max_bytes": max_bytes, "linger": 0.1}
    started = [cluster.start(**options) for _ in range(1 + cluster.store.shared)]
    models = {f"room:{name}": Model(size, max_bytes) for name in "abc"}
    for step in range(400):
        backend, _ = chance.choice(started)
        topic, model = chance.choice(list(models.items()))
        if chance.random() < 0.6:
            data = chance.choice(DATA) * chance.choice([0, 1, 2, 9, max_bytes])
            mid = chance.choice([None, f"{chance.randrange(100)}", f"new {step}"])
            message = Message(data, sender="ann", mid=mid)
            if chance.random() < 0.1:
                assert backend.publish(topic, message).seq == 0
                continue
            receipt = backend.publish(topic, message, keep=True)
            if not receipt.fresh:
                assert mid is not None and receipt.seq == model.mids[mid]
                continue
            if mid is not None:
                assert model.mids.get(mid, -99999) <= model.seq - 4 * size
                model.mids[mid] = model.seq + 1
            model.keep(data)
            model.epoch = receipt.epoch
            assert receipt.seq == model.seq
        else:
            after = chance.randrange(model.seq + 3)
            page = backend.history(topic, after=after, epoch=model.epoch, limit=100)
            first = model.kept[0][0] if model.kept else 1
            whole = first - 1 <= after <= model.seq and model.seq > 0
            assert page.recovered == whole
            expected = [each for each in model.kept if not whole or each[0] > after]
            assert [(entry.seq, entry.data) for entry in page.entries] == expected
    assert all(host.losses == [] for _, host in started)
