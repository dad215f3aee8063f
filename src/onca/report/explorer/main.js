// What happens when: everything is shown anew after each change, which takes a few milliseconds.
const show = () => {
  markPicked();
  showQuery();
  data.runs.forEach((_, side) => {
    showSide(side);
    drawPlane(side);
  });
  showLegend();
  showCounts();
  rove();
};

// Filters with how many of the query's negatives they leave, in each run.
const showCounts = () => {
  for (const chip of document.querySelectorAll(".chip[data-flag]")) {
    const flag = chip.dataset.flag;
    chip.setAttribute("aria-pressed", state.filters.has(flag));
    const counts = data.runs.map((_, side) => entriesOf(checkpointOf(side), state.query).filter((one) => one.flags[flag]).length);
    chip.querySelector(".count").textContent = counts.join(" | ");
  }
};

// One tile of each run can be reached with the tab key: the chosen one, else the first.
const rove = () => {
  data.runs.forEach((_, side) => {
    const tiles = tilesOf(side);
    const reached = tiles.find((element) => Number(element.dataset.row) === state.negative) ?? tiles[0];
    if (reached) reached.tabIndex = 0;
  });
};

// From one element of a grid to that beside or below it.
const next = (elements, from, key) => {
  const at = elements.indexOf(from);
  if (key === "ArrowLeft") return elements[at - 1];
  if (key === "ArrowRight") return elements[at + 1];
  if (key === "Home") return elements[0];
  if (key === "End") return elements.at(-1);
  const own = from.getBoundingClientRect();
  const rows = elements.map((element) => [element, element.getBoundingClientRect()]);
  const beyond = rows.filter(([, box]) => (key === "ArrowDown" ? box.top > own.top + 4 : box.top < own.top - 4));
  if (!beyond.length) return undefined;
  const line = key === "ArrowDown" ? Math.min(...beyond.map(([, box]) => box.top)) : Math.max(...beyond.map(([, box]) => box.top));
  const inLine = beyond.filter(([, box]) => Math.abs(box.top - line) < 4);
  return inLine.reduce((best, each) => (Math.abs(each[1].left - own.left) < Math.abs(best[1].left - own.left) ? each : best))[0];
};

const MOVES = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];

picker.addEventListener("keydown", (event) => {
  const from = event.target.closest("button");
  const to = from && MOVES.includes(event.key) ? next([...picker.querySelectorAll("button")], from, event.key) : undefined;
  if (!to) return;
  event.preventDefault();
  to.focus();
  change({ query: Number(to.dataset.row) });
});

data.runs.forEach((run, side) => {
  const panel = document.querySelector(`[data-run="${side}"]`);
  panel.querySelector("input[type=range]").addEventListener("input", (event) => step(side, Number(event.target.value)));
  panel.querySelector(".zones").addEventListener("keydown", (event) => {
    const from = event.target.closest(".tile");
    if (!from) return;
    if (event.key === "Enter") {
      event.preventDefault();
      change({ query: Number(from.dataset.row) });
      tilesOf(side)[0]?.focus();
      return;
    }
    const to = MOVES.includes(event.key) ? next(tilesOf(side), from, event.key) : undefined;
    if (!to) return;
    event.preventDefault();
    const row = Number(to.dataset.row);
    change({ side, negative: row });
    tilesOf(side).find((element) => Number(element.dataset.row) === row)?.focus();
  });
});

const step = (side, to) => {
  const last = data.runs[side].checkpoints.length - 1;
  if (to >= 0 && to <= last) change({ steps: state.steps.map((old, each) => (each === side ? to : old)) });
};

document.querySelectorAll(".chip[data-flag]").forEach((chip) =>
  chip.addEventListener("click", () => {
    const filters = new Set(state.filters);
    if (!filters.delete(chip.dataset.flag)) filters.add(chip.dataset.flag);
    change({ filters });
  }),
);

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search]");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if ((event.key === "," || event.key === ".") && !typing) {
    data.runs.forEach((_, side) => step(side, state.steps[side] + (event.key === "." ? 1 : -1)));
  } else if (event.key === "Escape") {
    change({ negative: null });
    document.getElementById("name").focus();
  }
});

addEventListener("popstate", () => {
  readAddress();
  show();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
new ResizeObserver(() => data.runs.forEach((_, side) => {
  drawPlane(side);
  drawCurve(side, checkpointOf(side), entriesOf(checkpointOf(side), state.query).filter((one) => wanted(one, state.filters)));
})).observe(document.querySelector(".columns"));

readAddress();
if (!location.hash) state.query = byClass[0];
find();
show();
