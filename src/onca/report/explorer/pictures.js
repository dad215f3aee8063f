// Small helpers for elements, and the pictures that the sheets hold.
const COLUMNS = 20;

const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
};

const place = (element, sheets, letter, number) => {
  const each = COLUMNS * Math.max(...sheets.rows);
  const sheet = Math.floor(number / each);
  const [down, across] = [Math.floor((number % each) / COLUMNS), number % COLUMNS];
  const share = (at, of) => (of > 1 ? (100 * at) / (of - 1) : 0);
  element.classList.add(`${letter}${sheet}`);
  if (sheets.width < 48) element.classList.add("pixels");
  element.style.backgroundPosition = `${share(across, COLUMNS)}% ${share(down, sheets.rows[sheet])}%`;
  element.style.aspectRatio = `${sheets.width} / ${sheets.height}`;
  return element;
};

const picture = (row) => {
  const element = make("span", { class: "picture", "aria-hidden": "true" });
  if (data.thumbs) return place(element, data.thumbs, "t", row);
  element.classList.add("blank");
  element.textContent = images.index[row];
  return element;
};

const viewPicture = (row, view, views) =>
  place(make("span", { class: "picture", "aria-hidden": "true" }), data.viewThumbs, "v", row * views + view);

const svg = (name, attributes = {}, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};

const facts = (pairs) =>
  make("dl", { class: "facts" }, ...pairs.filter(Boolean).flatMap(([name, value]) => [
    make("dt", {}, name), make("dd", {}, value),
  ]));
