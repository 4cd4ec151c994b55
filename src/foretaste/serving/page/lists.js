// The lists, one card for each run.

import { make, sign, spoken, titleOf } from "./elements.js";
import { bytes, count, listed, made, milliseconds, weight } from "./words.js";

const SERIES = 8; // colours of the palette
const REASONS = 5; // titles told under "Why"
const MOVE = { duration: 260, easing: "cubic-bezier(0.2, 0, 0, 1)" };
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** A run with its newest list. */
export class Card {
  items = [];
  answer = null;
  #rows = new Map(); // row by item id

  /**
   * @param {object} run of /v1/runs
   * @param {number} place among the runs
   * @param {(item: object) => void} pick called when a title of the list is clicked
   */
  constructor(run, place, pick) {
    this.series = `s${place % SERIES}`;
    this.pick = pick;
    const id = `run-${place}`;
    this.root = make("article", { class: `card ${this.series}`, "aria-labelledby": id });
    this.name = make("h3", { id }, sign("swatch"), make("bdi", {}, run.name));
    this.about = make("p", { class: "soft" });
    this.know(run);
    this.tiles = make("dl", { class: "tiles" });
    this.says = make("p", { class: "soft says" });
    this.list = make("ol", { role: "list", "aria-labelledby": id });
    this.why = make("div", { class: "why" });
    const head = make("div", { class: "beside" }, this.name, this.about);
    this.root.append(head, this.tiles, this.says, this.list, this.why);
  }

  /** What /v1/runs tells of the run: anew when a newer one has taken its place. */
  know(run) {
    this.run = run;
    const model = run.model === run.name ? "" : `${run.model} · `;
    this.about.textContent = `${model}${count(run.items, "title")}`;
  }

  /** A question is on its way. */
  wait() {
    this.root.setAttribute("aria-busy", "true");
  }

  /** No answer came: the list is an old one. */
  fail(text) {
    this.root.removeAttribute("aria-busy");
    this.root.classList.add("old");
    this.says.textContent = this.items.length ? `${text} This is the list from before.` : text;
  }

  /**
   * Show an answer.
   * @param {object} answer of /v1/recommendations
   * @param {{user: boolean, titles: number}} asked who asked, and of how many titles
   */
  show(answer, asked) {
    this.root.removeAttribute("aria-busy");
    this.root.classList.remove("old");
    this.answer = answer;
    this.items = answer.items;
    this.tiles.replaceChildren(
      tile("Answered in", milliseconds(answer.ms)),
      keptTile(answer),
      tile("Source", answer.source),
    );
    this.says.textContent = made(answer, this.run, asked);
    if (answer.unknown.length && asked.titles > answer.unknown.length) {
      this.says.append(` ${count(answer.unknown.length, "title")} of yours it does not know.`);
    }
    this.#showRows();
  }

  /**
   * Say which titles the list leans on, and what is kept now that the list is out.
   * @param {object | null} answer with `because`; null when nobody has liked anything
   */
  explain(answer) {
    this.why.replaceChildren();
    if (!answer) return;
    const { because } = answer;
    this.answer.state_bytes = answer.state_bytes;
    this.tiles.children[1].replaceWith(keptTile(answer));
    if (!because.length || !this.items.length) return;
    this.why.append(make("h4", {}, "Why"));
    if (because[0].fall === null) {
      this.#say("With one title there is nothing to compare. Like a second one.");
      return;
    }
    const most = Math.max(...because.map((reason) => Math.abs(reason.fall)));
    const size = Math.max(...this.items.map((item) => Math.abs(item.score)), 0);
    if (most <= size * 1e-6) {
      this.#say("None of your titles moves these scores: everybody gets the same list.");
      return;
    }
    this.#say("How far the scores fall when a title is left out.");
    const heaviest = [...because].sort((one, other) => Math.abs(other.fall) - Math.abs(one.fall));
    const told = because.filter((reason) => heaviest.indexOf(reason) < REASONS);
    this.why.append(make("ul", { role: "list" }, ...told.map((reason) => bar(reason, most))));
    const rest = because.length - told.length;
    if (rest > 0) this.#say(`${count(rest, "more title")}, less than these.`);
  }

  /** Mark the titles that other lists hold as well. */
  mark(others) {
    for (const [itemId, row] of this.#rows) {
      const also = others.filter((card) => card.items.some((item) => item.item_id === itemId));
      row.marks.replaceChildren(...also.map((card) => sign(`swatch ${card.series}`)));
      row.marks.title = also.length ? `also in ${listed(also.map((card) => card.run.name))}` : "";
      row.also.textContent = also.length ? `, ${row.marks.title}` : "";
    }
  }

  #say(text) {
    this.why.append(make("p", { class: "soft" }, text));
  }

  #showRows() {
    const focus = document.activeElement;
    const focused = [...this.list.children].findIndex((row) => row.contains(focus));
    const before = new Map(
      [...this.#rows].map(([itemId, row]) => [itemId, row.root.getBoundingClientRect().top]),
    );
    const rows = new Map();
    this.items.forEach((item, place) => {
      const row = this.#rows.get(item.item_id) ?? this.#row(item);
      row.rank.textContent = String(place + 1);
      rows.set(item.item_id, row);
    });
    this.#rows = rows;
    const roots = [...rows.values()].map((row) => row.root);
    this.list.replaceChildren(...roots);
    if (focused >= 0) {
      // Whoever liked a title goes on with the one that took its place.
      const next = focus.isConnected ? focus : roots[Math.min(focused, roots.length - 1)]?.firstChild;
      next?.focus({ preventScroll: true });
    }
    if (before.size) move(rows, before);
  }

  #row(item) {
    const rank = sign("rank");
    const marks = make("span", { class: "marks" });
    const also = spoken("");
    const label = spoken(" – I liked this too");
    const button = make("button", { type: "button", class: "row" });
    button.append(rank, titleOf(item), label, also, marks, sign("plus", "+"));
    button.addEventListener("click", () => this.pick(item));
    return { root: make("li", {}, button), rank, marks, also };
  }
}

/** Rows go from where they were to where they are; new ones fade in. */
function move(rows, before) {
  if (calm.matches) return;
  for (const [itemId, row] of rows) {
    const top = before.get(itemId);
    const by = top === undefined ? 0 : top - row.root.getBoundingClientRect().top;
    if (top === undefined) row.root.animate({ opacity: [0, 1] }, MOVE);
    else if (by) row.root.animate({ transform: [`translateY(${by}px)`, "none"] }, MOVE);
  }
}

const keptTile = (answer) => tile("Kept of you", bytes(answer.state_bytes));

function tile(term, text) {
  return make("div", {}, make("dt", {}, term), make("dd", {}, text));
}

function bar(reason, most) {
  const share = reason.fall / most;
  const fill = sign(share < 0 ? "fill against" : "fill");
  fill.style.width = `${Math.max(2, Math.abs(share) * 100)}%`;
  const track = sign("track");
  track.append(fill);
  return make("li", {}, titleOf(reason), track, make("span", { class: "weight" }, weight(share)));
}
