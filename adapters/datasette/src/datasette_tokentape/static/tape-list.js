/** The token list: every event a row; only the rows in view exist. */

import { make, say, TapeElement } from "./element.js";
import { callOf, upTo } from "./events.js";
import { brief, KINDS, plural, visible, whole } from "./format.js";
import { playerOf } from "./player.js";

const COLUMNS = ["#", "event", "kind", "at (ms)", "delta", "waited"];
const SPARE = 4;
const FOLLOW_MS = 80;
/** Of one event the list shows this much; copying takes all of it. */
const SHOWN = 200;
const FORMULA = /^[=+\-@\t\r]/;

/**
 * Rows whose text takes part in an occurrence of `wanted`, which may go over several events.
 * @param {import("./events.js").Call} call
 * @param {string} wanted
 * @returns {Uint8Array} 1 for each such row
 */
export function rowsWith(call, wanted) {
  const found = new Uint8Array(call.count);
  const pattern = new RegExp(wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu");
  for (const part of call.parts) {
    if (!part) continue;
    let k = 0;
    for (const match of part.text.matchAll(pattern)) {
      const until = match.index + match[0].length;
      while (call.end[part.rows[k]] <= match.index) k++;
      for (let j = k; j < part.size; j++) {
        const row = part.rows[j];
        if (call.token[row]) found[row] = 1;
        if (call.end[row] >= until) break;
      }
    }
  }
  return found;
}

class TapeList extends TapeElement {
  purpose = "The list";
  /** The row of the call in each line, and how many lines. */
  rows = new Uint32Array(0);
  count = 0;
  /** The line with the keyboard. */
  active = 0;
  #asked = 0;

  async build() {
    const call = (this.call = await callOf(this, this.dataset.call));
    this.player = playerOf(call);
    this.pool = [];
    this.head = make("div", { class: "list-row list-head", role: "row", "aria-rowindex": "1" });
    this.head.append(...COLUMNS.map((name) => make("span", { role: "columnheader" }, name)));
    this.body = make("div", { class: "list-body", role: "rowgroup" });
    this.view = make("div", { class: "list-view", role: "grid", tabIndex: 0, "aria-label": "Token events" });
    this.view.setAttribute("aria-colcount", String(COLUMNS.length));
    this.view.append(make("div", { role: "rowgroup", class: "list-top" }, this.head), this.body);
    const tools = this.#tools();
    this.#listen();
    this.#filter();
    return [tools, this.view, this.said];
  }

  #tools() {
    const { call } = this;
    const again = () => this.#filter();
    const field = (label, given) => {
      const input = make("input", { oninput: again, ...given });
      return [make("label", {}, make("span", {}, label), input), input];
    };
    const [search, wanted] = field("search", { type: "search", disabled: !call.hasText });
    const [from, least] = field("from ms", { type: "number", min: "0" });
    const [to, most] = field("to ms", { type: "number", min: "0" });
    const kind = make("select", { onchange: again });
    this.fields = { wanted, least, most, kind };
    this.follow = make("input", { type: "checkbox", checked: true });
    this.shown = make("span", { class: "list-count soft number" });
    this.said = make("p", { class: "tape-unseen", role: "status" });
    return make(
      "div",
      { class: "list-tools" },
      search,
      make("label", {}, make("span", {}, "kind"), kind),
      from,
      to,
      make("label", {}, this.follow, "follow the replay"),
      make("button", { type: "button", onclick: () => this.#copy("text", this.#text()), disabled: !call.hasText }, "Copy text"),
      make("button", { type: "button", onclick: () => this.#copy("rows", this.#table()) }, "Copy rows"),
      this.shown,
    );
  }

  #listen() {
    const { call, view, player } = this;
    view.addEventListener("scroll", () => this.#soon());
    view.addEventListener("keydown", (event) => this.#key(event));
    for (const by of ["wheel", "touchmove", "pointerdown"]) {
      view.addEventListener(by, () => player.playing && (this.follow.checked = false), { passive: true });
    }
    this.body.addEventListener("click", (event) => {
      const line = event.target.closest("[aria-rowindex]");
      if (line) this.#go(Number(line.getAttribute("aria-rowindex")) - 2);
    });
    let followed = 0;
    const follow = () => {
      // Rows that fly by need not be laid out in every frame.
      if (player.playing && performance.now() - followed < FOLLOW_MS) return;
      followed = performance.now();
      if (this.follow.checked) this.#reveal(upTo(this.rows, this.count, player.count - 1) - 1);
      this.#soon();
    };
    player.addEventListener("move", follow);
    player.addEventListener("state", follow);
    call.addEventListener("grow", () => this.#filter());
    call.addEventListener("finish", () => this.#filter());
    new ResizeObserver(() => {
      this.high = parseFloat(getComputedStyle(view).getPropertyValue("--row")) || 28;
      this.tall = view.clientHeight - this.head.offsetHeight;
      this.#soon();
    }).observe(view);
  }

  /** Which rows are listed, from what the fields say. */
  #filter() {
    const { call, fields } = this;
    const { kinds } = call;
    if (fields.kind.options.length !== kinds.length + 1) {
      const chosen = fields.kind.value;
      fields.kind.replaceChildren(make("option", { value: "" }, "all"));
      for (const kind of kinds) fields.kind.append(make("option", { value: kind }, KINDS[kind] ?? kind));
      fields.kind.value = chosen;
    }
    const [kind, wanted] = [fields.kind.value, fields.wanted.value];
    const hits = wanted ? rowsWith(call, wanted) : null;
    const first = fields.least.value ? call.countAt(Number(fields.least.value) - 1e-6) : 0;
    const last = fields.most.value ? call.countAt(Number(fields.most.value)) : call.count;
    const rows = new Uint32Array(Math.max(0, last - first));
    let count = 0;
    for (let row = first; row < last; row++) {
      if (hits && !hits[row]) continue;
      if (kind && call.parts[call.part[row]].kind !== kind) continue;
      rows[count++] = row;
    }
    Object.assign(this, { rows, count, active: Math.min(this.active, Math.max(0, count - 1)) });
    this.stalled = new Set(call.stalls.map(({ token_index }) => token_index));
    this.view.setAttribute("aria-rowcount", String(count + 1));
    this.body.style.height = `calc(var(--row) * ${count})`;
    const all = count === call.count ? plural(count, "event") : `${whole(count)} of ${plural(call.count, "event")}`;
    say(this.shown, all);
    for (const line of this.pool) line.at = -1;
    this.#soon();
  }

  #soon() {
    this.#asked ||= requestAnimationFrame(() => {
      this.#asked = 0;
      this.#render();
    });
  }

  #render() {
    if (!this.high) return;
    const first = Math.max(0, Math.floor(this.view.scrollTop / this.high) - SPARE);
    const needed = Math.ceil(this.tall / this.high) + 2 * SPARE;
    while (this.pool.length < needed) this.pool.push(this.#line());
    const size = this.pool.length;
    for (let at = first; at < first + size; at++) this.#fill(this.pool[at % size], at);
  }

  #line() {
    const cells = COLUMNS.map((_, i) => {
      const text = document.createTextNode("");
      return { text, cell: make("span", { role: "gridcell", class: i === 1 ? "list-token" : "" }, text) };
    });
    const element = make("div", { class: "list-row", role: "row" }, ...cells.map(({ cell }) => cell));
    this.body.append(element);
    return { at: -1, look: "", element, cells };
  }

  #fill(line, at) {
    const { call, player } = this;
    const { element, cells } = line;
    const row = this.rows[at];
    if (line.at !== at) {
      line.at = at;
      element.hidden = at >= this.count;
      if (element.hidden) return;
      element.style.transform = `translateY(calc(var(--row) * ${at}))`;
      element.setAttribute("aria-rowindex", String(at + 2));
      element.id = `event-${at}`;
      const token = call.token[row];
      const { kind } = call.parts[call.part[row]];
      const shown = token === null ? "not recorded" : token ? visible(token.slice(0, SHOWN)) : "masked";
      const gap = row ? brief(call.gap(row)) : "";
      const texts = [whole(call.index[row]), shown, KINDS[kind] ?? kind, whole(call.at[row]), gap, brief(call.wait[row])];
      texts.forEach((text, i) => (cells[i].text.data = text));
    } else if (element.hidden) return;
    const words = [`list-row is-${call.parts[call.part[row]].kind}`];
    if (row === player.count - 1) words.push("is-here");
    if (this.stalled.has(call.index[row])) words.push("is-stall");
    if (at === this.active) words.push("is-active");
    if (!call.token[row]) words.push("is-blank");
    const look = words.join(" ");
    if (line.look !== look) {
      line.look = element.className = look;
      element.setAttribute("aria-selected", String(row === player.count - 1));
    }
  }

  /** Scrolls so far that a line is in view. */
  #reveal(at) {
    if (at < 0 || !this.high) return;
    const { view, high, tall } = this;
    const top = at * high;
    const from = view.scrollTop;
    if (top < from) view.scrollTop = top - Math.floor(tall / 3);
    else if (top + high > from + tall) view.scrollTop = top + high - tall;
  }

  #go(at) {
    this.active = at;
    this.player.pause();
    this.player.seekEvent(this.rows[at] + 1);
    this.view.setAttribute("aria-activedescendant", `event-${at}`);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.tall / this.high) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined && event.key !== "Enter") return;
    event.preventDefault();
    if (!this.count) return;
    if (by === undefined) return this.#go(this.active);
    this.active = Math.min(Math.max(0, this.active + by), this.count - 1);
    this.#reveal(this.active);
    this.#render();
    this.view.setAttribute("aria-activedescendant", `event-${this.active}`);
  }

  #text() {
    return Array.from(this.rows.subarray(0, this.count), (row) => this.call.token[row]).join("");
  }

  #table() {
    const { call } = this;
    const lines = Array.from(this.rows.subarray(0, this.count), (row) => {
      const token = visible(call.token[row] ?? "");
      const { kind } = call.parts[call.part[row]];
      // A spreadsheet would run what looks like a formula.
      const safe = FORMULA.test(token) ? `'${token}` : token;
      const numbers = [call.at[row], row ? call.gap(row) : 0, call.wait[row]].map((ms) => ms.toFixed(3));
      return [call.index[row], safe, kind, ...numbers].join("\t");
    });
    return ["token_index\ttoken\tkind\ttimestamp_ms\tdelta_ms\twait_ms", ...lines].join("\n");
  }

  async #copy(what, text) {
    try {
      await navigator.clipboard.writeText(text);
      say(this.said, `Copied the ${what} of ${plural(this.count, "event")}.`);
    } catch {
      say(this.said, "The browser did not allow copying.");
    }
    say(this.shown, this.said.textContent);
  }
}

customElements.define("tape-list", TapeList);
