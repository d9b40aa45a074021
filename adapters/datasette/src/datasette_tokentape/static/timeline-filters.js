/** What narrows the calls of a run: model, provider, adapter, status, stalls, the time in view, and text. */

import { ask } from "./ask.js";
import { make, say } from "./element.js";
import { plural } from "./format.js";

const CHOSEN = ["model", "provider", "adapter", "status"];
const PATIENCE_MS = 250;
const MOST = 500;

/** Filters of a timeline `element`, which are in the address as well; `changed()` is told when others are chosen. */
export class Filters {
  #fields = {};
  /** Calls with the text that is looked for; null while nothing is. */
  #found = null;
  #later = 0;

  constructor(element, changed) {
    this.timeline = element;
    this.changed = changed;
    const given = new URLSearchParams(location.search);
    const field = (name, label, input, className = "") => {
      this.#fields[name] = input;
      return make("label", { class: className }, ...(className ? [input, ` ${label}`] : [`${label} `, input]));
    };
    const search = make("input", { type: "search", maxLength: 200, value: given.get("q") ?? "", oninput: () => this.#typed() });
    const chosen = CHOSEN.map((name) => {
      const select = make("select", { onchange: () => this.#say() }, new Option("any", ""));
      if (given.get(name)) select.append(new Option(given.get(name), given.get(name), true, true));
      return field(name, name[0].toUpperCase() + name.slice(1), select);
    });
    const check = (name, label) => {
      const input = make("input", { type: "checkbox", checked: given.has(name), onchange: () => this.#say() });
      return field(name, label, input, "check");
    };
    this.count = make("p", { class: "tl-count", role: "status" });
    const fields = [field("q", "Text", search), ...chosen, check("stalled", "stalled"), check("seen", "only the time in view")];
    this.element = make("form", { class: "filters", role: "search", "aria-label": "Calls of this run" }, ...fields, this.count);
    this.element.addEventListener("submit", (event) => event.preventDefault());
    if (search.value) this.#typed();
  }

  get #text() {
    return this.#fields.q.value.trim();
  }

  /** Whether only what is in view is shown. */
  get byTime() {
    return this.#fields.seen.checked;
  }

  /** Offers what these rows have. */
  offer(rows) {
    for (const name of CHOSEN) {
      const select = this.#fields[name];
      const known = new Set([...select.options].map(({ value }) => value));
      const values = new Set(rows.map(({ call }) => call?.[name]).filter(Boolean));
      for (const value of [...values].sort()) if (!known.has(value)) select.append(new Option(value, value));
    }
  }

  /** Those of the rows that are asked for; a call stays with the one below it that is. */
  of(rows, view, now) {
    const wanted = rows.filter((row) => this.#wants(row, view, now));
    const keys = new Set(wanted.map(({ key }) => key));
    const shown = rows.filter(({ key, below }) => keys.has(key) || below?.some((one) => keys.has(one)));
    say(this.count, shown.length < rows.length ? `${shown.length} of ${plural(rows.length, "row")} shown` : "");
    return shown;
  }

  #wants(row, view, now) {
    if (this.byTime && ((row.end ?? now) < view.from || row.start > view.to)) return false;
    if (this.#found && !this.#found.has(row.key) && !row.name.toLowerCase().includes(this.#text.toLowerCase())) return false;
    const asked = CHOSEN.filter((name) => this.#fields[name].value);
    const { stalled } = this.#fields;
    if (!row.call) return !asked.length && !stalled.checked;
    if (stalled.checked && !row.silences.some(({ first, short }) => short && !first)) return false;
    return asked.every((name) => row.call[name] === this.#fields[name].value);
  }

  #typed() {
    clearTimeout(this.#later);
    this.#later = setTimeout(() => this.#look(), PATIENCE_MS);
  }

  async #look() {
    const text = this.#text;
    if (!text) this.#found = null;
    else {
      const asked = { run: this.timeline.dataset.run, q: text, limit: MOST };
      const answer = await ask(this.timeline, "/llm-calls", asked).catch((error) => {
        say(this.count, `Not searched: ${error.message}.`);
      });
      if (!answer || text !== this.#text) return;
      this.#found = new Set(answer.calls.map(({ uid }) => uid));
    }
    this.#say();
  }

  #say() {
    const address = new URL(location.href);
    for (const [name, { type, value, checked }] of Object.entries(this.#fields)) {
      const told = type === "checkbox" ? checked && "1" : value.trim();
      if (told) address.searchParams.set(name, told);
      else address.searchParams.delete(name);
    }
    history.replaceState(history.state, "", address);
    this.changed();
  }
}
