"""The explorer's numbers against plain loops, its page as a file, its table, and its exports read back."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import onca
from onca import cli
from onca.analyse import Space
from onca.data import ImageSet
from onca.data.hierarchy import Hierarchy
from onca.report import explorer
from onca.report.explorer import Views, explore, export
from onca.report.explorer.ages import ages, pairs_of, read_record
from onca.report.explorer.entries import entries, often_hard
from onca.report.explorer.layout import Layout, layout
from onca.report.explorer.plane import onto, pca, planes
from onca.report.explorer.sheets import COLUMNS, ROWS, sheets


def exact_space(count: int, seed: int = 0, classes: int = 5, epoch: float | None = None) -> Space:
    """Rows of few small whole numbers, so that products are exact and many are tied; every 7th label is unknown."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(-3, 4, (count, 6), generator=draw).float() / 8
    label = torch.arange(count) % classes
    label[::7] = -1
    names = tuple(f"kind/{k}" for k in range(classes))
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=draw, dtype=torch.uint8)
    index = torch.randperm(3 * count, generator=draw)[:count]
    images = ImageSet(pixels, label, index, names, {"class": (label, names)}, "made up")
    depth = torch.full((classes, classes), 1) + torch.eye(classes).long()
    return Space(
        rows, index, label, names, f"made up, epoch {epoch}", epoch, images, Hierarchy(depth, depth, "made up")
    )


# --- where along difficulty


@pytest.mark.parametrize("count", [3, 7, 20, 99, 500, 1999])
def test_percentiles_are_those_of_windows(count: int) -> None:
    """Rank r lies in window(low, high) when n(100 - high) <= r < n(100 - low), n(p) = floor(N p / 100 + 1/2)."""

    def at_most(percent: Fraction) -> int:
        return int(Fraction(count) * percent / 100 + Fraction(1, 2))

    percentile = layout(count, ()).percentile(torch.arange(count)).tolist()
    for low, high in (("90", "95"), ("99.9", "100"), ("0", "0.1"), ("33.3", "50"), ("0", "100")):
        inside = {r for r in range(count) if at_most(100 - Fraction(high)) <= r < at_most(100 - Fraction(low))}
        assert inside == {r for r, value in enumerate(percentile) if float(low) <= value < float(high)}


def test_the_window_of_a_method_holds_what_the_explorer_says_it_holds() -> None:
    space = exact_space(120)
    plan = layout(119, (75.0, 95.0))
    query, keys = space.rows[:1], space.rows[1:]
    pool = onca.pool(query, query, keys, normalize=False)
    test = onca.window(75, 95)(pool, pool.negatives)
    chosen = torch.cat([test(piece)[0] for piece in pool.negatives.slices(slice(0, 1))])
    order = (keys @ query[0]).sort(descending=True, stable=True).indices
    edges = {edge.percent: edge.rank for edge in plan.edges}
    assert set(chosen.nonzero().flatten().tolist()) == set(order[edges[95.0] : edges[75.0]].tolist())


@pytest.mark.parametrize("count", [3, 5, 12, 30, 149, 3000])
def test_zones_share_no_rank_and_stand_in_order(count: int) -> None:
    plan = layout(count, (90, 95))
    ranks = [rank for zone in plan.zones for rank in zone.ranks]
    assert len(set(ranks)) == len(ranks) and plan.ranks == sorted(ranks)
    assert min(ranks) == 0 and max(ranks) == count - 1
    assert [zone.ranks[0] for zone in plan.zones] == sorted(zone.ranks[0] for zone in plan.zones)
    for edge in plan.edges:
        beside = {rank for rank in (edge.rank - 1, edge.rank) if 0 <= rank < count}
        assert beside <= set(ranks)


# --- entries


def oracle(space: Space, query: int) -> list[tuple[float, int]]:
    """All negatives of a query as (similarity, row), the hardest first, ties by row; float64, one by one."""
    rows = space.rows.double().numpy()
    scores = [(float(np.dot(rows[query], rows[row])), row) for row in range(len(rows)) if row != query]
    return sorted(scores, key=lambda pair: (-pair[0], pair[1]))


