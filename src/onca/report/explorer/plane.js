// The flat map: a point for each image, its group by colour and shape, the query and its hardest negatives brought out.
const COLOURS = ["--blue", "--orange", "--green", "--vermillion", "--purple", "--sky"];
const SHAPES = {
  circle: (pen, x, y, r) => pen.arc(x, y, r, 0, 2 * Math.PI),
  square: (pen, x, y, r) => pen.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8),
  triangle: (pen, x, y, r) => corners(pen, [[x, y - r * 1.2], [x + r * 1.1, y + r * 0.8], [x - r * 1.1, y + r * 0.8]]),
  diamond: (pen, x, y, r) => corners(pen, [[x, y - r * 1.3], [x + r * 1.1, y], [x, y + r * 1.3], [x - r * 1.1, y]]),
  plus: (pen, x, y, r) => { pen.rect(x - r * 1.2, y - r * 0.4, r * 2.4, r * 0.8); pen.rect(x - r * 0.4, y - r * 1.2, r * 0.8, r * 2.4); },
  bar: (pen, x, y, r) => pen.rect(x - r * 1.3, y - r * 0.5, r * 2.6, r),
  down: (pen, x, y, r) => corners(pen, [[x, y + r * 1.2], [x + r * 1.1, y - r * 0.8], [x - r * 1.1, y - r * 0.8]]),
};
const corners = (pen, points) => {
  points.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
};
const shapeOf = (group) => Object.values(SHAPES)[Math.max(group, 0) % Object.keys(SHAPES).length];
const colourOf = (style, group) => style.getPropertyValue(group < 0 ? "--soft" : COLOURS[group % COLOURS.length]);

// What colours mean: the groups of the page. Where there are too many to tell apart, the query's class, then that of the
// chosen negative, and all others are plain.
const grouping = () => {
  if (images.group.names.length) return { names: images.group.names, of: (row) => images.group.of[row] };
  const chosen = [state.query, state.negative].filter((row) => row !== null).map((row) => images.label[row]);
  const classes = images.names.length > 1 ? [...new Set(chosen)].filter((label) => label >= 0) : [];
  return { names: classes.map((label) => images.names[label]), of: (row) => classes.indexOf(images.label[row]) };
};
// Whether a row is of the group that is brought forward, if any is: the class of a negative that is chosen no more is none.
const inFront = (groups) => (row) => !(state.group in groups.names) || groups.of(row) === state.group;

const drawn = data.runs.map(() => null); // where the points lie on each canvas, for clicks

const drawPlane = (side) => {
  const canvas = document.getElementById(`plane${side}`);
  const [width, height, density] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
  canvas.width = width * density;
  canvas.height = height * density;
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  const checkpoint = checkpointOf(side);
  canvas.parentElement.querySelector(".axes").textContent = checkpoint.axes;
  const at = fit(checkpoint.points, width, height);
  drawn[side] = at;
  const style = getComputedStyle(document.documentElement);
  const groups = grouping();
  const front = inFront(groups);
  const dot = (row, r, alpha) => {
    const group = groups.of(row);
    pen.globalAlpha = alpha;
    pen.fillStyle = colourOf(style, group);
    pen.beginPath();
    shapeOf(group)(pen, at[2 * row], at[2 * row + 1], r);
    pen.fill();
  };
  const size = count > 800 ? 2.2 : 3;
  for (const plain of [true, false]) { // groups above what is in none
    for (let row = 0; row < count; row++) {
      if (groups.of(row) < 0 !== plain) continue;
      dot(row, size, front(row) ? 0.55 : 0.08);
    }
  }
  bringOut(pen, at, style, checkpoint, dot);
};

// The query is ringed; lines lead to its hardest negatives, dashed ones to the easiest.
const bringOut = (pen, at, style, checkpoint, dot) => {
  const ink = style.getPropertyValue("--ink");
  pen.strokeStyle = ink;
  for (const one of entriesOf(checkpoint, state.query).filter((each) => each.zone === "hardest" || each.zone === "easiest")) {
    pen.globalAlpha = 0.5;
    pen.lineWidth = 1;
    pen.setLineDash(one.zone === "easiest" ? [2, 4] : []);
    pen.beginPath();
    pen.moveTo(at[2 * state.query], at[2 * state.query + 1]);
    pen.lineTo(at[2 * one.row], at[2 * one.row + 1]);
    pen.stroke();
    dot(one.row, 4, 1);
  }
  pen.setLineDash([]);
  for (const [row, r] of [[state.negative, 7], [state.query, 9]]) {
    if (row === null) continue;
    dot(row, 5, 1);
    pen.globalAlpha = 1;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(at[2 * row], at[2 * row + 1], r, 0, 2 * Math.PI);
    pen.stroke();
  }
};

// Points of the map on a canvas of this size, one scale for both axes.
const fit = (points, width, height) => {
  const range = [0, 1].map((axis) => {
    let [low, high] = [Infinity, -Infinity];
    for (let at = axis; at < points.length; at += 2) [low, high] = [Math.min(low, points[at]), Math.max(high, points[at])];
    return [low, high];
  });
  const scale = Math.min((width - 28) / (range[0][1] - range[0][0] || 1), (height - 28) / (range[1][1] - range[1][0] || 1));
  const middle = range.map(([low, high]) => (low + high) / 2);
  return points.map((value, at) => (at % 2 ? height / 2 - (value - middle[1]) * scale : width / 2 + (value - middle[0]) * scale));
};

const nearestPoint = (at, x, y, allowed) => {
  let [best, least] = [null, Infinity];
  for (let row = 0; row < count; row++) {
    const [dx, dy] = [at[2 * row] - x, at[2 * row + 1] - y];
    const distance = dx * dx + dy * dy;
    if (distance < least && allowed(row, dx, dy)) [best, least] = [row, distance];
  }
  return best;
};

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

data.runs.forEach((_, side) => {
  const canvas = document.getElementById(`plane${side}`);
  canvas.addEventListener("click", (event) => {
    const row = nearestPoint(drawn[side], event.offsetX, event.offsetY, inFront(grouping()));
    if (row !== null) change({ query: row });
  });
  canvas.addEventListener("keydown", (event) => {
    const direction = DIRECTIONS[event.key];
    if (!direction) return;
    event.preventDefault();
    const [x, y] = [drawn[side][2 * state.query], drawn[side][2 * state.query + 1]];
    const front = inFront(grouping());
    const ahead = (row, dx, dy) => {
      const along = dx * direction[0] + dy * direction[1];
      return along > 0.5 && along >= Math.abs(dx * direction[1] - dy * direction[0]) && front(row);
    };
    const row = nearestPoint(drawn[side], x, y, ahead);
    if (row !== null) change({ query: row });
  });
});

const showLegend = () => {
  const style = getComputedStyle(document.documentElement);
  document.getElementById("legend").replaceChildren(...grouping().names.map((name, group) => {
    const mark = make("canvas", { width: 32, height: 32, "aria-hidden": "true" });
    const pen = mark.getContext("2d");
    pen.fillStyle = colourOf(style, group);
    pen.beginPath();
    shapeOf(group)(pen, 16, 16, 9);
    pen.fill();
    const pressed = state.group === group;
    return make("button", {
      type: "button", class: "chip", "aria-pressed": pressed, onclick: () => change({ group: pressed ? -1 : group }),
    }, mark, name);
  }));
};
