// Making elements. Text goes in as text only: titles come from catalogs that nobody has checked.

export const byId = (id) => document.getElementById(id);

/**
 * An element. A property that is null is left out; a text child becomes a text node.
 * @param {string} name
 * @param {Record<string, string | null>} attributes
 * @param {...(Node | string)} children
 */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Text that only screen readers get. */
export const spoken = (text) => make("span", { class: "hidden" }, text);

/** A sign that screen readers leave out. */
export const sign = (name, text = "") => make("span", { class: name, "aria-hidden": "true" }, text);

const YEAR = /^(.*\S)\s*\((\d{4})\)\s*$/su;

/** A title in its own direction of writing, a year at its end set apart. */
export function titleOf(item) {
  const text = item.title.trim() || item.item_id;
  const found = YEAR.exec(text);
  const title = make("bdi", { class: "title" }, found ? found[1] : text);
  if (found) title.append(" ", make("bdi", { class: "year" }, `(${found[2]})`));
  return title;
}

/** The title as plain text. */
export const nameOf = (item) => item.title.trim() || item.item_id;

/**
 * Put new rows into a list. A button in it that had the focus hands it to the one that has taken
 * its place; false when there is none.
 */
export function refill(list, rows) {
  const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (focused < 0) return true;
  const next = rows[Math.min(focused, rows.length - 1)];
  next?.firstChild.focus({ preventScroll: true });
  return next !== undefined;
}
