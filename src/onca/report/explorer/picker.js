// The grid of images one picks from, and the search above it.
const FIRST = 120; // pictures shown at once; "Show more" adds as many
const search = document.getElementById("search");
const picker = document.getElementById("picker");
const more = document.getElementById("more");
const byClass = Array.from({ length: count }, (_, row) => row).sort(
  (a, b) => images.label[a] - images.label[b] || images.index[a] - images.index[b],
);
const order = document.getElementById("order");
let listed = byClass;
let limit = FIRST;

// Every word must be in the class name; a number is an index.
const matches = (text) => {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 1 && /^\d+$/.test(words[0])) {
    const row = rowOf.get(Number(words[0]));
    if (row !== undefined) return [row];
  }
  return inOrder().filter((row) => words.every((word) => className(row).toLowerCase().includes(word)));
};

// How often an image is hard is that of the first run, at its checkpoint.
const inOrder = () => {
  if (order.value === "class") return byClass;
  const { hits, ages, width } = checkpointOf(0);
  const known = (row) => ages.pair.subarray(row * width, (row + 1) * width).filter((age) => age >= 0).length;
  const first = { hard: (row) => hits[row], easy: (row) => -hits[row], ledger: known }[order.value];
  const value = new Map(byClass.map((row) => [row, first(row)]));
  return [...byClass].sort((a, b) => value.get(b) - value.get(a));
};

const option = (row) =>
  make(
    "button",
    {
      type: "button", role: "option", tabindex: "-1", "data-row": row, title: `${className(row)}, image ${images.index[row]}`,
      "aria-label": `${className(row)}, image ${images.index[row]}`, onclick: () => change({ query: row }),
    },
    picture(row),
  );

const list = () => {
  picker.replaceChildren(...listed.slice(0, limit).map(option));
  if (!listed.length) picker.append(make("p", { class: "note" }, "No class and no index like this."));
  document.getElementById("found").textContent = `${thousands(listed.length)} of ${thousands(count)}`;
  more.hidden = listed.length <= limit;
  markPicked();
};

const markPicked = () => {
  for (const button of picker.querySelectorAll("button")) {
    const picked = Number(button.dataset.row) === state.query;
    button.setAttribute("aria-selected", picked);
    button.tabIndex = picked ? 0 : -1;
  }
  if (!picker.querySelector('[tabindex="0"]') && picker.querySelector("button")) picker.querySelector("button").tabIndex = 0;
};

const find = () => {
  listed = matches(search.value);
  limit = FIRST;
  list();
};
search.addEventListener("input", find);
order.addEventListener("change", find);
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && listed.length) change({ query: listed[0] });
  if (event.key === "ArrowDown" && listed.length) {
    event.preventDefault();
    picker.querySelector("button").focus();
  }
});
more.addEventListener("click", () => {
  limit += FIRST;
  list();
});
