// Figures and states as people say them.

const whole = new Intl.NumberFormat("en");

/** "1 title", "2,741 titles". */
export const count = (number, noun) =>
  `${whole.format(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Milliseconds, to three figures at most. */
export function milliseconds(ms) {
  const digits = ms < 10 ? 2 : ms < 100 ? 1 : 0;
  return `${ms.toFixed(digits)} ms`;
}

/** Bytes, exactly as long as a person can read the figure. */
export function bytes(number) {
  if (number === 0) return "nothing";
  if (number < 100_000) return count(number, "byte");
  return `${(number / 1_000_000).toFixed(2)} MB`;
}

/** "a", "a and b", "a, b and c". */
export function listed(words) {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** How an answer was made, in a sentence. */
export function made(answer, run, asked) {
  if (answer.degraded) {
    return "Made from what this page remembers: the store does not answer.";
  }
  if (answer.source === "state") {
    return "Continued from what is kept of you.";
  }
  if (answer.source === "history") {
    if (!asked.user) return "Computed from the titles in the question.";
    if (run.incremental) return "Computed from your whole log, this once.";
    return "Computed from your whole log, as every time.";
  }
  if (asked.titles) return "It knows none of your titles: this is what is popular.";
  return "Nothing is known of you: this is what is popular.";
}

/** How much a list leans on an event, next to the event that it leans on most. */
export function weight(share) {
  if (share >= 0.999) return "the most";
  if (share >= 0.75) return "nearly as much";
  if (share >= 0.4) return "much";
  if (share >= 0.15) return "some";
  if (share > 0.02) return "a little";
  if (share >= -0.02) return "not at all";
  return "against it";
}
