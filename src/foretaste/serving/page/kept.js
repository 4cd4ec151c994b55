// What is kept of whoever asks: the panel, and the words under the switch.

import { byId, make } from "./elements.js";
import { bytes, count, listed } from "./words.js";

/** Words under the switch. */
export function showMode(person) {
  byId("mode-says").textContent =
    person.kind === "user"
      ? "Each click is written to the service's log, until you have it forget you."
      : "Your titles travel with each question. Nothing is kept.";
}

/**
 * The panel.
 * @param {object} person a `Trying` or a `User`
 * @param {import("./lists.js").Card[]} cards
 * @param {boolean} remembered whether this browser can keep an id
 */
export function showKept(person, cards, remembered) {
  const user = person.kind === "user";
  const facts = user ? factsOf(person, cards, remembered) : [];
  byId("kept-facts").replaceChildren(
    ...facts.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text))),
  );
  byId("kept-says").textContent = user ? "" : "The service forgets a question with its answer.";
  byId("kept-says").hidden = user;
  byId("forget").hidden = !user;
  const events = user ? person.titles.filter((title) => title.sent).length : 0;
  const total = user ? totalOf(cards) : 0;
  const sum = total ? `${count(events, "event")} and ${bytes(total)}` : count(events, "event");
  byId("kept-sum").textContent = events ? sum : user ? "Nothing yet" : "Nothing";
}

const totalOf = (cards) => cards.reduce((sum, card) => sum + (card.answer?.state_bytes ?? 0), 0);

function factsOf(person, cards, remembered) {
  const keeping = cards.filter((card) => card.run.incremental);
  const without = cards.filter((card) => !card.run.incremental).map((card) => card.run.name);
  const facts = [["In the log", "the title and time of each click"]];
  for (const { run } of keeping) {
    const last = `of the last ${count(run.window, "title")}, at most twice as many`;
    facts.push([`In the state of ${run.name}`, `${count(run.record_bytes, "byte")} for each ${last}`]);
  }
  if (without.length) facts.push([`For ${listed(without)}`, "nothing besides the log"]);
  const here = remembered
    ? `your id ${person.id.slice(0, 13)}… and your titles`
    : "nothing: it does not let the page, so your id is gone when you leave";
  facts.push(["In this browser", here]);
  return facts;
}
