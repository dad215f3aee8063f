"""Watching losses of someone else's making: what is wrong with them is said, and what they give stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from onca.audit import Call, Finding, Watch, bank, handed_back, watch

B, D = 12, 16


class Loss(nn.Module):
    """criterion(z0, z1) with a ring of keys. early: keys go in before they are used. tail: dropped at the end."""

    def __init__(self, rows: int = 60, early: bool = False, tail: bool = False, kept: bool = True) -> None:
        super().__init__()
        start = normalize(torch.randn(rows, D, generator=torch.Generator().manual_seed(0)), dim=1)
        self.register_buffer("keys", start, persistent=kept)
        self.temperature, self.early, self.tail, self.at = 0.2, early, tail, 0

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        query, key = normalize(first, dim=1), normalize(second, dim=1)
        if self.early:
            self.push(key)
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ self.keys.clone().T], 1) / self.temperature
        if not self.early:
            self.push(key)
        return cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64))

    @torch.no_grad()
    def push(self, key: Tensor) -> None:
        place = torch.arange(self.at, self.at + len(key))
        if self.tail:
            place = place[place < len(self.keys)]
        self.keys[place % len(self.keys)] = key[: len(place)]
        over = self.at + len(key) >= len(self.keys)
        self.at = 0 if self.tail and over else (self.at + len(key)) % len(self.keys)


class Model(nn.Module):
    """Hands back queries, keys and loss, and owns its memory."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.encoder, self.memory, self.temperature = nn.Linear(24, D), Loss(**settings), 0.2

    def forward(self, first: Tensor, second: Tensor | None = None) -> dict[str, Tensor | None]:
        query = normalize(self.encoder(first), dim=1)
        if second is None:
            return {"loss": None, "queries": query, "keys": None}
        key = normalize(self.encoder(second), dim=1).detach()
        return {"loss": self.memory(query, key), "queries": query, "keys": normalize(key, dim=1)}


def batches(count: int, images: int = 10_000) -> list[tuple[Tensor, Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    table = torch.randn(images if images < 1000 else 1000, 24, generator=draw)
    result = []
    for number in range(count):
        ids = (torch.arange(B) + number * B) % len(table)
        result.append((ids, table[ids], table[ids] + 0.1 * torch.randn(B, 24, generator=draw)))
    return result


def called(loss: Loss, look: Any, calls: int = 12, **more: Any) -> dict[str, Finding]:
    encoder = nn.Linear(24, D)
    with watch(loss, look, **more) as watcher:
        for _, first, second in batches(calls):
            loss(encoder(first), encoder(second).detach()).backward()
    return by_name(watcher)


def by_name(watcher: Watch) -> dict[str, Finding]:
    return {finding.name: finding for finding in watcher.findings()}


def alarmed(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.outcome == "alarm"}


def test_a_loss_without_a_fault_raises_none() -> None:
    found = called(Loss(), bank("keys"))
    assert not alarmed(found)
    assert found["lost keys"].evidence == 11 * B and found["cold rows"].number == 0
    assert called(Loss(rows=600), bank("keys"))["cold rows"].number == pytest.approx(1 - 11 * B / 600)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"early": True}, "self-hits"), ({"rows": 50, "tail": True}, "lost keys"), ({"kept": False}, "unsaved memory")],
)
def test_each_fault_is_named(settings: dict[str, Any], name: str) -> None:
    assert alarmed(called(Loss(**settings), bank("keys"))) == {name}


def test_own_keys_are_all_found_at_every_call() -> None:
    found = called(Loss(early=True), bank("keys"), calls=3)["self-hits"]
    assert found.number == 1 and f"{3 * B} of {3 * B} queries" in found.sentence


def test_modules_that_hand_back_queries_and_keys() -> None:
    torch.manual_seed(0)
    for settings, names in (({}, set()), ({"early": True}, {"self-hits"}), ({"kept": False}, {"unsaved memory"})):
        model = Model(**settings)
        with watch(model, handed_back(queue="memory.keys")) as watcher:
            model(torch.randn(B, 24))  # asked to encode only
            for _, first, second in batches(8):
                model(first, second)
        assert alarmed(by_name(watcher)) == names
    assert watcher.calls == 8


def test_with_ids_older_keys_of_the_same_image_are_known() -> None:
    """Ten batches of 30 images: a memory of 60 holds each image twice, and nobody masks it."""
    loss, encoder, now = Loss(), nn.Linear(24, D), torch.empty(0)
    with watch(loss, bank("keys"), ids=lambda: now) as watcher:
        for ids, first, second in batches(10, images=30):
            now = ids
            loss(encoder(first), encoder(second).detach())
    found = by_name(watcher)
    assert found["self-hits"].outcome == "alarm" and "older keys" in found["self-hits"].sentence
    assert found["repeats"].number is not None and found["repeats"].number > 0.3


@pytest.mark.parametrize("grad", [True, False])
def test_what_the_loss_gives_is_the_same_with_and_without(grad: bool) -> None:
    results = []
    for watched in (True, False):
        torch.manual_seed(3)
        loss, encoder = Loss(), nn.Linear(24, D)
        watcher = watch(loss, bank("keys")) if watched else None
        with torch.set_grad_enabled(grad):
            values = torch.stack([loss(encoder(first), encoder(second).detach()) for _, first, second in batches(5)])
        if grad:
            values.sum().backward()
        slope = encoder.weight.grad if grad else torch.zeros(1)
        results.append((values.detach(), slope, loss.keys.clone(), torch.get_rng_state()))
        if watcher is not None:
            assert watcher.calls == 5
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_hooks_come_off() -> None:
    loss = Loss()
    with watch(loss, bank("keys")) as watcher:
        loss(torch.randn(B, D), torch.randn(B, D))
    loss(torch.randn(B, D), torch.randn(B, D))
    assert watcher.calls == 1 and not loss._forward_hooks and not loss._forward_pre_hooks


def test_a_look_of_one_s_own_and_temperature_from_logits() -> None:
    encoder, seen = nn.Linear(24, D), []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Call:
        query, key = normalize(inputs[0], dim=1), normalize(inputs[1], dim=1)
        return Call(query, key, module.keys, logits=torch.cat([query[:, :1], query @ module.keys.T / 0.07], 1))

    loss = Loss(early=True)
    with watch(loss, look) as watcher:
        watcher.audit.see = lambda pool: seen.append(pool.temperature)  # type: ignore[assignment,misc]
        loss(encoder(torch.randn(B, 24)), encoder(torch.randn(B, 24)))
    assert seen == [pytest.approx(0.07, rel=1e-4)]


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (bank("bank"), "has no 'bank'"),
        (bank("temperature"), "is no memory of rows"),
        (handed_back(queue="keys"), "gives Tensor, which has no 'queries'"),
    ],
)
def test_a_look_that_does_not_fit_says_what_is_missing(look: Any, words: str) -> None:
    loss = Loss()
    with watch(loss, look), pytest.raises(ValueError, match=words):
        loss(torch.randn(B, D), torch.randn(B, D))


def test_a_loss_that_its_memory_does_not_give_is_refused() -> None:
    class Other(Loss):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return super().forward(first, second) + 1

    loss = Other()
    with watch(loss, bank("keys")), pytest.raises(ValueError, match="not known what was contrasted"):
        loss(torch.randn(B, D), torch.randn(B, D))


def test_ids_must_name_every_query() -> None:
    loss = Loss()
    with watch(loss, bank("keys"), ids=lambda: torch.arange(3)), pytest.raises(ValueError, match="each of 12 queries"):
        loss(torch.randn(B, D), torch.randn(B, D))
