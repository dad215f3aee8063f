// Similarity along difficulty: the query's whole ranking as a line, what is shown of it as points, edges, positives.
const HEIGHT = 210;
const MARGIN = { left: 42, right: 12, top: 26, bottom: 34 };
const TICKS = [99.9, 99, 95, 90, 75, 50, 25, 10, 5, 1, 0.1];

// Both ends are stretched, since that is where windows lie: x is the log of the odds.
const odds = (value) => Math.log(value / (100 - value));
const hardestOdds = odds(layout.percentile[0]);
const easiestOdds = odds(layout.percentile[layout.negatives - 1]);

const drawCurve = (side, checkpoint, found) => {
  const box = document.querySelector(`[data-run="${side}"] .curve`);
  const width = Math.max(260, box.clientWidth);
  const sampled = layout.curve.map((rank, at) => [
    layout.percentile[rank], checkpoint.curve[state.query * layout.curve.length + at],
  ]);
  const views = viewsOf(checkpoint);
  const values = [...sampled.map((point) => point[1]), ...found.map((one) => one.similarity), ...views.map((one) => one.similarity)];
  const [low, high] = [Math.min(-0.1, ...values), Math.max(0.1, ...values)];
  const right = width - MARGIN.right;
  const x = (value) => MARGIN.left + ((hardestOdds - odds(value)) / (hardestOdds - easiestOdds)) * (right - MARGIN.left);
  const y = (value) => MARGIN.top + ((high - value) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const parts = [
    ...ground(x, y, low, high, right),
    ...edgeLines(x),
    svg("polyline", { class: "line", points: sampled.map(([at, value]) => `${x(at)},${y(value)}`).join(" ") }),
    ...positives(views, y, right),
    ...found.map((one) => point(side, one, x(one.percentile), y(one.similarity))),
  ];
  const description = `Similarity of the ${thousands(layout.negatives)} negatives, from the hardest on the left to the easiest`;
  box.replaceChildren(svg("svg", { width, height: HEIGHT, role: "img", "aria-label": description }, ...parts));
};

const label = (text, attributes) => {
  const element = svg("text", attributes);
  element.textContent = text;
  return element;
};

const ground = (x, y, low, high, right) => {
  const step = high - low > 1 ? 0.5 : 0.25;
  const lines = [];
  lines.push(svg("rect", { class: "below", x: MARGIN.left, y: y(0), width: right - MARGIN.left, height: y(low) - y(0) }));
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    lines.push(svg("line", { class: value === 0 ? "zero" : "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }));
    lines.push(label(minus(value.toFixed(2)), { x: MARGIN.left - 7, y: y(value) + 4, "text-anchor": "end" }));
  }
  const room = y(low) - y(0) > 15;
  if (room) lines.push(label("anti-correlated", { class: "soft", x: MARGIN.left + 6, y: y(low) - 5 }));
  let last = -Infinity;
  for (const tick of TICKS.filter((value) => odds(value) <= hardestOdds && odds(value) >= easiestOdds)) {
    if (x(tick) - last < 34) continue;
    last = x(tick);
    lines.push(svg("line", { class: "tick", x1: last, x2: last, y1: y(low), y2: y(low) + 4 }));
    lines.push(label(String(tick), { x: last, y: y(low) + 17, "text-anchor": "middle" }));
  }
  lines.push(label("hardest", { class: "soft", x: MARGIN.left, y: HEIGHT - 3 }));
  lines.push(label("percentile of difficulty", { class: "soft", x: (MARGIN.left + right) / 2, y: HEIGHT - 3, "text-anchor": "middle" }));
  lines.push(label("easiest", { class: "soft", x: right, y: HEIGHT - 3, "text-anchor": "end" }));
  return lines;
};

const edgeLines = (x) => {
  const bottom = HEIGHT - MARGIN.bottom;
  const close = layout.edges.some((edge, at) => at && x(edge.percent) - x(layout.edges[at - 1].percent) < 26);
  const lines = layout.edges.flatMap((edge, at) => [
    svg("line", { class: "edge", x1: x(edge.percent), x2: x(edge.percent), y1: MARGIN.top - 8, y2: bottom }),
    label(`${edge.percent}`, {
      class: "edge", x: x(edge.percent), y: MARGIN.top - 12, "text-anchor": close ? (at ? "start" : "end") : "middle",
    }),
  ]);
  if (layout.edges.length !== 2) return lines;
  const [left, right] = layout.edges.map((edge) => x(edge.percent));
  return [svg("rect", { class: "window", x: left, y: MARGIN.top - 8, width: right - left, height: bottom - MARGIN.top + 8 }), ...lines];
};

const positives = (views, y, right) =>
  views.flatMap((view) => [
    svg("line", { class: "positive", x1: MARGIN.left, x2: right, y1: y(view.similarity), y2: y(view.similarity) }),
    label("positive", { class: "positive", x: right, y: y(view.similarity) - 4, "text-anchor": "end" }),
  ]).slice(0, views.length > 1 && Math.abs(y(views[0].similarity) - y(views[1].similarity)) < 14 ? 3 : undefined);

// A circle; of the query's class a diamond, a near-duplicate a square.
const point = (side, one, x, y) => {
  const chosen = one.row === state.negative;
  const [shape, r] = [one.flags.near_duplicate ? "square" : one.flags.same_class ? "diamond" : "circle", chosen ? 7 : 4.5];
  const paths = {
    circle: `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0Z`,
    diamond: `M${x},${y - r * 1.3}L${x + r * 1.3},${y}L${x},${y + r * 1.3}L${x - r * 1.3},${y}Z`,
    square: `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`,
  };
  const title = svg("title");
  title.textContent = `${className(one.row)}: ${similar(one.similarity)} at ${percent(one.percentile)}`;
  return svg(
    "path",
    { class: `point ${shape}${chosen ? " chosen" : ""}`, d: paths[shape], onclick: () => choose(side, one.row) },
    title,
  );
};
