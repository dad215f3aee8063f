"""Runs, their order of images, optimisers, the loop, and what a finished run leaves behind."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from onca.data import ImageSet, Splits
from onca.train import NotFinite, Run, Tick, evaluate, load_run, train
from onca.train.batches import batches, generator, sizes
from onca.train.loop import fit, make_batch, start
from onca.train.network import Network, precision
from onca.train.optimise import LARS, learning_rate
from onca.train.pixels import Pixels


def images(count: int, seed: int, size: int = 16) -> ImageSet:
    """Eight classes in two groups: stripes of a class's own width under noise, of any colour and place."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 8, (count,), generator=draw)
    place = torch.rand(count, 1, generator=draw) * 6
    wave = torch.sin(torch.arange(size) * (0.3 + 0.25 * label[:, None]) + place)[:, None, None, :]
    colour = torch.rand(count, 3, 1, 1, generator=draw) * 80 + 40
    noise = torch.randn(count, 3, size, size, generator=draw) * 15
    pixels = (128 + wave * colour + noise).clamp(0, 255).to(torch.uint8)
    names = tuple(f"stripe {k}" for k in range(8))
    levels = {"group": (label // 4, ("wide", "narrow")), "stripe": (label, names)}
    return ImageSet(pixels, label, torch.arange(count), names, levels, "stripes")


@pytest.fixture(scope="module")
def data() -> Splits:
    return Splits(images(512, 0), images(128, 1), images(256, 2))


@pytest.fixture
def tiny(tmp_path: Path) -> Run:
    return Run(encoder="small(8)", batch=64, queue=128, dim=16, epochs=2, lr=0.06, runs=str(tmp_path))


# Run: one value, one folder.


def test_every_field_but_epochs_and_runs_changes_the_folder() -> None:
    run = Run()
    other = {
        "data": "cifar10", "host": "simclr", "method": "mass", "encoder": "small(16)", "head": "mlp", "dim": 32,
        "views": "simclr", "images": 10, "classes": 5, "size": 24, "bad": "skip", "batch": 128, "queue": 99,
        "momentum": 0.9, "temperature": 0.2, "optimiser": "lars", "lr": 0.1, "weight_decay": 0.0, "schedule": "cosine",
        "splits": 2, "symmetric": True, "precision": "float32", "device": "cpu", "seed": 1, "crop": "fixed_crop()",
        "crop_low": 0.5, "rotation": True, "support": 2, "gap": 1, "memory": "lasting(hardest(5))", "bank_momentum":
        0.9, "draws": 64, "colours": "ycbcr", "spaces": "rotation", "validate": True,
    }  # fmt: skip
    changed = [replace(run, **{name: value}) for name, value in other.items()]
    changed += [Run(schedule="cosine", warmup=1.0), Run(support=2, plain_view=True)]
    assert set(other) | {"epochs", "runs", "warmup", "plain_view"} == {field.name for field in fields(Run)}
    assert len({run.name, *(each.name for each in changed)}) == len(changed) + 1
    assert replace(run, epochs=9).name == replace(run, runs="elsewhere").name == run.name


def test_spelling_does_not_change_the_folder() -> None:
    spaced = Run(method=" chain( keep(hardest( 5 ) ),infonce )", lr=1, temperature="0.10")  # type: ignore[arg-type]
    assert spaced == Run(method="chain(keep(hardest(5)), infonce)", lr=1.0, temperature=0.1)
    assert Run(temperature="ramp(0.2,0.1, 3)").temperature == "ramp(0.2, 0.1, 3)"


def test_a_run_reads_back_from_its_json_and_its_command(tmp_path: Path) -> None:
    import shlex

    import tyro

    run = Run(method="chain(drop(hardest(0.1), refill=True), infonce)", symmetric=True, images=99, runs=str(tmp_path))
    assert Run(**json.loads(json.dumps(asdict(run)))) == run
    words = shlex.split(run.command)
    assert words[:2] == ["onca", "train"]
    assert tyro.cli(Run, args=words[2:], config=(tyro.conf.FlagCreatePairsOff,)) == run


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"host": "mocco"}, "did you mean moco"),
        ({"method": "chain(keep(hardst(5)), infonce)"}, "hardest"),
        ({"method": "keep(hardest(5))"}, "chain"),
        ({"method": "chain(keep(window(95, 90)), infonce)"}, "window"),
        ({"temperature": 0}, "above 0"),
        ({"temperature": "infonce"}, "schedule"),
        ({"batch": 0}, "--batch"),
        ({"batch": 1}, "--batch"),
        ({"batch": 62, "splits": 4}, "--splits"),
        ({"schedule": "one_cycle", "warmup": 2}, "--warmup"),
        ({"lr": -1}, "--lr"),
        ({"optimiser": "adam"}, "sgd"),
    ],
)
def test_a_value_that_cannot_be_trained_with_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Run(**wrong)  # type: ignore[arg-type]


