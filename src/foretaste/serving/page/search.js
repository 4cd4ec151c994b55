// The search box: a combobox as the ARIA Authoring Practices describe it, with titles from the
// service while they are typed.

import { byId, make, nameOf, sign, spoken, titleOf } from "./elements.js";
import { isAborted } from "./api.js";
import { count } from "./words.js";

const PAUSE = 120; // milliseconds without a letter before the service is asked

export class Search {
  #input = byId("typed");
  #list = byId("found");
  #says = byId("search-says");
  #items = [];
  #active = -1;
  #asked = ""; // what #items answers
  #clock = 0;
  #stop = new AbortController();

  /**
   * @param {object} told
   * @param {(typed: string, signal: AbortSignal) => Promise<{items: object[]}>} told.find
   * @param {(item: object) => void} told.pick
   * @param {(itemId: string) => boolean} told.isLiked
   * @param {(text: string) => void} told.say
   * @param {(problem: Error) => void} told.lock called with a 401
   */
  constructor(told) {
    this.told = told;
    this.#input.addEventListener("input", () => this.#typed());
    this.#input.addEventListener("keydown", (event) => this.#pressed(event));
    this.#input.addEventListener("focus", () => this.#items.length && this.#open());
    this.#input.addEventListener("blur", () => this.#close());
    // The box keeps the focus while a title is clicked.
    this.#list.addEventListener("pointerdown", (event) => event.preventDefault());
    this.#list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#pick(this.#items[[...this.#list.children].indexOf(option)]);
    });
  }

  #typed() {
    clearTimeout(this.#clock);
    this.#stop.abort();
    if (this.#input.value.trim()) this.#clock = setTimeout(() => this.#find(), PAUSE);
    else this.#show("", []);
  }

  async #find() {
    clearTimeout(this.#clock);
    this.#stop.abort();
    this.#stop = new AbortController();
    const typed = this.#input.value.trim();
    try {
      const { items } = await this.told.find(typed, this.#stop.signal);
      this.#show(typed, items);
      return true;
    } catch (problem) {
      if (isAborted(problem)) return false;
      this.#show("", []);
      this.#remark(problem.message);
      if (problem.status === 401) this.told.lock(problem);
      return false;
    }
  }

  #show(typed, items) {
    this.#asked = typed;
    this.#items = items;
    this.#list.replaceChildren(...items.map((item, place) => this.#option(item, place)));
    this.#activate(-1);
    if (items.length && document.activeElement === this.#input) this.#open();
    else this.#close();
    this.#remark(typed && !items.length ? `No title is like “${typed}”.` : "");
    if (items.length) this.told.say(`${count(items.length, "title")} found.`);
  }

  #remark(text) {
    this.#says.hidden = !text;
    this.#says.textContent = text;
    if (text) this.told.say(text);
  }

  #option(item, place) {
    const liked = this.told.isLiked(item.item_id);
    const attributes = { role: "option", id: `found-${place}`, "aria-selected": "false" };
    const option = make("li", attributes, titleOf(item));
    if (liked) option.append(sign("tick", "✓"), spoken(", liked already"));
    return option;
  }

  #pressed(event) {
    if (event.isComposing) return;
    const { length } = this.#items;
    if (event.key === "Enter") {
      event.preventDefault();
      this.#enter();
    } else if (event.key === "Escape") {
      if (this.#list.hidden) this.#clear();
      else this.#close();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && length) {
      event.preventDefault();
      this.#open();
      const down = event.key === "ArrowDown";
      const next = this.#active < 0 && !down ? length - 1 : this.#active + (down ? 1 : -1);
      this.#activate((next + length) % length);
    }
  }

  /** The marked title, or the first one; whoever types fast need not wait for the list. */
  async #enter() {
    const typed = this.#input.value.trim();
    if (!typed) return;
    if (typed !== this.#asked && !(await this.#find())) return;
    if (this.#items.length) this.#pick(this.#items[Math.max(0, this.#active)]);
  }

  #pick(item) {
    if (this.told.isLiked(item.item_id)) {
      this.told.say(`${nameOf(item)} is liked already.`);
      return;
    }
    this.#clear();
    this.told.pick(item);
  }

  #activate(place) {
    this.#list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = place;
    const option = this.#list.children[place];
    if (!option) {
      this.#input.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    this.#input.setAttribute("aria-activedescendant", option.id);
  }

  #clear() {
    this.#input.value = "";
    this.#typed();
  }

  #open() {
    this.#list.hidden = false;
    this.#input.setAttribute("aria-expanded", "true");
  }

  #close() {
    this.#list.hidden = true;
    this.#input.setAttribute("aria-expanded", "false");
    this.#activate(-1);
  }
}
