// The page's data: what Python wrote, with its arrays decoded.
const KINDS = {
  u8: Uint8Array, i8: Int8Array, u16: Uint16Array, i32: Int32Array, f32: Float32Array, f64: Float64Array,
};
const NONE = 65535; // no negative here
const FLAGS = ["same_class", "near_duplicate", "anti_correlated", "consistently_hard"];
const SIGNS = { same_class: "=", near_duplicate: "≈", anti_correlated: "−", consistently_hard: "▲" };
const WORDS = {
  same_class: "same class", near_duplicate: "near-duplicate",
  anti_correlated: "anti-correlated", consistently_hard: "consistently hard",
};

const decode = (value) => {
  if (Array.isArray(value)) return value.map(decode);
  if (value === null || typeof value !== "object") return value;
  const [kind] = Object.keys(value);
  if (Object.keys(value).length === 1 && kind in KINDS) {
    const bytes = Uint8Array.from(atob(value[kind]), (character) => character.charCodeAt(0));
    return new KINDS[kind](bytes.buffer);
  }
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, decode(inner)]));
};

const data = decode(JSON.parse(document.getElementById("data").textContent));
const { images, layout } = data;
const count = images.index.length;
const rowOf = new Map(Array.from(images.index, (index, row) => [index, row]));
const zoneOf = new Map(layout.zones.flatMap((zone) => zone.ranks.map((rank) => [rank, zone.key])));

const className = (row) => (images.label[row] < 0 ? "no label" : images.names[images.label[row]]);
const breakable = (name) => name.replaceAll("/", "/\u200b"); // may break behind a slash
const lastParts = (name) => breakable(name.split("/").slice(-2).join("/"));

const depthOf = (row, other) => {
  const [own, its] = [images.label[row], images.label[other]];
  if (!images.depth || own < 0 || its < 0) return null;
  const depth = images.depth.table[own * images.depth.classes + its];
  return depth < 0 ? null : depth;
};

// One negative of a query at a checkpoint, with everything that is said of it.
const entry = (checkpoint, query, place) => {
  const at = query * checkpoint.width + place;
  const row = checkpoint.row[at];
  if (row === NONE) return null;
  const [rank, similarity] = [checkpoint.rank[at], checkpoint.similarity[at]];
  const flags = {
    same_class: images.label[row] >= 0 && images.label[row] === images.label[query],
    near_duplicate: images.duplicates !== null && images.duplicates[row] === images.duplicates[query],
    anti_correlated: similarity < 0,
    consistently_hard: checkpoint.often[row] === 1,
  };
  const age = checkpoint.ages && checkpoint.ages.pair[at] >= 0 ? checkpoint.ages.pair[at] : null;
  return {
    row, rank, similarity, flags, age, percentile: layout.percentile[rank],
    depth: depthOf(query, row), zone: zoneOf.get(rank) ?? "elsewhere",
  };
};

const entriesOf = (checkpoint, query) =>
  Array.from({ length: checkpoint.width }, (_, place) => entry(checkpoint, query, place)).filter(Boolean);

const wanted = (found, filters) => FLAGS.every((flag) => !filters.has(flag) || found.flags[flag]);

// Numbers as text. A percentile keeps the digits that tell two neighbouring ranks apart.
const digits = Math.max(1, Math.ceil(Math.log10(layout.negatives)) - 2);
const percent = (value) => `${value.toFixed(digits)} %`;
const minus = (text) => text.replace("-", "−");
const similar = (value) => minus(value.toFixed(3));
const counted = (number, word) => `${thousands(number)} ${word}${number === 1 ? "" : "s"}`;
const thousands = (value) => value.toLocaleString("en");
