"""MoCo's InfoNCE with a queue (arXiv 1911.05722, 2003.04297): one loss, both directions, and whole steps of SGD."""

from collections import OrderedDict

import oracle
import pytest
import torch
from oracle import Case
from torch import nn

import onca

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]


def queue_state(golden, queue: str, position: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """A full memory that holds the stored queue (d, K), its next slot at `position`."""
    keys = golden.tensor(queue, dtype).T
    return {"keys": keys, "position": torch.tensor(position), "age": torch.zeros(len(keys), dtype=torch.int64)}


def load(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads what is given and keeps the rest as it is; a name that the module does not own is an error."""
    module.load_state_dict({**module.state_dict(), **state})


@pytest.mark.golden("moco_infonce", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("query", "key", "normalize"), [("xq", "xk", True), ("q", "k", False)])
def test_case(golden, dtype, query, key, normalize, width):
    q, k, queue = (
        golden.tensor(query, dtype).requires_grad_(),
        golden.tensor(key, dtype),
        golden.tensor("queue", dtype).T,
    )
    with onca.sliced.rows(width):
        per_anchor = onca.contrast(
            q, k, queue, temperature=golden.number("temperature"), normalize=normalize, reduction="none"
        )
        loss = per_anchor.mean()
        (gradient,) = torch.autograd.grad(loss, q)
    golden.close(per_anchor, "per_anchor")
    golden.close(loss, "loss")
    golden.close(gradient, f"grad_{query}", gradient=True)


@pytest.mark.golden("moco_infonce", "case")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_contrast_with_a_queue(golden, dtype):
    """The module scores against the memory as it was, and then takes the keys."""
    q, k = golden.tensor("xq", dtype).requires_grad_(), golden.tensor("xk", dtype)
    dim, size = golden["queue"].shape
    contrast = onca.Contrast("infonce", golden.number("temperature"), memory=onca.Queue(size, dim)).to(dtype)
    state = queue_state(golden, "queue", golden.integer("ptr_before"), dtype)
    load(contrast, {f"memory.{name}": value for name, value in state.items()})
    contrast.eval()
    golden.close(contrast(q, k), "loss")
    golden.close(contrast.memory.keys.T, "queue")
    contrast.train()
    loss = contrast(q, k)
    (gradient,) = torch.autograd.grad(loss, q)
    golden.close(loss, "loss")
    golden.close(gradient, "grad_xq", gradient=True)
    golden.close(contrast.memory.keys.T, "queue_after")
    assert int(contrast.memory.position) == golden.integer("ptr_after")


@pytest.mark.golden("moco_infonce", "case")
def test_oracle(golden):
    q, k, queue = golden.tensor("xq"), golden.tensor("xk"), golden.tensor("queue").T
    golden.close(oracle.losses("infonce", Case(q, k, [queue], golden.number("temperature"))), "per_anchor")


@pytest.mark.golden("moco_infonce", "symmetric")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_symmetric(golden, dtype):
    """The notebook's sum over both directions, by the host with an encoder that is the identity."""
    x1, x2 = (golden.tensor(f"x{i}", dtype).requires_grad_() for i in (1, 2))
    dim, size = golden["queue"].shape
    temperature = golden.number("temperature")
    host = onca.hosts.MoCo(nn.Identity(), onca.Queue(size, dim), 0.99, temperature, symmetric=golden.flag("symmetric"))
    host.to(dtype)
    load(host, {f"memory.{name}": value for name, value in queue_state(golden, "queue", 0, dtype).items()})
    host.before_step()
    pools = host.pools(onca.hosts.Batch(views=(x1, x2), index=None, label=None, epoch=0.0, step=0))
    loss = host.loss(pools, onca.infonce)
    loss.backward()
    host.after_step()
    golden.close(loss, "loss")
    for i, x in enumerate((x1, x2), start=1):
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        golden.close(gradient, f"grad_x{i}", gradient=True)
    golden.close(host.memory.keys.T, "queue_after")
    assert int(host.memory.position) == golden.integer("ptr_after")


class Encoder(nn.Module):
    """fc(tanh(l(x))), in the shapes of the stored weights; fc is one linear map or two with a ReLU between."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()

        def linear(name: str) -> nn.Linear:
            outputs, inputs = weights[f"{name}.weight"].shape
            return nn.Linear(inputs, outputs, bias=f"{name}.bias" in weights)

        self.l = linear("l")
        mlp = "fc.0.weight" in weights
        self.fc = nn.Sequential(linear("fc.0"), nn.ReLU(), linear("fc.2")) if mlp else linear("fc")
        self.to(weights["l.weight"].dtype).load_state_dict(OrderedDict(weights))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.l(x)))


def weights(golden, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name[len(prefix) :]: golden.tensor(name, dtype) for name in golden.arrays if name.startswith(prefix)}


@pytest.mark.golden("moco_infonce", "sequence")
def test_sequence(golden):
    """Whole steps: momentum update, keys, loss against the queue as it was, enqueue, SGD."""
    dtype = torch.float64
    host = onca.hosts.MoCo(
        Encoder(weights(golden, "q0.", dtype)),
        onca.Queue(golden.integer("K"), golden.integer("dim")),
        golden.number("momentum"),
        golden.number("temperature"),
    ).to(dtype)
    keys = {f"key_encoder.{name}": value for name, value in weights(golden, "k0.", dtype).items()}
    load(host, keys | {f"memory.{name}": v for name, v in queue_state(golden, "queue_init", 0, dtype).items()})
    optimiser = torch.optim.SGD(
        host.encoder.parameters(),
        golden.number("lr"),
        momentum=golden.number("sgd_momentum"),
        weight_decay=golden.number("weight_decay"),
    )
    for step in range(golden.integer("steps")):
        views = (golden.tensor("im_q")[step], golden.tensor("im_k")[step])
        host.before_step()
        pools = host.pools(onca.hosts.Batch(views=views, index=None, label=None, epoch=0.0, step=step))
        loss = host.loss(pools, onca.infonce)
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            for name, parameter in host.encoder.named_parameters():
                golden.close(parameter.grad, f"grad0.{name}", gradient=True)
        optimiser.step()
        host.after_step()
        golden.close(loss, golden["losses"][step])
        golden.close(host.memory.keys.T, golden["queue_after"][step])
        assert int(host.memory.position) == int(golden["ptr_after"][step])
    for name, value in host.encoder.state_dict().items():
        golden.close(value, f"qT.{name}")
    for name, value in host.key_encoder.state_dict().items():
        golden.close(value, f"kT.{name}")