def test_entries_are_those_of_plain_loops() -> None:
    space, group = exact_space(300), torch.arange(300) // 3
    plan = layout(299, (90, 95))
    recorded = torch.tensor([[7, 4], [7, 200], [299, 3]])
    found = entries(space, plan, group, recorded=recorded)
    hits = [0] * 300
    for query in range(300):
        ranking = oracle(space, query)
        for _, row in ranking[: plan.hard]:
            hits[row] += 1
        same = [r for r, (_, row) in enumerate(ranking) if space.label[query] == space.label[row] >= 0]
        near = [r for r, (_, row) in enumerate(ranking) if row // 3 == query // 3]
        kept = [r for r, (_, row) in enumerate(ranking) if [query, row] in recorded.tolist()]
        expected = sorted({*plan.ranks, *same[:4], *same[-2:], *near, *kept})
        there = int(found.known[query].sum())
        assert found.rank[query, :there].tolist() == expected and not found.known[query, there:].any()
        assert found.row[query, :there].tolist() == [ranking[rank][1] for rank in expected]
        assert found.similarity[query, :there].tolist() == [ranking[rank][0] for rank in expected]
        assert found.curve[query].tolist() == [ranking[rank][0] for rank in plan.curve]
    assert found.hits.tolist() == hits and plan.hard == 15


def test_views_are_ranked_among_the_negatives() -> None:
    space = exact_space(60)
    views = torch.stack([space.rows, space.rows.roll(1, 0)], 1)
    found = entries(space, layout(59, ()), views=views)
    for query in range(60):
        for view in range(2):
            own = float(np.dot(space.rows[query].double().numpy(), views[query, view].double().numpy()))
            assert float(found.views[query, view]) == own
            assert int(found.above[query, view]) == sum(score > own for score, _ in oracle(space, query))


def test_a_hub_is_consistently_hard_and_noise_is_not() -> None:
    draw, count = torch.Generator().manual_seed(3), 400
    noise = torch.nn.functional.normalize(torch.randn(count, 256, generator=draw), dim=1)
    label = torch.full((count,), -1)
    plan = layout(count - 1, ())

    def often(rows: Tensor) -> list[int]:
        found = entries(Space(rows, torch.arange(count), label, (), "planted"), plan)
        assert int(found.hits.sum()) == count * plan.hard
        return often_hard(found.hits, plan).nonzero().flatten().tolist()

    assert often(noise) == []
    hub = noise.clone()
    hub[17] = noise.sum(0) / noise.sum(0).norm()
    assert often(hub) == [17]


# --- map and sheets


def test_principal_components_find_a_planted_plane() -> None:
    draw = torch.Generator().manual_seed(0)
    flat = torch.randn(200, 2, generator=draw) * torch.tensor([3.0, 1.0])
    basis = torch.linalg.qr(torch.randn(9, 9, generator=draw)).Q[:2]
    found = pca(flat @ basis + 5)
    between = [torch.cdist(points.double(), points.double()) for points in (found.points, flat)]
    assert torch.allclose(*between, atol=1e-4)
    assert "100 % of the variance" in found.axes


def test_maps_of_checkpoints_are_turned_onto_each_other() -> None:
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    mirrored = points @ torch.tensor([[0.6, 0.8], [0.8, -0.6]]) + 4
    assert torch.allclose(onto(mirrored, points), points - points.mean(0), atol=1e-5)


@pytest.mark.skipif(find_spec("umap") is not None, reason="umap-learn is installed")
def test_a_map_by_umap_asks_for_its_package() -> None:
    with pytest.raises(ValueError, match="pip install umap-learn"):
        planes([torch.eye(5)], "umap")


def test_pictures_stand_where_the_script_looks_for_them() -> None:
    count = COLUMNS * ROWS + 30
    shade = torch.arange(count) % 250
    pixels = shade.view(-1, 1, 1, 1).expand(-1, 3, 16, 16).to(torch.uint8)
    made = sheets([pixels[:100], pixels[100:]], 16)
    assert made.rows == (ROWS, 2) and (made.height, made.width) == (16, 16)
    for number in (0, 19, 20, 399, 400, 429):
        data = base64.b64decode(made.data[number // (COLUMNS * ROWS)].split(",")[1])
        inside = number % (COLUMNS * ROWS)
        sheet = Image.open(io.BytesIO(data)).convert("L")
        assert abs(sheet.getpixel((inside % COLUMNS * 16 + 8, inside // COLUMNS * 16 + 8)) - int(shade[number])) <= 3


def test_large_images_are_made_small() -> None:
    made = sheets([torch.zeros(2, 3, 100, 200, dtype=torch.uint8)], 64)
    assert (made.height, made.width) == (32, 64)


# --- ages


def write_ledger(folder: Path, records: list[tuple[float, int, int, int | None, str]]) -> None:
    """(epoch, query, negative, age, role) each."""
    import pyarrow
    from pyarrow import parquet

    names = ("epoch", "query", "negative", "age", "role")
    folder.mkdir(parents=True)
    columns = {name: [record[at] for record in records] for at, name in enumerate(names)}
    parquet.write_table(pyarrow.table(columns), folder / "part-000000.parquet")


def test_ages_are_those_of_the_last_record_up_to_the_epoch(tmp_path: Path) -> None:
    space = exact_space(30, epoch=2.0)
    plan = layout(29, ())
    found = entries(space, plan)
    index = space.index.sort().values  # of the training set, in another order than the space
    row = {int(image): place for place, image in enumerate(index)}
    query, (near, far) = 4, found.row[4, [0, 1]].tolist()
    q, a, b = (row[int(space.index[image])] for image in (query, near, far))
    records = [(0.5, q, a, 9, "memory"), (1.5, q, a, 3, "memory"), (2.5, q, a, 1, "memory"), (0.7, q, b, 5, "positive"),
               (1.0, q, b, None, "memory"), (0.1, b, a, 6, "batch")]  # fmt: skip
    write_ledger(tmp_path / "ledger", records)
    known = ages(read_record(tmp_path, index), space, found)
    assert known.pair[4, 0] == 3 and known.pair[4, 1] == -1 and int((known.pair >= 0).sum()) <= 2
    pairs = pairs_of(read_record(tmp_path, index), space)
    assert pairs.tolist() == [[query, near], [query, near], [far, near]]
    assert int(known.records[near]) == 3 and float(known.image[near]) == 6 and bool(known.image[far].isnan())
    with pytest.raises(ValueError, match="another run's ledger"):
        read_record(tmp_path, index[:1])


# --- the page and its table


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    first = [exact_space(80, epoch=epoch) for epoch in (0.0, 4.0)]
    pixels = torch.zeros(80, 2, 3, 8, 8, dtype=torch.uint8)
    rows = tuple(torch.stack([space.rows, space.rows], 1) for space in first)
    group = torch.arange(240)
    group[first[0].index[:3]] = 7
    return explore(
        first, path=folder / "page.html", title="a < b </script>", views=Views(pixels, rows), duplicates=group
    )


def payload(page: Path) -> Any:
    return json.loads(
        re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[0]
    )


def numbers(value: dict[str, str]) -> Any:
    ((kind, text),) = value.items()
    kinds = {"u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i32": np.int32, "f32": np.float32, "f64": np.float64}
    return np.frombuffer(base64.b64decode(text), kinds[kind])


def test_the_page_holds_the_numbers_of_its_table(written: Path) -> None:
    from pyarrow import parquet

    data, table = payload(written), parquet.read_table(written.with_suffix(".parquet")).to_pylist()
    index, percentile = numbers(data["images"]["index"]), numbers(data["layout"]["percentile"])
    rows = iter(table)
    for checkpoint in data["runs"][0]["checkpoints"]:
        columns = {name: numbers(checkpoint[name]) for name in ("row", "rank", "similarity")}
        for place, (row, rank, similarity) in enumerate(zip(*columns.values(), strict=True)):
            if row == 65535:
                continue
            said = next(rows)
            assert (said["epoch"], said["query"]) == (checkpoint["epoch"], index[place // checkpoint["width"]])
            assert (said["negative"], said["rank"], said["similarity"]) == (index[row], rank, similarity)
            assert said["percentile"] == percentile[rank]
    assert next(rows, None) is None


def test_the_page_is_one_file_that_loads_nothing_and_runs_its_own_script_alone(written: Path) -> None:
    page = written.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[\w./-]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r'(?:src|href)="', page) and "<script>alert" not in page
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0].replace("&#x27;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for kind in ("style", "script"):
        text = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.S)[0]
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert payload(written)["title"] == "a < b </script>"


def test_two_thousand_images_stay_below_the_limit(tmp_path: Path) -> None:
    """By extrapolation: what a page of 400 noise images of 32 pixels takes without its script, five times."""
    space = exact_space(400)
    pixels = torch.randint(0, 256, (400, 3, 32, 32), dtype=torch.uint8)
    noise = ImageSet(pixels, space.label, space.index, space.names, {}, "noise")
    shown = Space(space.rows, space.index, space.label, space.names, "noise", images=noise)
    page = explore([shown] * 3, path=tmp_path / "page.html", table=False)
    assert 5 * page.stat().st_size < explorer.MOST_BYTES
    assert not page.with_suffix(".parquet").exists()


def test_a_page_that_would_be_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match=r"take fewer than 20 images, or fewer than 1 checkpoints"):
        explore([exact_space(20)], path=tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_spaces_without_images_labels_or_hierarchy_are_shown_as_well(tmp_path: Path) -> None:
    rows = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    bare = Space(rows, torch.arange(12), torch.full((12,), -1), (), "embeddings")
    data = payload(explore([bare], path=tmp_path / "page.html"))
    assert data["thumbs"] is None and data["images"]["depth"] is None and data["images"]["group"]["names"] == []


def bad_spaces() -> dict[str, tuple[list[Space], dict[str, Any], str]]:
    space = exact_space(20)
    other = Space(space.rows, space.index + 1, space.label, space.names, "others")
    repeated = Space(space.rows, space.index * 0, space.label, space.names, "repeated")
    return {
        "no space": ([], {}, "needs a space"),
        "too few images": ([exact_space(3)], {}, "4 to 65,534 images; got 3"),
        "other images": ([space, other], {}, "others is of other images than made up"),
        "other images against": ([space], {"against": [other]}, "others is of other images"),
        "an index twice": ([repeated], {}, "here some repeat"),
        "an edge": ([space], {"edges": (95, 100)}, "between 0 and 100 .* got 100"),
        "groups of fewer images": ([space], {"duplicates": torch.arange(3)}, "duplicates are given for 3 images"),
        "views of fewer spaces": ([space], {"views": Views(torch.zeros(20, 2, 3, 8, 8), ())}, r"rows \[N,V,D\]"),
        "a map": ([space], {"map": "tsne"}, 'a map is "pca" or "umap"'),
    }


@pytest.mark.parametrize("case", bad_spaces())
def test_what_cannot_be_shown_is_refused(case: str, tmp_path: Path) -> None:
    spaces, more, message = bad_spaces()[case]
    with pytest.raises(ValueError, match=message):
        explore(spaces, path=tmp_path / "page.html", **more)


# --- exports


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, Path, Path]:
    space = exact_space(40)
    return space, *export(space, tmp_path_factory.mktemp("export"), k=5)


def test_the_parquet_for_embedding_atlas_has_zero_based_rows_as_neighbours(exported: tuple[Space, Path, Path]) -> None:
    from pyarrow import parquet

    space, atlas, _ = exported
    rows = parquet.read_table(atlas).to_pylist()
    assert [row["index"] for row in rows] == space.index.tolist()
    assert space.images is not None
    for place, row in enumerate(rows):
        ranking = oracle(space, place)[:5]
        assert row["neighbors"]["ids"] == [other for _, other in ranking]
        assert row["neighbors"]["distances"] == [1 - similarity for similarity, _ in ranking]
        pixels = np.array(Image.open(io.BytesIO(row["image"]["bytes"])))
        assert (pixels == space.images.take(torch.tensor([place]))[0].permute(1, 2, 0).numpy()).all()
        label = int(space.label[place])
        assert row["class"] == (space.names[label] if label >= 0 else None)
        assert np.isfinite([row["x"], row["y"]]).all()


def test_the_folder_for_fiftyone_is_an_image_classification_dataset(exported: tuple[Space, Path, Path]) -> None:
    space, _, folder = exported
    read = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    assert read["classes"] == list(space.names)
    assert {path.stem for path in (folder / "data").iterdir()} == set(read["labels"])
    for index, label in zip(space.index.tolist(), space.label.tolist(), strict=True):
        said = read["labels"][f"{index:06d}"]
        assert (said is None) == (label < 0)
        if said:
            assert said["label"] == label and said["attributes"]["index"] == index
            assert {"hard_for", "times_chance", "consistently_hard", "x", "y"} <= set(said["attributes"])


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    space = exact_space(10)
    with pytest.raises(ValueError, match="1 to 9 neighbours"):
        export(space, tmp_path, k=10)
    with pytest.raises(ValueError, match="has no images"):
        export(Space(space.rows, space.index, space.label, space.names, "bare"), tmp_path)


# --- the command


def test_the_command_writes_the_page_of_a_run_with_ages_and_exports(source: str, tmp_path: Path, capsys: Any) -> None:
    from pyarrow import parquet

    common = ["train", "--data", source, "--encoder", "small(4)", "--batch", "64", "--queue", "128", "--dim", "8"]
    common += ["--runs", str(tmp_path)]
    assert cli.main([*common, "--epochs", "2", "--snapshots", "1", "--ledger"]) == 0
    (run,) = (path.parent for path in tmp_path.glob("*/run.json"))
    assert cli.main([*common, "--epochs", "1", "--method", "chain(keep(hardest(50)), infonce)"]) == 0
    (other,) = (path.parent for path in tmp_path.glob("*/run.json") if path.parent != run)
    capsys.readouterr()
    assert cli.main(["explore", str(run), "--against", str(other), "--images", "60", "--ledger", "--edges", "80",
                     "--export", str(tmp_path / "export")]) == 0  # fmt: skip
    assert capsys.readouterr().out.split()[0] == str(run / "explorer.html")
    shown = payload(run / "explorer.html")
    assert [one["name"] for one in shown["runs"]] == ["infonce", "chain(keep(hardest(50)), infonce)"]
    assert [checkpoint["epoch"] for checkpoint in shown["runs"][0]["checkpoints"]] == [0, 1, 2]
    assert [edge["percent"] for edge in shown["layout"]["edges"]] == [80]
    assert len(numbers(shown["images"]["index"])) == 60 and shown["viewThumbs"] is not None
    table = parquet.read_table(run / "explorer.parquet").to_pylist()
    assert {row["run"] for row in table} == {"infonce", "chain(keep(hardest(50)), infonce)"}
    assert (
        any(row["age"] is not None for row in table)
        or numbers(shown["runs"][0]["checkpoints"][-1]["ages"]["records"]).any()
    )
    assert (tmp_path / "export" / "atlas.parquet").is_file()


def test_the_command_takes_files_of_embeddings(tmp_path: Path, capsys: Any) -> None:
    draw = np.random.default_rng(0)
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", embeddings=draw.normal(size=(70, 6)), labels=np.arange(70) % 7)
    given = [str(tmp_path / "one.npz"), "--against", str(tmp_path / "two.npz"), "--images", "35"]
    assert cli.main(["explore", *given]) == 0
    page = tmp_path / "one.explorer.html"
    assert capsys.readouterr().out == f"{page}\n" and page.with_suffix(".parquet").is_file()
    shown = payload(page)
    assert [run["name"] for run in shown["runs"]] == ["one.npz", "two.npz"] and shown["thumbs"] is None
    assert numbers(shown["images"]["index"]).tolist() == list(range(35))


def test_the_command_names_what_is_not_there(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["explore", str(tmp_path / "nothing")]) == 2
    assert "neither a run nor a file of embeddings" in capsys.readouterr().err
    assert cli.main(["explore", str(tmp_path)]) == 2 and "run.json" in capsys.readouterr().err


def test_layouts_are_values() -> None:
    assert layout(50, (90,)) == layout(50, (90, 90)) and isinstance(layout(50, ()), Layout)
