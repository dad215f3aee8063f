// The rows on the page, as a CSV file.
const COLUMN_NAMES = ["run", "epoch", "query", "query_class", "negative", "negative_class", "zone", "rank", "percentile",
  "similarity", "lca_depth", "age", ...FLAGS];

const quoted = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const csvRows = () =>
  data.runs.flatMap((run, side) => {
    const checkpoint = checkpointOf(side);
    return entriesOf(checkpoint, state.query).filter((one) => wanted(one, state.filters)).map((one) => [
      run.name, checkpoint.epoch, images.index[state.query], className(state.query), images.index[one.row],
      className(one.row), one.zone, one.rank, one.percentile, one.similarity, one.depth, one.age,
      ...FLAGS.map((flag) => one.flags[flag]),
    ]);
  });

document.getElementById("save").addEventListener("click", () => {
  const text = [COLUMN_NAMES, ...csvRows()].map((row) => row.map(quoted).join(",")).join("\n");
  const link = make("a", {
    href: URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" })), download: `negatives-of-${images.index[state.query]}.csv`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
