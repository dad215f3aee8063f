// What is looked at, kept in the address so that a link shows the same view.
const state = {
  query: 0,
  negative: null, // row of the chosen negative
  side: 0, // the run whose negatives the keyboard moves among
  steps: data.runs.map((run) => run.checkpoints.length - 1),
  filters: new Set(),
  group: -1, // the group that the map brings forward
};

const checkpointOf = (side) => data.runs[side].checkpoints[state.steps[side]];

const address = () => {
  const parts = new URLSearchParams({ image: images.index[state.query] });
  if (state.negative !== null) parts.set("negative", images.index[state.negative]);
  state.steps.forEach((step, side) => {
    if (step !== data.runs[side].checkpoints.length - 1) parts.set(`step${side}`, step);
  });
  if (state.filters.size) parts.set("only", [...state.filters].join("."));
  return `#${parts}`;
};

const readAddress = () => {
  const parts = new URLSearchParams(location.hash.slice(1));
  const row = (name) => (parts.has(name) ? rowOf.get(Number(parts.get(name))) : undefined);
  state.query = row("image") ?? 0;
  state.negative = row("negative") ?? null;
  state.steps = data.runs.map((run, side) => {
    const last = run.checkpoints.length - 1;
    const step = Number(parts.get(`step${side}`) ?? last);
    return Number.isInteger(step) && step >= 0 && step <= last ? step : last;
  });
  state.filters = new Set((parts.get("only") ?? "").split(".").filter((flag) => FLAGS.includes(flag)));
};

// Changes the state and shows it. Another query is a new entry of the browser's history, so that "back" leads to the last one.
const change = (changes) => {
  const moved = "query" in changes && changes.query !== state.query;
  if (moved && !("negative" in changes)) changes.negative = null;
  Object.assign(state, changes);
  if (moved) history.pushState(null, "", address());
  else history.replaceState(null, "", address());
  show();
};
