// Who asks: somebody who tries and leaves nothing, or a user whose events the service keeps.

export const KEY = "foretaste.user";
const AT_ONCE = 1_000; // events in one request, as the service allows
const MOST = 10_000; // events of a history, as the service allows
const ID = /^page-[0-9a-f]{32}$/u;

/** Titles that travel with each question. Nothing is stored anywhere. */
export class Trying {
  kind = "trying";
  titles = [];

  has(itemId) {
    return this.titles.some((title) => title.item_id === itemId);
  }

  add(item) {
    const last = this.titles.at(-1)?.timestamp ?? 0;
    const timestamp = Math.max(Date.now(), last + 1);
    this.titles.push({ item_id: item.item_id, title: item.title, timestamp });
  }

  remove(itemId) {
    this.titles = this.titles.filter((title) => title.item_id !== itemId);
  }

  /** What a request says about who asks. */
  question() {
    const last = this.titles.slice(-MOST);
    return { history: last.map(({ item_id, timestamp }) => ({ item_id, timestamp })) };
  }

  /** Tell the service what it has to know before it is asked: nothing. */
  async write() {}
}

/**
 * A random user. The id and the titles are kept in this browser, the events in the service.
 *
 * The service has no way to take one event back, so a title is removed by forgetting the user and
 * writing the others again. The same mends every doubt: `stale` says that the log of the service
 * may differ from the titles here, and is kept here while a request is under way.
 */
export class User extends Trying {
  kind = "user";
  stale = false;
  active = true; // whether the page opens as this user
  #writing = Promise.resolve();
  #busy = false;
  #gone = false;

  constructor(id = newId()) {
    super();
    this.id = id;
  }

  /** The user of this browser, or null. */
  static stored() {
    try {
      const record = JSON.parse(localStorage.getItem(KEY) ?? "null");
      if (!record || !ID.test(record.id) || !Array.isArray(record.titles)) return null;
      const user = new User(record.id);
      user.titles = record.titles.filter(isEvent);
      user.stale = Boolean(record.stale) || user.titles.length < record.titles.length;
      user.active = Boolean(record.active);
      return user;
    } catch {
      return null;
    }
  }

  /** Whether this browser keeps the id; without, it is gone with the page. */
  save() {
    if (this.#gone) return false;
    const { id, titles, active } = this;
    const record = { id, titles, active, stale: this.stale || this.#busy };
    try {
      localStorage.setItem(KEY, JSON.stringify(record));
      return true;
    } catch {
      return false;
    }
  }

  add(item) {
    super.add(item);
    this.titles.at(-1).sent = false;
    this.save();
  }

  remove(itemId) {
    if (this.titles.some((title) => title.item_id === itemId && title.sent)) this.stale = true;
    super.remove(itemId);
    this.save();
  }

  /** The history is there for a service whose store does not answer. */
  question() {
    return { user_id: this.id, ...super.question() };
  }

  /** Bring the log of the service to what is here, one request after the other. */
  write(api) {
    return this.#next(() => this.#write(api));
  }

  /** Have the service forget everything; then this browser does. Whether there was anything. */
  forget(api) {
    return this.#next(async () => {
      const { forgotten } = await api.forget(this.id);
      this.#gone = true;
      try {
        localStorage.removeItem(KEY);
      } catch {
        // Nothing was kept here.
      }
      return forgotten;
    });
  }

  #next(step) {
    const done = this.#writing.catch(() => {}).then(step);
    this.#writing = done;
    return done;
  }

  async #write(api) {
    if (this.#gone) return;
    if (!this.stale && this.titles.every((title) => title.sent)) return;
    this.#busy = true;
    try {
      if (this.stale) await this.#startAgain(api);
      let fresh = this.#unsent();
      while (fresh.length) {
        await this.#send(api, fresh);
        fresh = this.#unsent();
      }
    } catch (problem) {
      this.stale = true;
      throw problem;
    } finally {
      this.#busy = false;
      this.save();
    }
  }

  async #startAgain(api) {
    this.stale = false; // a title removed from here on makes it stale again
    for (const title of this.titles) title.sent = false;
    this.save();
    await api.forget(this.id);
  }

  async #send(api, titles) {
    for (const title of titles) title.sent = true;
    this.save();
    await api.log(
      titles.map(({ item_id, timestamp }) => ({ user_id: this.id, item_id, timestamp })),
    );
  }

  #unsent() {
    return this.titles.filter((title) => !title.sent).slice(0, AT_ONCE);
  }
}

function isEvent(title) {
  return (
    typeof title?.item_id === "string" &&
    typeof title.title === "string" &&
    Number.isFinite(title.timestamp)
  );
}

function newId() {
  // randomUUID exists on https only; a service in the house may be plain http.
  const drawn = crypto.getRandomValues(new Uint8Array(16));
  return `page-${Array.from(drawn, (one) => one.toString(16).padStart(2, "0")).join("")}`;
}
