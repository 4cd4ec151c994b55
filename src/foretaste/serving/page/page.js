// The page: who asks, what is liked, and what every run answers.

import { Api, Problem, isAborted } from "./api.js";
import { byId, make, nameOf, refill, sign, spoken, titleOf } from "./elements.js";
import { showKept, showMode } from "./kept.js";
import { Card } from "./lists.js";
import { KEY, Trying, User } from "./person.js";
import { Search } from "./search.js";
import { count, listed } from "./words.js";

const LENGTH = 10; // of a list
const POPULAR = 64; // titles to start from are drawn from so many
const OFFERED = 6; // titles to start from, at once
const BEGUN = 3; // liked titles that are start enough
const PATIENCE = 5_000; // milliseconds until what failed is tried again

const trying = new Trying();
const api = new Api((problem) => {
  if (byId("notice").hidden) tell(`${problem.message} Asking again.`, null);
});
new Search({
  find: (typed, signal) => api.find(typed, signal),
  pick: (item) => like(item),
  isLiked: (itemId) => person.has(itemId),
  say,
  lock: report,
});

let person = User.stored();
let remembered = true;
let cards = [];
let popular = [];
let offered = 0; // the first title of `popular` on show
let turn = 0;
let stop = new AbortController();
let retry = 0;
let mend = again; // what the button of the notice does

if (!person?.active) person = trying;

/** Load the runs, and show what they answer. */
async function start() {
  try {
    const { runs } = await api.runs();
    const first = await api.recommend({ k: POPULAR, run: runs[0].name });
    // The most popular titles stand in the lists already.
    const enough = first.items.length >= LENGTH + OFFERED;
    popular = enough ? first.items.slice(LENGTH) : first.items;
    cards = runs.map((run, place) => new Card(run, place, like));
  } catch (problem) {
    report(problem);
    if (problem.isPassing) retry = setTimeout(again, PATIENCE);
    return;
  }
  hideNotices();
  const names = cards.map((card) => card.run.name);
  byId("loaded").textContent =
    names.length <= 3 ? `Loaded: ${listed(names)}` : `${names.length} runs are loaded`;
  byId("cards").replaceChildren(...cards.map((card) => card.root));
  await update();
}

/**
 * Ask every run anew. A question that is overtaken by the next one is dropped.
 * @param {string | null} said for screen readers; null when nobody did anything
 * @param {boolean} write whether the service's log is brought up to date first
 */
async function update(said = "", write = true) {
  turn += 1;
  stop.abort();
  clearTimeout(retry);
  stop = new AbortController();
  const { signal } = stop;
  const mine = turn;
  showPerson();
  for (const card of cards) card.wait();
  byId("next").setAttribute("aria-busy", "true");
  const problems = [];
  try {
    if (write) await person.write(api);
  } catch (problem) {
    problems.push(problem, new Error("Your last change is not in the log yet."));
  }
  if (mine !== turn) return;
  const asked = { user: person.kind === "user", titles: person.titles.length };
  const question = person.question();
  showRequest(question);
  const filled = await Promise.all(cards.map((card) => fill(card, question, asked, signal)));
  if (mine !== turn) return;
  problems.push(...filled.filter(Boolean));
  if (mine === turn) conclude(problems, asked, said);
}

/** After a failure: the same once more. */
function again() {
  clearTimeout(retry);
  if (cards.length) update(null);
  else start();
}

/** A run's answer, and what is told of the run when a newer one has taken its place. */
async function ask(card, question, signal) {
  const answer = await api.recommend({ ...question, run: card.run.name, k: LENGTH }, signal);
  if (answer.fingerprint !== card.run.fingerprint) {
    const { runs } = await api.runs(signal);
    card.know(runs.find((run) => run.name === card.run.name) ?? card.run);
  }
  return answer;
}

/** One run's list, and then why: the milliseconds are those of the list alone. */
async function fill(card, question, asked, signal) {
  try {
    card.show(await ask(card, question, signal), asked);
    // Without anything liked all lists are the popular titles, and marks would say nothing.
    for (const one of cards) one.mark(cards.filter((other) => asked.titles && other !== one));
    if (!asked.titles) {
      card.explain(null);
      return null;
    }
    card.explain(await ask(card, { ...question, explain: true }, signal));
    return null;
  } catch (problem) {
    if (isAborted(problem)) return null;
    if (!(problem instanceof Problem)) throw problem;
    card.fail(problem.message);
    return problem;
  }
}

/** Whether the service's log holds other titles than this page: emptied, or changed elsewhere. */
function isLost({ answer }, asked) {
  return asked.user && answer && !answer.degraded && answer.logged !== asked.titles;
}

function conclude(problems, asked, said) {
  const degraded = cards.some((card) => card.answer?.degraded);
  const shared = sharedBy(cards);
  byId("next").removeAttribute("aria-busy");
  byId("summary").textContent = shared;
  showKept(person, cards, remembered);
  if (degraded || problems.some((problem) => problem.isPassing)) {
    retry = setTimeout(again, PATIENCE);
  }
  if (problems.length) {
    report(...problems);
  } else if (degraded) {
    tell("The store of users does not answer. What you click now is written when it is back.");
  } else if (cards.some((card) => isLost(card, asked))) {
    tell("The service's log does not hold these titles, or not all of them.", {
      label: "Write them again",
      act() {
        person.stale = true;
        update("Written again.");
      },
    });
  } else {
    hideNotices();
  }
  if (said !== null) say([said, "Lists updated.", shared].filter(Boolean).join(" "));
}