# Order of images, and randomness.


@given(count=st.integers(2, 400), parts=st.integers(1, 60), splits=st.integers(1, 4))
def test_steps_hold_every_image_but_what_splits_cannot_divide(count: int, parts: int, splits: int) -> None:
    batch = max(2, parts) * splits
    if count < 2 * splits:
        with pytest.raises(ValueError, match="too few"):
            sizes(count, batch, splits)
        return
    steps = sizes(count, batch, splits)
    assert sum(steps) == count - count % splits
    assert all(size % splits == 0 and size >= 2 * splits for size in steps)
    assert all(size == batch for size in steps[:-1]) and steps[-1] < batch + 2 * splits


def test_an_epoch_is_a_permutation_that_only_seed_and_epoch_decide() -> None:
    one, again = (torch.cat(batches(101, 10, 1, seed=3, epoch=5)) for _ in range(2))
    assert torch.equal(one, again)
    assert torch.equal(one.sort().values, torch.arange(101))
    for seed, epoch in ((3, 6), (4, 5)):
        assert not torch.equal(one, torch.cat(batches(101, 10, 1, seed, epoch)))


def test_generators_of_different_places_differ() -> None:
    places = [(s, e, v) for s in range(3) for e in range(3) for v in range(2)] + [(0, 1), (1, 0), (0,), (1,)]
    assert len({float(torch.rand((), generator=generator(*place), dtype=torch.float64)) for place in places}) == len(
        places
    )


def test_runs_of_one_seed_are_paired(tiny: Run, data: Splits) -> None:
    """Another method, temperature or queue: the same first weights, order and views. Another seed: none of them."""
    one = start(tiny, data)
    two = start(replace(tiny, method="chain(drop(hardest(10), refill=True), infonce)", temperature=0.3, queue=64), data)
    three = start(replace(tiny, seed=1), data)
    weights = [list(each.network.parameters()) for each in (one, two, three)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True) if a.ndim > 1)
    rows = batches(len(data.train), tiny.batch, 1, tiny.seed, 0)[0]
    seen = [make_batch(each, rows).views for each in (one, two, three)]
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[0][0], seen[2][0]) and not torch.equal(seen[0][0], seen[0][1])


def test_an_index_in_a_batch_is_a_row_of_the_training_set(tiny: Run, data: Splits) -> None:
    rows = torch.tensor([5, 400, 17])
    shifted = replace(data.train, index=data.train.index + 1000)
    batch = make_batch(start(tiny, replace(data, train=shifted)), rows)
    assert batch.index is not None and batch.label is not None
    assert batch.index.tolist() == [5, 400, 17]  # tables and banks have a row for each of these
    assert torch.equal(batch.label, data.train.label[rows])


def test_a_rule_about_classes_is_refused_where_no_image_has_a_label(tiny: Run, data: Splits) -> None:
    unknown = replace(data.train, label=torch.full_like(data.train.label, -1), levels={})
    run = replace(tiny, method="chain(attract(same_class), supcon)")
    with pytest.raises(ValueError, match="needs labels, and stripes has none"):
        start(run, replace(data, train=unknown))
    start(run, data)
    keeping = replace(tiny, memory="lasting(same_class)")  # a memory may ask as well
    with pytest.raises(ValueError, match=r"lasting\(same_class\) needs labels"):
        start(keeping, replace(data, train=unknown))


def test_what_a_memory_asks_of_the_images_is_found_for_it(tiny: Run, data: Splits) -> None:
    kin = start(replace(tiny, memory="lasting(above(0, by=label_distance))"), data).host.known
    assert kin.depth is not None and kin.duplicates is None
    hand = start(replace(tiny, memory='lasting(hardest(5, by=external("descriptors")))'), data).host.known
    assert hand.external["descriptors"].shape[0] == len(data.train)
    with pytest.raises(ValueError, match=r"lasting\(hardest\(5, by=support_max\)\) needs support views"):
        start(replace(tiny, memory="lasting(hardest(5, by=support_max))"), data)


@pytest.mark.parametrize("host", ["npid", "cmc"])
def test_invp_is_refused_on_drawn_rows_before_training(tiny: Run, data: Splits, host: str) -> None:
    with pytest.raises(ValueError, match="leave --draws at 0"):
        start(replace(tiny, host=host, method="invp()", draws=64), data)


# Pixels and precision.


