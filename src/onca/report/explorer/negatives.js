// The query, and along difficulty the negatives that are shown of it.
const viewsOf = (checkpoint) => {
  const views = checkpoint.views.length / count;
  return Array.from({ length: views }, (_, view) => ({
    view, views, similarity: checkpoint.views[state.query * views + view], above: checkpoint.above[state.query * views + view],
  }));
};

const times = (hits) => `${(hits / layout.hard).toFixed(1)} × chance`;
const hardFor = (checkpoint, row) =>
  `for ${thousands(checkpoint.hits[row])} of ${thousands(layout.negatives)} images, ${times(checkpoint.hits[row])}`;

const showQuery = () => {
  const card = make("div", { class: "card query" },
    picture(state.query),
    make("div", { class: "about" },
      make("h2", { tabindex: "-1", id: "name" }, breakable(className(state.query))),
      make("p", { class: "soft" }, `image ${images.index[state.query]}`),
      data.runs.length > 1 ? make("p", { class: "soft" }, agreement()) : null,
    ),
  );
  document.getElementById("query").replaceChildren(card, ...positiveCards());
};

// How many of the hardest negatives two runs have in common.
const agreement = () => {
  const hardest = data.runs.map((_, side) => entriesOf(checkpointOf(side), state.query).filter((one) => one.zone === "hardest"));
  const other = new Set(hardest[1].map((one) => one.row));
  const same = hardest[0].filter((one) => other.has(one.row)).length;
  return `${same} of its ${hardest[0].length} hardest negatives are the same in both runs.`;
};

const positiveCards = () => {
  const sides = data.runs.map((run, side) => [run, viewsOf(checkpointOf(side))]).filter(([, views]) => views.length);
  if (!sides.length) return [];
  const views = sides[0][1].map(({ view, views }) =>
    make("li", {}, viewPicture(state.query, view, views), ...sides.map(([run, found]) =>
      make("p", { title: run.name },
        make("strong", {}, similar(found[view].similarity)),
        make("span", { class: "soft" }, beyond(found[view].above)),
      )),
    ));
  return [make("div", { class: "card positives" }, make("h3", {}, "Positives: views of it"), make("ul", {}, ...views))];
};

const beyond = (above) =>
  above === 0 ? " above all negatives" : ` below ${counted(above, "negative")}`;

const showSide = (side) => {
  const checkpoint = checkpointOf(side);
  const panel = document.querySelector(`[data-run="${side}"]`);
  const output = panel.querySelector("output");
  output.textContent = checkpoint.epoch === null ? checkpoint.source : `epoch ${checkpoint.epoch}`;
  output.title = checkpoint.source;
  panel.querySelector("input[type=range]").value = state.steps[side];
  panel.querySelector(".hits").textContent = `As a negative it is in the hardest 5 % ${hardFor(checkpoint, state.query)}.`;
  const found = entriesOf(checkpoint, state.query);
  const kept = found.filter((one) => wanted(one, state.filters));
  drawCurve(side, checkpoint, kept);
  const zones = [...layout.zones, { key: "elsewhere", title: elsewhere }]
    .map((zone) => showZone(side, zone, kept.filter((one) => one.zone === zone.key)))
    .filter(Boolean);
  const none = `None of the ${found.length} negatives shown here is ${[...state.filters].map((flag) => WORDS[flag]).join(" and ")}.`;
  panel.querySelector(".zones").replaceChildren(...(zones.length ? zones : [make("p", { class: "note" }, none)]));
};

const elsewhere = `Elsewhere: of its class, near-duplicates${data.runs[0].checkpoints[0].ages ? ", in the ledger" : ""}`;

const showZone = (side, zone, kept) => {
  if (!kept.length) return null;
  const chosen = kept.find((one) => one.row === state.negative);
  return make("section", { class: "zone", "data-zone": zone.key },
    make("h3", {}, zone.title),
    make("div", { class: "tiles" }, ...withEdges(zone, kept.map((one) => [one, tile(side, one)]))),
    chosen ? pair(side, chosen) : null,
  );
};