/** How far the lists agree. */
function sharedBy(all) {
  const answered = all.filter((card) => card.answer);
  if (answered.length < 2) return "";
  const [first, ...others] = answered.map(
    (card) => new Set(card.items.map((item) => item.item_id)),
  );
  const shared = [...first].filter((itemId) => others.every((ids) => ids.has(itemId)));
  const where = answered.length === 2 ? "in both lists" : "in every list";
  return `${shared.length ? count(shared.length, "title") : "No title"} ${where}`;
}

function like(item) {
  if (person.has(item.item_id)) return;
  person.add(item);
  update(`${nameOf(item)} added to what you liked.`);
}

function unlike(item) {
  person.remove(item.item_id);
  update(`${nameOf(item)} removed.`);
}

/** Everything that depends on who asks and on what is liked. */
function showPerson() {
  for (const radio of document.getElementsByName("mode")) {
    radio.checked = radio.value === person.kind;
  }
  showMode(person);
  showKept(person, cards, remembered);
  const chips = person.titles.map((title) => chip(title, "×", " – remove", () => unlike(title)));
  if (!refill(byId("liked"), chips)) byId("liked-title").focus();
  byId("liked-none").hidden = person.titles.length > 0;
  const brought = person.kind === "user" ? trying.titles : [];
  byId("bring").hidden = person.titles.length > 0 || !brought.length;
  byId("bring").textContent = `Take along the ${count(brought.length, "title")} you tried`;
  showOffer();
}

/** Titles to start from, without the liked ones. */
function showOffer() {
  const free = popular.filter((item) => !person.has(item.item_id));
  if (offered >= free.length) offered = 0;
  const wanted = person.titles.length < BEGUN;
  const shown = wanted ? free.slice(offered, offered + OFFERED) : [];
  byId("start").hidden = !shown.length;
  byId("others").hidden = free.length <= OFFERED;
  const chips = shown.map((item) => chip(item, "+", " – I liked this", () => like(item), "offer"));
  if (!refill(byId("suggestions"), chips)) byId("liked-title").focus();
}

function chip(item, mark, label, act, kind = "own") {
  const button = make("button", { type: "button", class: `chip ${kind}` });
  button.append(titleOf(item), spoken(label), sign("mark", mark));
  button.addEventListener("click", act);
  return make("li", {}, button);
}

/** The question to the first run, for whoever wants to ask without the page. */
function showRequest(question) {
  if (!cards.length) return;
  const body = JSON.stringify({ ...question, run: cards[0].run.name, k: LENGTH });
  const address = new URL("v1/recommendations", document.baseURI);
  const token = api.hasToken ? ' \\\n  -H "authorization: Bearer $FORETASTE_TOKEN"' : "";
  byId("curl").textContent =
    `curl ${address} -H 'content-type: application/json'${token} \\\n` +
    `  -d '${body.replaceAll("'", String.raw`'\''`)}'`;
  byId("request").hidden = false;
}

/** Show what went wrong, each thing once; a missing token asks for one. */
function report(...problems) {
  const locked = problems.find((problem) => problem.status === 401);
  if (locked) {
    hideNotices();
    byId("token-says").textContent = api.hasToken
      ? "The service did not take this token."
      : locked.message;
    byId("token-form").hidden = false;
    byId("token").focus();
    return;
  }
  tell([...new Set(problems.map((problem) => problem.message))].join(" "));
}

/** A notice; `way` is its button, by default one that asks again. */
function tell(text, way = { label: "Try again", act: again }) {
  if (byId("notice-says").textContent !== text) byId("notice-says").textContent = text;
  byId("mend").hidden = !way;
  byId("mend").textContent = way?.label ?? "";
  mend = way?.act;
  byId("notice").hidden = false;
}

function hideNotices() {
  byId("notice").hidden = true;
  byId("token-form").hidden = true;
}

/** For screen readers. */
function say(text) {
  byId("said").textContent = text;
}

function becomeUser() {
  person = User.stored() ?? new User();
  person.active = true;
  remembered = person.save();
}

function becomeTrying() {
  if (person.kind === "user") {
    person.active = false;
    person.save();
  }
  person = trying;
}

async function forget() {
  byId("forget").disabled = true;
  try {
    const { length } = person.titles;
    const had = await person.forget(api);
    trying.titles = [];
    person = trying;
    await update(
      had ? `Forgotten: ${count(length, "event")} and all that was made of them.` : "Forgotten.",
    );
    byId("kept-says").textContent = "You are forgotten, in the service and in this browser.";
  } catch (problem) {
    tell(`You are not forgotten yet. ${problem.message}`, null);
  } finally {
    byId("forget").disabled = false;
  }
}

for (const radio of document.getElementsByName("mode")) {
  radio.addEventListener("change", () => {
    if (radio.value === "user") becomeUser();
    else becomeTrying();
    showMode(person);
    update(byId("mode-says").textContent);
  });
}
byId("others").addEventListener("click", () => {
  offered += OFFERED;
  showOffer();
});
byId("bring").addEventListener("click", () => {
  for (const title of trying.titles) person.add(title);
  update(`${count(person.titles.length, "title")} taken along.`);
});
byId("forget").addEventListener("click", forget);
byId("mend").addEventListener("click", () => mend());
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.token = byId("token").value.trim();
  byId("token").value = "";
  again();
});
// The same user in another tab: clicked something, or was forgotten.
addEventListener("storage", (event) => {
  if (event.key !== KEY || person.kind !== "user") return;
  person = User.stored() ?? trying;
  update(null, false); // the other tab writes
});

showPerson();
start();