def test_pixel_statistics_are_those_of_the_training_images(data: Splits) -> None:
    mean, std = Pixels(data.train, torch.device("cpu")).statistics()
    assert data.train.pixels is not None
    pixels = data.train.pixels.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3)), rtol=1e-6)


def test_a_network_normalises_and_answers_in_float32_at_any_precision(tiny: Run, data: Splits) -> None:
    network = start(tiny, data).network.eval()
    pixels = data.test.take(torch.arange(32)).float() / 255
    plain = network.encoder((pixels - network.mean) / network.std)
    torch.testing.assert_close(network(pixels), plain)
    low = Network(network.encoder, network.mean, network.std, torch.bfloat16).eval()
    rough = low(pixels)
    assert rough.dtype == low.features(pixels).dtype == torch.float32
    assert not torch.equal(rough, plain)
    torch.testing.assert_close(rough, plain, rtol=0.05, atol=0.05 * float(plain.detach().abs().max()))


def test_auto_precision_is_float32_where_no_unit_multiplies_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for units, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda units=units: units)
        assert precision("auto", cpu) == expected
    assert precision("bf16", cpu) == torch.bfloat16 and precision("float32", torch.device("cuda")) == torch.float32


# How weights move.


def test_learning_rates_at_the_turning_points() -> None:
    cycle = Run(epochs=10, lr=0.5)
    rates = [learning_rate(cycle, step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.5 / 25) and rates[30] == pytest.approx(0.5) and max(rates) == rates[30]
    assert rates[15] == pytest.approx((0.5 / 25 + 0.5) / 2) and rates[65] == pytest.approx(0.25) and rates[99] < 0.001
    moco = Run(schedule="cosine", epochs=8, lr=0.06)
    for epoch in range(8):  # the official schedule, lr (1 + cos(pi e / E)) / 2, at the start of each epoch
        assert learning_rate(moco, epoch * 7, 7) == pytest.approx(0.06 * (1 + math.cos(math.pi * epoch / 8)) / 2)
    warm = replace(moco, warmup=2.0)
    assert [learning_rate(warm, step, 7) for step in (0, 6, 13)] == pytest.approx([0.06 / 14, 0.03, 0.06])
    assert learning_rate(warm, 14, 7) == pytest.approx(0.06) and learning_rate(warm, 35, 7) == pytest.approx(0.03)


def test_lars_is_the_formula_layer_by_layer() -> None:
    draw = np.random.default_rng(0)
    weights = [draw.normal(size=shape) for shape in ((4, 3), (4,), (2, 3, 3, 3))]
    gradients = [[draw.normal(size=weight.shape) for weight in weights] for _ in range(3)]
    moved = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimiser = LARS(moved, lr=0.3, weight_decay=0.01)
    pace = [np.zeros_like(weight) for weight in weights]
    for step in gradients:
        for weight, gradient in zip(moved, step, strict=True):
            weight.grad = torch.tensor(gradient)
        optimiser.step()
        for k, gradient in enumerate(step):
            if weights[k].ndim > 1:
                gradient = gradient + 0.01 * weights[k]
                gradient = gradient * 0.001 * np.sqrt((weights[k] ** 2).sum() / (gradient**2).sum())
            pace[k] = 0.9 * pace[k] + gradient
            weights[k] = weights[k] - 0.3 * pace[k]
    for weight, expected in zip(moved, weights, strict=True):
        np.testing.assert_allclose(weight.detach(), expected, rtol=1e-12)


# Whole runs.


def test_a_run_leaves_its_files_and_learns(tiny: Run, data: Splits) -> None:
    untrained = start(replace(tiny, seed=7), data).network
    from onca.train.evaluation import measure

    floor = measure(untrained, data)["linear_top1"]
    seen: list[int] = []
    run = replace(tiny, epochs=8)
    result = train(run, data=data, watch=lambda tick: seen.append(tick.step))
    assert seen == list(range(1, 8 * 8 + 1))
    assert {path.name for path in run.folder.iterdir()} == {
        "run.json",
        "metrics.jsonl",
        "checkpoint",
        "result.json",
        "lock",
    }
    assert load_run(run.folder) == run
    assert json.loads((run.folder / "result.json").read_text()) == result
    for key in ("linear_top1", "linear_top5", "knn_top1", "split", "images", "seconds"):
        assert key in result
    assert (result["split"], result["images"], result["train_images"]) == ("test", 256, 512)
    assert result["linear_top1"] > floor + 5
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == list(range(1, 9)) and [
        line["step"] for line in lines if line["kind"] == "step"
    ] == [50]
    assert all(line["images_per_second"] > 0 and line["lr"] > 0 for line in lines)
    assert epochs[-1]["loss"] < epochs[1]["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "simclr", "views": "simclr", "optimiser": "lars", "lr": 0.3},
        {"symmetric": True, "splits": 4, "schedule": "cosine", "warmup": 0.5, "head": "mlp"},
        {
            "precision": "bf16",
            "method": "chain(drop(hardest(5), refill=True), infonce)",
            "temperature": "ramp(0.2, 0.1, 1)",
        },
    ],
)
def test_every_kind_of_run_goes_through(tiny: Run, data: Splits, changes: dict[str, object]) -> None:
    run = replace(tiny, epochs=1, batch=60, **changes)  # 512 = 8 x 60 + 32: a short last batch
    result = train(run, data=data)
    assert 0 < result["linear_top1"] <= 100
    line = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 9 and math.isfinite(line["loss"])
    assert ("short" in line) == ("refill" in run.method)
    assert result["precision"] == ("bfloat16" if run.precision == "bf16" else "float32") or run.precision == "auto"


