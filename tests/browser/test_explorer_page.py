"""The explorer in a browser: what it shows is what the table holds, and everything can be clicked, typed and linked."""

from __future__ import annotations

import csv
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("playwright", reason="pages are tested in a browser: pip install playwright")
from playwright.sync_api import Page

from onca.analyse import space
from onca.report.explorer import explore

LAST = 8.0
FLAGS = ("same_class", "near_duplicate", "anti_correlated", "consistently_hard")
SIGNS = {"same_class": "=", "near_duplicate": "≈", "anti_correlated": "−", "consistently_hard": "▲"}


def tiles(page: Page, side: int = 0) -> list[dict[str, str]]:
    """What each tile says, in the order of the page."""
    found: list[dict[str, str]] = page.eval_on_selector_all(
        f'[data-run="{side}"] .tile',
        """tiles => tiles.map(tile => ({
            row: tile.dataset.row, zone: tile.closest('.zone').dataset.zone, label: tile.getAttribute('aria-label'),
            similarity: tile.querySelector('.similarity').textContent,
            signs: tile.querySelector('.signs')?.textContent ?? '',
            percentile: tile.querySelector('.percentile').textContent,
            small: [...tile.querySelectorAll('.kind')].map(line => line.textContent).join(' ') }))""",
    )
    return found


def name(page: Page) -> str:
    return page.inner_text("#name").replace("\u200b", "")


def image(page: Page) -> int:
    """The query's index."""
    return int(page.inner_text(".query .soft").split()[1])


def digits(row: dict[str, Any]) -> tuple[str, str]:
    """Similarity and percentile as they should be written; halves are rounded up."""
    similarity, percentile = (
        str(Decimal(row[name]).quantize(Decimal(step), ROUND_HALF_UP))
        for name, step in (("similarity", "0.001"), ("percentile", "0.1"))
    )
    return similarity.replace("-", "−"), f"{percentile} %"


def expect(page: Page, expected: list[dict[str, Any]], side: int = 0) -> None:
    """The tiles are these rows: zones, numbers and flags; in a zone the hardest comes first."""
    shown = tiles(page, side)
    assert len(shown) == len(expected) > 0
    for zone in {row["zone"] for row in expected}:
        wanted = [row for row in expected if row["zone"] == zone]
        for tile, row in zip([tile for tile in shown if tile["zone"] == zone], wanted, strict=True):
            assert (int(tile["row"]), tile["similarity"], tile["percentile"]) == (row["negative"], *digits(row))
            assert tile["signs"] == "".join(SIGNS[flag] for flag in FLAGS if row[flag])
            assert row["negative_class"] in tile["label"] and f"depth {row['lca_depth']}" in tile["small"]
            assert ("age" in tile["small"]) == (row["age"] is not None)


def test_the_numbers_on_the_page_are_those_of_the_table_for_every_checkpoint_of_both_runs(
    open_page: Any, rows: Any
) -> None:
    page = open_page()
    for query in (0, 1, 77):
        for step, epoch in enumerate((0.0, 3.0, 8.0)):
            page.evaluate(f"location.hash = '#image={query}&step0={step}&step1={2 - step}'")
            page.wait_for_function(f"document.querySelector('.query .soft').textContent === 'image {query}'")
            assert image(page) == query
            expect(page, rows.of(0, epoch, query), 0)
            expect(page, rows.of(1, (8.0, 3.0, 0.0)[step], query), 1)


def test_titles_and_names_are_text(open_page: Any) -> None:
    page = open_page()
    assert page.inner_text("h1") == 'Coats & "spots" </script>'
    assert page.inner_text('[data-run="1"] h2') == "chain(drop(hardest(5)), infonce)"