// Tiles with a line where an edge lies between two of them; at an edge's own zone it is there whatever is filtered.
const withEdges = (zone, tiles) => {
  const out = [];
  let left = layout.edges.filter((edge) => zone.ranks?.includes(edge.rank) && (zone.key === `edge ${edge.percent}` || zone.ranks.includes(edge.rank - 1)));
  for (const [one, element] of tiles) {
    for (const edge of left.filter((each) => each.rank <= one.rank)) out.push(edgeMark(edge));
    left = left.filter((each) => each.rank > one.rank);
    out.push(element);
  }
  return [...out, ...left.map(edgeMark)];
};

const edgeMark = (edge) =>
  make("span", { class: "edge", role: "separator", "aria-label": `edge at ${edge.percent} %` }, make("span", {}, `${edge.percent} %`));

const signsOf = (one) => FLAGS.filter((flag) => one.flags[flag]);

const tile = (side, one) => {
  const flags = signsOf(one);
  const said = [className(one.row), `image ${images.index[one.row]}`, `similarity ${similar(one.similarity)}`,
    `percentile ${percent(one.percentile)}`, ...flags.map((flag) => WORDS[flag])].join(", ");
  const more = [one.depth === null ? null : `depth ${one.depth}`, one.age === null ? null : `age ${one.age}`].filter(Boolean);
  return make(
    "button",
    {
      type: "button", class: "tile", tabindex: "-1", "data-row": one.row, "aria-label": said, title: said,
      "aria-pressed": one.row === state.negative, onclick: () => choose(side, one.row),
      ondblclick: () => change({ query: one.row }),
    },
    make("span", { class: "shown" }, picture(one.row),
      flags.length ? make("span", { class: "signs", "aria-hidden": "true" }, ...flags.map((flag) =>
        make("span", { class: flag, title: WORDS[flag] }, SIGNS[flag]))) : null),
    make("span", { class: "similarity" }, similar(one.similarity)),
    make("span", { class: "percentile" }, percent(one.percentile)),
    make("span", { class: "kind" }, lastParts(className(one.row))),
    more.length ? make("span", { class: "kind" }, more.join(", ")) : null,
  );
};

// Query and chosen negative next to each other, with all that is known of the pair.
const pair = (side, one) => {
  const elsewhere = data.runs.map((run, other) => [run, other]).filter(([, other]) => other !== side).map(([run, other]) => {
    const there = entriesOf(checkpointOf(other), state.query).find((each) => each.row === one.row);
    return [`In ${run.name}`, there ? `${similar(there.similarity)}, ${percent(there.percentile)}` : "not among those shown"];
  });
  return make("div", { class: "pair", role: "region", "aria-label": "The chosen negative" },
    make("div", { class: "two" }, picture(state.query), picture(one.row)),
    make("div", { class: "about" },
      make("h4", {}, breakable(className(one.row))),
      facts([
        ["Image", String(images.index[one.row])],
        ["Similarity", similar(one.similarity)],
        ["Percentile", `${percent(one.percentile)}, rank ${thousands(one.rank + 1)} of ${thousands(layout.negatives)}`],
        images.depth ? ["Common ancestor", one.depth === null ? "unknown" : `depth ${one.depth}`] : null,
        ...trained(checkpointOf(side), one),
        ["In the hardest 5 %", hardFor(checkpointOf(side), one.row)],
        ["Flags", signsOf(one).map((flag) => `${SIGNS[flag]} ${WORDS[flag]}`).join(", ") || "none"],
        ...elsewhere,
      ]),
      make("button", { type: "button", class: "plain", onclick: () => change({ query: one.row }) }, "Make it the query"),
    ),
  );
};

// What the ledger recorded: this pair, and the image as anyone's negative.
const trained = ({ ages }, one) => {
  if (!ages) return [];
  const records = ages.records[one.row];
  const mean = records ? `${counted(records, "time")}, ${counted(Math.round(ages.image[one.row]), "step")} old on average` : "never";
  return [
    ["Age for the query", one.age === null ? "not recorded" : counted(one.age, "step")],
    ["Recorded as a negative", mean],
  ];
};

const choose = (side, row) => {
  change({ side, negative: state.negative === row && state.side === side ? null : row });
  tilesOf(side).find((element) => Number(element.dataset.row) === row)?.focus({ preventScroll: true });
};

const tilesOf = (side) => [...document.querySelectorAll(`[data-run="${side}"] .tile`)];
