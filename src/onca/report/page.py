"""Building blocks of a self-contained page: text in, escaped HTML out, no request to anywhere.

`tag` is the only place where markup is made; a plain str among its children is escaped, `Html` is taken as it stands.
`page` puts style, script and, if the body holds a figure, the chart library (Vega, once) into one file.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources

from onca.report.charts import SYMBOLS
from onca.report.figure import Figure
from onca.report.theme import DARK, LIGHT

# The page may run its own script and style and load nothing. Vega compiles its expressions, hence 'unsafe-eval'.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"
VOID = ("meta", "br", "hr", "img")


class Html(str):
    """Text that is markup already."""


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """`tag("p", "a < b", class_="lead")`: an element; a trailing _ keeps Python's own words usable as attributes."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(v)}"' for key, v in attributes.items())
    inside = join(*children)
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{inside}</{name}>")


def join(*children: str) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))


def escape(text: str) -> str:
    """Text as HTML; a line does not break before a percent sign."""
    return html.escape(text).replace(" %", "&nbsp;%")


def section(title: str, *body: str) -> Html:
    return tag("section", tag("h2", title), *body)


def card(title: str, headline: str, *text: str) -> Html:
    paragraphs = (tag("p", line) for line in text)
    return tag("article", tag("h3", title), tag("p", headline, class_="headline"), *paragraphs, class_="card")


def badge(outcome: str) -> Html:
    """A verdict as a coloured word with a sign of its own, so that colour alone says nothing."""
    kind = outcome.replace(" ", "-")
    return tag("span", f"{SYMBOLS.get(outcome, '–')} {outcome}", class_=f"badge {kind}")


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    caption: str = "",
    stacked: bool = False,
) -> Html:
    """A table in a scroller of its own. `numbers` are the columns set flush right; no row gives a line that says so.

    A `stacked` table, one of words, becomes a list of cards where the page is narrow.
    """

    def cells(kind: str, row: Sequence[str]) -> Html:
        flush = [{"class_": "number"} if place in numbers else {} for place in range(len(row))]
        return join(*(tag(kind, cell, data_label=head[i], **flush[i]) for i, cell in enumerate(row)))

    body = [tag("tr", cells("td", row)) for row in rows] or [
        tag("tr", tag("td", "no finished run yet", colspan=str(len(head))))
    ]
    grid = tag("table", tag("thead", tag("tr", cells("th", head))), tag("tbody", *body))
    scroller = tag("div", grid, class_="scroller stacked" if stacked else "scroller", tabindex="0")
    return join(scroller, tag("p", caption, class_="note")) if caption else scroller


def facts(pairs: Mapping[str, object]) -> Html:
    """Names and values, for where numbers come from. Nested mappings are written with dots."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in flat(pairs)), class_="facts")


def flat(pairs: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in pairs.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            found.append((prefix + name, ", ".join(map(str, value))))
        else:
            text = f"{value:.6g}" if isinstance(value, float) else "–" if value is None else str(value)
            found.append((prefix + name, text))
    return found


def figure(drawn: Figure) -> Html:
    """A figure's panels one below the other, drawn by the page at its own width, and a caption."""
    panels = [
        join(
            *((tag("h4", panel.title),) if panel.title else ()),
            tag("div", class_="chart", role="img", aria_label=f"{drawn.title}. {panel.title}"),
            Html(f'<script type="application/json">{_inside_script(json.dumps(panel.specification()))}</script>'),
        )
        for panel in drawn.panels
    ]
    caption = tag("figcaption", tag("strong", drawn.title + ". "), drawn.caption)
    return tag("figure", *panels, caption, id=drawn.key)


def page(title: str, *body: str) -> str:
    """The whole file. The chart library goes in once, and only if there is a chart to draw."""
    content = join(*body)
    scripts = ""
    if 'class="chart"' in content:
        themes = json.dumps({"light": LIGHT, "dark": DARK})
        drawing = _resource("page.js").replace('"THEMES"', themes)
        scripts = f"<script>{_library()}</script>\n<script>{_inside_script(drawing)}</script>"
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(_resource("page.css"))),
    )
    written = f"<body><main>{content}</main>\n{scripts}</body>"
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n{written}\n</html>\n'


def _inside_script(text: str) -> str:
    # "</script>" or "<!--" inside a script would end it; in JSON and JavaScript strings \u003c is the same character.
    return text.replace("</", "\\u003c/").replace("<!--", "\\u003c!--")


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed (BSD-3-Clause) as vl-convert carries them, in a scope of their own."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    if "</script" in bundle or "<!--" in bundle:
        raise RuntimeError("the chart library of this vl-convert cannot stand inside a page: use another version of it")
    return f"/* Vega, Vega-Lite, Vega-Embed: BSD-3-Clause */(()=>{{{bundle}}})();"