def test_an_image_is_found_by_its_class_and_by_its_index(open_page: Any, rows: Any) -> None:
    page = open_page()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("stripes filled")
    names = page.eval_on_selector_all("#picker button", "all => all.map(one => one.title)")
    assert names and all("stripes/" in one and "filled" in one for one in names)
    page.keyboard.press("Enter")
    assert "stripes/" in name(page)
    page.fill("#search", "77")
    assert page.locator("#picker button").count() == 1
    page.keyboard.press("Enter")
    assert image(page) == 77
    expect(page, rows.of(0, LAST, 77))
    page.fill("#search", "no such thing")
    assert "No class and no index like this" in page.inner_text("#picker")


def test_images_stand_in_the_order_that_is_asked_for(open_page: Any) -> None:
    page = open_page()
    for order, sign in (("hard", -1), ("easy", 1)):
        page.select_option("#order", order)
        hits = []
        for place in (0, 1, 40):
            page.click(f"#picker button >> nth={place}")
            hits.append(sign * int(re.findall(r"for (\d+) of 149", page.inner_text('[data-run="0"] .hits'))[0]))
        assert hits == sorted(hits) and hits[0] < hits[2]


def test_a_click_chooses_a_negative_and_another_makes_it_the_query(open_page: Any, rows: Any) -> None:
    page = open_page("#image=1")
    row = rows.of(0, LAST, 1)[3]
    page.click(f'[data-run="0"] .tile[data-row="{row["negative"]}"]')
    said = page.inner_text('[data-run="0"] .pair')
    for text in (
        row["negative_class"].split("/")[-1],
        *digits(row),
        f"depth {row['lca_depth']}",
        f"rank {row['rank'] + 1} of 149",
    ):
        assert text in said
    assert page.locator('[data-run="0"] .point.chosen').count() == 1
    page.click('[data-run="0"] .pair button')
    assert image(page) == row["negative"]
    page.go_back()
    assert image(page) == 1


def test_a_click_on_the_map_takes_the_image_there(open_page: Any) -> None:
    page = open_page("#image=1")
    page.locator("#plane0").click(position={"x": 20, "y": 20})
    first = image(page)
    page.locator("#plane0").press("ArrowRight")
    assert first != 1 and image(page) != first
    page.click("#legend button >> nth=0")
    assert page.get_attribute("#legend button >> nth=0", "aria-pressed") == "true"


def test_filters_leave_the_rows_with_all_their_flags(open_page: Any, rows: Any) -> None:
    page = open_page("#image=0")
    everything = rows.of(0, LAST, 0)
    for flag in FLAGS:
        counts = [sum(bool(row[flag]) for row in rows.of(side, LAST, 0)) for side in (0, 1)]
        assert page.inner_text(f'[data-flag="{flag}"] .count') == f"{counts[0]} | {counts[1]}"
        assert sum(counts) > 0  # else nothing is tested
    page.click('[data-flag="same_class"]')
    expect(page, [row for row in everything if row["same_class"]])
    page.click('[data-flag="near_duplicate"]')
    expect(page, [row for row in everything if row["same_class"] and row["near_duplicate"]])
    page.click('[data-flag="same_class"]')
    page.click('[data-flag="near_duplicate"]')
    page.click('[data-flag="anti_correlated"]')
    expect(page, [row for row in everything if row["similarity"] < 0])
    page.click('[data-flag="near_duplicate"]')
    assert "None of the" in page.inner_text('[data-run="0"] .zones')


def test_the_slider_goes_over_checkpoints_of_one_run_alone(open_page: Any, rows: Any) -> None:
    page = open_page("#image=3")
    page.locator("#slider0").focus()
    page.keyboard.press("ArrowLeft")
    assert page.inner_text('[data-run="0"] output') == "epoch 3"
    expect(page, rows.of(0, 3.0, 3), 0)
    expect(page, rows.of(1, LAST, 3), 1)
    page.locator("#name").focus()
    page.keyboard.press(",")
    expect(page, rows.of(0, 0.0, 3), 0)
    expect(page, rows.of(1, 3.0, 3), 1)