def test_a_last_image_alone_joins_the_batch_before(tiny: Run, data: Splits) -> None:
    odd = replace(data, train=data.train.subset(torch.arange(129)))
    run = replace(tiny, epochs=1, runs=tiny.runs + "/odd")
    train(run, data=odd)
    assert json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_two_runs_of_one_seed_agree_to_the_bit(tiny: Run, data: Splits) -> None:
    twin = replace(tiny, runs=tiny.runs + "/twin")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(tiny, data=data)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random state is left alone
    torch.manual_seed(2)
    train(twin, data=data)
    assert tensors(tiny).keys() == tensors(twin).keys()
    assert all(torch.equal(value, tensors(twin)[name]) for name, value in tensors(tiny).items())


def tensors(run: Run) -> dict[str, Tensor]:
    from onca.train.checkpoint import load_checkpoint

    found = load_checkpoint(run.folder / "checkpoint")
    assert found is not None
    return found[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tiny: Run, data: Splits) -> None:
    tiny.folder.mkdir()
    training = start(tiny, data)

    def spoil(tick: Tick) -> None:
        if tick.step == 12:  # inside the second epoch
            with torch.no_grad():
                next(training.network.parameters()).fill_(math.nan)

    with pytest.raises(NotFinite, match=r"step 13: the loss is nan .*query, row 0 .* checkpoint of step 8 is kept"):
        fit(training, watch=spoil)
    assert train(tiny, resume=True, data=data)["epochs"] == 2  # from that checkpoint the run goes on


def test_a_weight_that_is_not_finite_never_reaches_a_checkpoint(tiny: Run, data: Splits) -> None:
    run = replace(tiny, lr=1e38, weight_decay=0.0, epochs=1)
    with pytest.raises(NotFinite, match=r"not finite|is nan|is inf"):
        train(run, data=data, save_seconds=0)
    if (run.folder / "checkpoint").exists():
        assert all(bool(value.isfinite().all()) for value in tensors(run).values() if value.is_floating_point())


def test_a_queue_longer_than_the_data_warns_with_the_share(tiny: Run, data: Splits) -> None:
    with pytest.warns(UserWarning, match="88%"):  # x = 1.5: 1 - (2 - 1.5)^2 / 2
        train(replace(tiny, queue=768, epochs=1), data=data)


def test_without_labels_a_run_is_trained_and_not_evaluated(tiny: Run, data: Splits) -> None:
    bare = [replace(each, label=torch.full_like(each.label, -1), levels={}) for each in (data.train, data.validation)]
    result = train(replace(tiny, epochs=1), data=Splits(bare[0], bare[1], bare[1]))
    assert result["linear_top1"] is None and result["images"] == 0 and result["training_seconds"] > 0


def test_evaluation_on_other_data_and_levels(tiny: Run, data: Splits, tmp_path: Path) -> None:
    run = replace(tiny, epochs=1)
    result = train(run, data=data)
    again = evaluate(run.folder, data=data)
    for key in ("linear_top1", "linear_top5", "knn_top1"):
        assert again[key] == result[key]
    groups = evaluate(run.folder, data=data, level="group")
    assert (groups["classes"], groups["linear_top5"]) == (2, 100) and groups["linear_top1"] > again["linear_top1"]
    assert evaluate(run.folder, data=data, split="validation")["images"] == 128
    assert set(result["confusions"]) == {"group"}
    with pytest.raises(ValueError, match=r"no level 'genus'.*stripe"):
        evaluate(run.folder, data=data, level="genus")
    with pytest.raises(ValueError, match=r"no run\.json"):
        evaluate(tmp_path / "nothing")
