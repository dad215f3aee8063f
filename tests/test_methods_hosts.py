"""Every method in every host: what runs, what must be given for it, what cannot be; and the table of it in the docs.

`python tests/test_methods_hosts.py` writes the table anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import onca
from onca import Bank, Queue
from onca.hosts import CMC, NPID, Batch, Host, LooC, MoCo, SimCLR
from onca.hosts.host import Known
from onca.method import Method, as_method, refills

PAGE = Path(__file__).parent.parent / "docs" / "methods" / "index.md"
IMAGES, BATCH, D, PIXELS, STEPS = 24, 8, 6, 10, 4

METHODS: dict[str, tuple[str, str]] = {
    "InfoNCE": ("infonce", ""),
    "windows": ("chain(keep(window(50, 75)), infonce)", "curricula"),
    "drop with refill": ("chain(drop(hardest(5), refill=True), infonce)", ""),
    "debiased": ("debiased(0.1)", "debiased"),
    "HCL": ("hcl(beta=0.5, tau_plus=0.02)", "hcl"),
    "Ring": ("chain(ring(outer=75, inner=10), infonce)", "ring"),
    "Ring, neighbour views": ("chain(ring(outer=75, inner=10, neighbours=True), aggregation())", "ring"),
    "Ball": ("chain(ball(50), infonce)", "ring"),
    "MoCHi": ("chain(mochi(n=6, s=8, s2=4), infonce)", "mochi"),
    "FNC, elimination": ("fnc(k=2, threshold=-1, attraction=False)", "fnc"),
    "FNC, attraction": ("fnc(k=2, threshold=-1)", "fnc"),
    "InvP": ("invp(k=3, steps=2, hardest=4, background=10, start=0)", "invp"),
    "SupCon": ("chain(attract(same_class), supcon)", "supcon"),
    "SupCon, other reduction": ("chain(attract(same_class), with_positives(supcon))", "supcon"),
    "triplets, semi-hard": ("chain(keep(semihard(0.5)), triplet(0.5))", "triplets"),
    "margin, distance-weighted": ('chain(keep(sample(4, "distance")), margin())', "triplets"),
    "noise-contrastive estimation": ("nce", "npid"),
    "difficulty from outside": ('chain(drop(hardest(10, by=external("hand"))), infonce)', "external"),
    "near-duplicates": ("chain(drop(near_duplicate), infonce)", "near_duplicates"),
    "kinship at equal difficulty": ("chain(drop(hardest(50) & hardest(10, by=label_distance)), infonce)", "cause"),
    "own views": ("chain(own_views(close=1, far=1), infonce)", "own_views"),
    "anti-correlated, mirrored": ("chain(mirror(easiest(5) & ~above(0)), infonce)", "anti_correlated"),
    "auto": ("chain(auto(), infonce)", "auto"),
}


def encoder(spaces: int = 1) -> nn.Module:
    return nn.Sequential(nn.Linear(PIXELS, 16), nn.ReLU(), nn.Linear(16, spaces * D)).double()


def queue(method: Method) -> Queue:
    return Queue(20, D, reserve=20 if refills(method) else 0, dtype=torch.float64)


def bank() -> Bank:
    return Bank(IMAGES, D, neighbours=3, dtype=torch.float64)


HOSTS: dict[str, Callable[[Method, int], Host]] = {
    "MoCo": lambda method, s: MoCo(encoder(), queue(method), 0.9, 0.5, support=s),
    "SimCLR": lambda method, s: SimCLR(encoder(), 0.5, support=s),
    "NPID": lambda method, s: NPID(encoder(), bank(), 0.5, support=s),
    "CMC": lambda method, s: CMC(encoder(2), bank(), bank(), 0.5, support=s),
    "LooC": lambda method, s: LooC(encoder(3), [queue(method) for _ in range(3)], 0.9, 0.5, support=s),
}

SUPPORT = 3
MARKS = {"runs": "●", "support": "●²", "no": "—"}


def known() -> Known:
    draw = torch.Generator().manual_seed(5)
    rows = torch.nn.functional.normalize(torch.randn(IMAGES, 4, generator=draw, dtype=torch.float64), dim=1)
    return Known(
        images=IMAGES,
        duplicates=torch.arange(IMAGES) // 2,
        depth=torch.tensor([[2, 1, 0], [1, 2, 0], [0, 0, 2]]),
        external={"hand": rows},
    )


@cache
def images() -> Tensor:
    return torch.randn(IMAGES, PIXELS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def batch(host: Host, step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    index = torch.randperm(IMAGES, generator=draw)[:BATCH]
    count = host.own_views + host.support
    views = [
        images()[index] + 0.3 * torch.randn(BATCH, PIXELS, generator=draw, dtype=torch.float64) for _ in range(count)
    ]
    return Batch(tuple(views), index, index % 3, epoch=1.0 + step, step=step)


def made(name: str, method: Method, support: int = 0) -> Host:
    torch.manual_seed(0)
    host = HOSTS[name](method, support)
    host.known = known()
    host.check(method)
    return host.train()


@cache
def cell(method: str, name: str) -> tuple[str, str]:
    """What the table says of a pair, and why: "runs", "support" (with support views), or "no"."""
    part = as_method(METHODS[method][0])
    try:
        made(name, part)
    except ValueError as first:
        try:
            made(name, part, SUPPORT)
        except ValueError as second:
            return "no", str(second)
        return "support", str(first)
    return "runs", ""


PAIRS = [pytest.param(method, host, id=f"{method}-{host}") for method in METHODS for host in HOSTS]


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_a_method_trains_in_a_host_or_says_what_it_lacks(method: str, name: str) -> None:
    part, (outcome, why) = as_method(METHODS[method][0]), cell(method, name)
    if outcome == "no":
        assert str(part) in why and "needs" in why and "--host" in why
        return
    if outcome == "support":
        assert "support=8" in why and "--support 8" in why
    host = made(name, part, SUPPORT if outcome == "support" else 0)
    steps = torch.optim.SGD(host.encoder.parameters(), lr=0.05)
    moved = 0.0
    for step in range(STEPS):
        now = batch(host, step)
        host.before_step()
        before = {key: value.clone() for key, value in host.state_dict().items()}
        loss = host.loss(host.pools(now), part)
        again = host.loss(host.pools(now), part)
        assert torch.equal(loss, again), "pools or the loss depend on how often they are asked"
        assert all(torch.equal(before[key], value) for key, value in host.state_dict().items())
        steps.zero_grad()
        loss.backward()
        assert bool(torch.isfinite(loss))
        gradients = [weight.grad for weight in host.encoder.parameters() if weight.grad is not None]
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        moved += sum(float(gradient.abs().sum()) for gradient in gradients)
        steps.step()
        host.after_step()
    assert moved > 0, "no gradient reached the encoder in any step"


def test_what_a_method_needs_is_said_before_the_first_step() -> None:
    for method, remedy in {
        "fnc(k=2)": "support=8",
        "invp()": "--host npid",
        "nce": "npid or cmc",
        "chain(keep(given), infonce)": "onca.contrast",
    }.items():
        with pytest.raises(ValueError, match=re.escape(remedy)):
            made("MoCo", as_method(method))
    with pytest.raises(ValueError, match="needs a hierarchy of labels"):
        host = HOSTS["MoCo"](onca.infonce, 0)
        host.check(as_method("chain(keep(hardest(5, by=label_distance)), infonce)"))


# --- the table of the docs -------------------------------------------------------------------------------------------

BEGIN, END = "<!-- methods x hosts: begin -->", "<!-- methods x hosts: end -->"


def table() -> str:
    lines = [f"| method | {' | '.join(HOSTS)} | for example |", f"|---|{'---|' * len(HOSTS)}---|"]
    for method, (text, page) in METHODS.items():
        title = f"[{method}]({page}.md)" if page else method
        lines.append(f"| {title} | {' | '.join(MARKS[cell(method, host)[0]] for host in HOSTS)} | `{text}` |")
    return "\n".join(lines)


def test_the_docs_hold_the_table_that_these_tests_show() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.split(BEGIN)[1].split(END)[0].strip() == table(), "run python tests/test_methods_hosts.py"


if __name__ == "__main__":
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(table())