def test_the_keyboard_alone_is_enough(open_page: Any, rows: Any) -> None:
    page = open_page("#image=3")
    order = [int(tile["row"]) for tile in tiles(page)]
    page.locator('[data-run="0"] .tile').first.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("Number(document.activeElement.dataset.row)") == order[2]
    assert page.locator('[data-run="0"] .pair').count() == 1
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowDown")
    below = page.evaluate("Number(document.activeElement.dataset.row)")
    assert order.index(below) > 2
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert image(page) == page.evaluate("Number(new URLSearchParams(location.hash.slice(1)).get('image'))") != 3
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "name"
    page.fill("#search", "")
    page.locator("#search").press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute(f'#picker button[data-row="{image(page)}"]', "aria-selected") == "true"


def test_a_link_shows_the_same_view(open_page: Any) -> None:
    page = open_page("#image=3")
    page.click('[data-flag="anti_correlated"]')
    page.locator('[data-run="1"] .tile').first.click()
    page.keyboard.press(",")
    address = page.evaluate("location.hash")
    again = open_page(address)
    assert again.evaluate("location.hash") == address
    assert tiles(again, 0) == tiles(page, 0) and tiles(again, 1) == tiles(page, 1)
    assert again.inner_text('[data-run="1"] .pair') == page.inner_text('[data-run="1"] .pair')


@pytest.mark.parametrize("address", ["#image=99999", "#image=x&step0=77&only=nothing", "#%00"])
def test_a_link_that_leads_nowhere_shows_a_page_all_the_same(open_page: Any, address: str) -> None:
    assert tiles(open_page(address))


def test_two_runs_stand_side_by_side_and_what_they_agree_on_is_said(open_page: Any, rows: Any) -> None:
    page = open_page("#image=3")
    hardest = [{row["negative"] for row in rows.of(side, LAST, 3) if row["zone"] == "hardest"} for side in (0, 1)]
    assert page.inner_text(".query p >> nth=1").startswith(
        f"{len(hardest[0] & hardest[1])} of its {len(hardest[0])} hardest"
    )
    first, second = (page.locator(f'[data-run="{side}"]').bounding_box() for side in (0, 1))
    assert first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]


def test_positives_are_above_all_negatives_where_a_view_is_the_image_itself(open_page: Any) -> None:
    page = open_page("#image=3")
    first = page.inner_text(".positives li >> nth=0")
    assert first.count("1.000 above all negatives") == 2  # one of each run
    assert page.locator('[data-run="0"] line.positive').count() == 2


def test_the_ledger_tells_ages_up_to_the_checkpoint(open_page: Any, rows: Any) -> None:
    known = [row for epoch in (0.0, 3.0) for row in rows.of(0, epoch, 1) if row["age"] is not None]
    assert [(row["epoch"], row["negative"], row["age"]) for row in known] == [(3.0, 2, 11)]
    page = open_page("#image=1&negative=2")
    assert "2 times, 9 steps old on average" in page.inner_text('[data-run="0"] .pair')
    assert "11 steps" in page.inner_text('[data-run="0"] .pair')
    page.select_option("#order", "ledger")
    assert page.eval_on_selector_all("#picker button", "all => all.slice(0, 2).map(one => one.dataset.row)") == [
        "1",
        "9",
    ]
    assert not any(row["age"] for row in rows.of(1, LAST, 1))  # the other run's is not known


def test_what_is_shown_is_saved_as_csv(open_page: Any, rows: Any, tmp_path: Path) -> None:
    page = open_page("#image=3")
    page.click('[data-flag="anti_correlated"]')
    with page.expect_download() as coming:
        page.click("#save")
    coming.value.save_as(tmp_path / "rows.csv")
    assert coming.value.suggested_filename == "negatives-of-3.csv"
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        saved = list(csv.DictReader(file))
    expected = [row for side in (0, 1) for row in rows.of(side, LAST, 3) if row["anti_correlated"]]
    assert len(saved) == len(expected) > 0
    for line, row in zip(saved, expected, strict=True):
        for column in ("run", "query", "query_class", "negative", "negative_class", "zone", "rank"):
            assert line[column] == str(row[column])
        assert float(line["similarity"]) == pytest.approx(row["similarity"], rel=1e-7)
        assert float(line["percentile"]) == row["percentile"]
        assert all((line[flag] == "true") == row[flag] for flag in FLAGS)


