// The service, as the page asks it. What goes wrong comes out as a Problem, in plain words.

const TOKEN = "foretaste.token";
const SECONDS = 20;
const LONGEST_PAUSE = 5;
const PASSING = new Set([0, 429, 503]);

/** A request that was not answered. `status` is 0 when the service was not reached. */
export class Problem extends Error {
  constructor(status, detail, pause = 1) {
    super(inWords(status, detail));
    this.status = status;
    this.pause = pause;
  }

  /** Whether it may well go when asked again. */
  get isPassing() {
    return PASSING.has(this.status);
  }
}

function inWords(status, detail) {
  if (status === 0) return "The service cannot be reached. Is it still running?";
  if (status === 401) return "The service asks for a token.";
  if (status === 413) return "That is more than the service takes at once.";
  if (status === 429) return "Too many questions are waiting at this moment.";
  if (status === 503) return `The service cannot answer right now: ${detail}.`;
  if (status >= 500) return "Something went wrong in the service. Its log says more.";
  return `The service did not take the question: ${detail}.`;
}

/** The requests of the page. A question that is told to wait is asked again, three times in all. */
export class Api {
  #token = stored();

  /** @param {(problem: Problem) => void} waiting told when a request waits to be sent again */
  constructor(waiting) {
    this.waiting = waiting;
  }

  get hasToken() {
    return this.#token !== "";
  }

  /** Sent with every request from now on; kept as long as the tab. */
  set token(token) {
    this.#token = token;
    try {
      sessionStorage.setItem(TOKEN, token);
    } catch {
      // It holds until the page is closed.
    }
  }

  runs(signal) {
    return this.#ask("GET", "v1/runs", { signal });
  }

  find(typed, signal) {
    const asked = new URLSearchParams({ q: typed, limit: "8" });
    return this.#ask("GET", `v1/items?${asked}`, { signal, quiet: true });
  }

  recommend(question, signal) {
    return this.#ask("POST", "v1/recommendations", { body: question, signal });
  }

  log(events) {
    // Once only: a failed call may have written something, and the lists wait for it.
    return this.#ask("POST", "v1/events", { body: events, tries: 1 });
  }

  forget(user) {
    return this.#ask("DELETE", `v1/users/${encodeURIComponent(user)}`, { tries: 1 });
  }

  async #ask(method, path, { body, signal, tries = 3, quiet = false } = {}) {
    for (;;) {
      tries -= 1;
      try {
        return await this.#once(method, path, body, signal);
      } catch (problem) {
        if (tries < 1 || !problem.isPassing) throw problem;
        if (!quiet) this.waiting(problem);
        await pause(problem.pause, signal);
      }
    }
  }

  async #once(method, path, body, signal) {
    const stop = new AbortController();
    const clock = setTimeout(() => stop.abort(), SECONDS * 1_000);
    const follow = () => stop.abort();
    signal?.throwIfAborted();
    signal?.addEventListener("abort", follow);
    try {
      const response = await fetch(path, {
        method,
        headers: this.#headers(body),
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: stop.signal,
        cache: "no-store",
      });
      if (response.ok) return await response.json();
      throw await problemOf(response);
    } catch (error) {
      signal?.throwIfAborted();
      throw error instanceof Problem ? error : new Problem(0, "");
    } finally {
      clearTimeout(clock);
      signal?.removeEventListener("abort", follow);
    }
  }

  #headers(body) {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    if (this.hasToken) headers.authorization = `Bearer ${this.#token}`;
    return headers;
  }
}

/** Whether an error only says that nobody waits for the answer any more. */
export const isAborted = (error) => error instanceof DOMException && error.name === "AbortError";

async function problemOf(response) {
  const pause = Number(response.headers.get("retry-after"));
  const told = await response.json().catch(() => ({}));
  const { detail } = told;
  const said = Array.isArray(detail) ? detail.map((one) => one.msg).join("; ") : detail;
  const text = String(said ?? response.statusText).replace(/\.$/u, "");
  return new Problem(response.status, text, pause > 0 ? Math.min(pause, LONGEST_PAUSE) : 1);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const clock = setTimeout(resolve, seconds * 1_000);
    signal?.addEventListener("abort", () => {
      clearTimeout(clock);
      reject(signal.reason);
    });
  });
}

function stored() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}