def test_edges_are_drawn_between_the_tiles_they_divide(open_page: Any, rows: Any) -> None:
    page = open_page("#image=3")
    for percent in (90, 95):
        before, after = page.evaluate(
            f"""(() => {{ const edge = document.querySelector('[data-run="0"] [data-zone="edge {percent}"] .edge');
            return [edge.previousElementSibling.dataset.row, edge.nextElementSibling.dataset.row].map(Number); }})()"""
        )
        found = {row["negative"]: row["percentile"] for row in rows.of(0, LAST, 3)}
        assert found[before] >= percent > found[after]
    assert page.eval_on_selector_all('[data-run="0"] text.edge', "all => all.map(one => one.textContent)") == [
        "95",
        "90",
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light"), (400, "dark")])
def test_the_page_fits_its_window_in_both_themes(chromium: Any, written: Path, width: int, scheme: Any) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    page.goto(written.as_uri() + "#image=3&negative=5")
    page.wait_for_selector(".tile")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] > 128")
    assert light == (scheme == "light")
    context.close()


def test_the_pages_policy_stops_what_it_did_not_bring(chromium: Any, written: Path) -> None:
    page = chromium.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(written.as_uri())
    ran = page.evaluate(
        """() => { const script = document.createElement('script'); script.textContent = 'window.planted = true';
        document.body.append(script); return window.planted === true; }"""
    )
    page.close()
    assert not ran and any("Content Security Policy" in text for text in said)


def test_with_too_many_classes_to_colour_the_chosen_ones_stand_out(open_page: Any, tmp_path: Path) -> None:
    """Blue for the query's class, then orange for the negative's, and neither for any other."""
    draw, label = torch.Generator().manual_seed(0), torch.arange(240) % 60
    classes = torch.randn(60, 8, generator=draw)
    many = space(
        classes[label] + 0.2 * torch.randn(240, 8, generator=draw), label, tuple(f"kind {k}" for k in range(60))
    )
    page = open_page("#image=7", explore([many], path=tmp_path / "many.html"))

    def legend() -> list[str]:
        return [text.strip() for text in page.locator("#legend button").all_inner_texts()]

    assert legend() == ["kind 7"]
    blue, orange = painted(page)
    assert blue > 0 and orange == 0
    other = next(tile for tile in tiles(page) if int(tile["row"]) % 60 != 7)
    page.click(f'.tile[data-row="{other["row"]}"]')
    assert legend() == ["kind 7", f"kind {int(other['row']) % 60}"]
    assert all(painted(page))
    page.click("#legend button >> nth=1")
    page.locator("#plane0").click(position={"x": 20, "y": 20})
    assert image(page) % 60 == int(other["row"]) % 60  # only the group brought forward takes clicks
    page.keyboard.press("Escape")
    assert len(legend()) == 1


def painted(page: Page) -> tuple[int, int]:
    """Pixels of the map that are blue, and that are orange."""
    blue, orange = page.evaluate("""() => {
        const map = document.getElementById("plane0");
        const pen = new OffscreenCanvas(map.width, map.height).getContext("2d", { willReadFrequently: true });
        pen.drawImage(map, 0, 0);
        const pixels = pen.getImageData(0, 0, map.width, map.height).data;
        const found = [0, 0];
        for (let at = 0; at < pixels.length; at += 4) {
            const [red, , blue, alpha] = pixels.slice(at, at + 4);
            if (alpha > 100 && Math.abs(red - blue) > 90) found[red > blue ? 1 : 0]++;
        }
        return found;
    }""")
    return blue, orange
