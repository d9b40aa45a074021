/** The token list; only the rows in view exist. */

import { CallElement } from "./call-element.js";
import { make, say } from "./element.js";
import { upTo } from "./events.js";
import { brief, KINDS, plural, visible, whole } from "./format.js";
import { paced } from "./player.js";

const COLUMNS = ["#", "event", "kind", "at (ms)", "delta", "waited"];
const COPIED = "token_index\ttoken\tkind\ttimestamp_ms\tdelta_ms\twait_ms";
/** Lines beyond the view. */
const SPARE = 4;
const FOLLOW_MS = 80;
const SHOWN = 200;

/** 1 for each row in an occurrence of a text, which may go over several events. */
export function rowsWith(call, wanted) {
  const found = new Uint8Array(call.count);
  const pattern = new RegExp(wanted.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"), "giu");
  for (const part of call.parts) {
    let k = 0;
    for (const match of part?.size ? part.text.matchAll(pattern) : []) {
      while (call.end[part.rows[k]] <= match.index) k++;
      for (let j = k; j < part.size; j++) {
        if (call.token[part.rows[j]]) found[part.rows[j]] = 1;
        if (call.end[part.rows[j]] >= match.index + match[0].length) break;
      }
    }
  }
  return found;
}

class TapeList extends CallElement {
  /** The row of each of `count` lines, and which line has the keyboard. */
  rows = new Uint32Array(0);
  count = 0;
  active = 0;
  pool = [];
  #asked = 0;

  made() {
    const head = make("div", { class: "list-row list-head", role: "row", "aria-rowindex": 1 });
    head.append(...COLUMNS.map((name) => make("span", { role: "columnheader" }, name)));
    this.body = make("div", { class: "list-body", role: "rowgroup" });
    this.view = make("div", { class: "list-view", role: "grid", tabIndex: 0, "aria-label": "Token events" });
    this.view.append(make("div", { role: "rowgroup", class: "list-top" }, head), this.body);
    const tools = this.#tools();
    this.#listen();
    new ResizeObserver(() => {
      this.high = parseFloat(getComputedStyle(this.view).getPropertyValue("--row"));
      this.tall = this.view.clientHeight - head.offsetHeight;
      this.#soon();
    }).observe(this.view);
    return [tools, this.view, this.said];
  }

  #tools() {
    const { hasText } = this.call;
    const filter = () => this.changed();
    const field = (type) => make("input", { type, oninput: filter });
    const fields = (this.fields = {
      search: field("search"),
      kind: make("select", { onchange: filter }),
      "from ms": field("number"),
      "to ms": field("number"),
    });
    fields.search.disabled = !hasText;
    this.follow = make("input", { type: "checkbox", checked: true });
    this.shown = make("span", { class: "list-count" });
    this.said = make("p", { class: "tape-unseen", role: "status" });
    const copy = (what, text, disabled) =>
      make("button", { type: "button", disabled, onclick: () => this.#copy(what, text()) }, `Copy ${what}`);
    return make(
      "div",
      { class: "list-tools" },
      ...Object.entries(fields).map(([name, input]) => make("label", {}, name, input)),
      make("label", {}, this.follow, "follow the replay"),
      copy("text", () => this.#listed((row) => this.call.token[row]).join(""), !hasText),
      copy("rows", () => this.#table(), false),
      this.shown,
    );
  }

  #listen() {
    const { view, player } = this;
    view.addEventListener("scroll", () => this.#soon());
    view.addEventListener("keydown", (event) => this.#key(event));
    for (const by of ["wheel", "touchmove", "pointerdown"]) {
      view.addEventListener(by, () => player.playing && (this.follow.checked = false), { passive: true });
    }
    this.body.addEventListener("click", ({ target }) => {
      const line = this.pool.find(({ element }) => element.contains(target));
      if (line) this.#go(line.at);
    });
    paced(player, FOLLOW_MS, () => {
      if (this.follow.checked) this.#reveal(upTo(this.rows, this.count, player.count - 1) - 1);
      this.#soon();
    });
  }

  /** Which rows are listed, from what the fields say. */
  changed() {
    const { call } = this;
    const { search, kind, "from ms": from, "to ms": to } = this.fields;
    const { kinds } = call;
    if (kind.length !== kinds.length + 1) {
      const options = kinds.map((value) => make("option", { value, selected: value === kind.value }, KINDS[value]));
      kind.replaceChildren(make("option", { value: "" }, "all"), ...options);
    }
    const hits = search.value && rowsWith(call, search.value);
    const first = upTo(call.at, call.count, from.value - 1e-6);
    const last = to.value ? call.countAt(to.value) : call.count;
    this.rows = new Uint32Array(Math.max(0, last - first));
    this.count = 0;
    for (let row = first; row < last; row++) {
      if ((hits && !hits[row]) || (kind.value && call.kindOf(row) !== kind.value)) continue;
      this.rows[this.count++] = row;
    }
    this.active = Math.min(this.active, Math.max(0, this.count - 1));
    this.stalled = new Set(call.stalls.map(({ token_index }) => token_index));
    this.view.setAttribute("aria-rowcount", this.count + 1);
    this.body.style.height = `calc(var(--row) * ${this.count})`;
    say(this.shown, (this.count < call.count ? `${whole(this.count)} of ` : "") + plural(call.count, "event"));
    for (const line of this.pool) line.at = -1;
    this.#soon();
  }

  #soon() {
    this.#asked ||= requestAnimationFrame(() => {
      this.#asked = 0;
      if (this.high) this.#render();
    });
  }

  #render() {
    const first = Math.max(0, Math.floor(this.view.scrollTop / this.high) - SPARE);
    const needed = Math.ceil(this.tall / this.high) + 2 * SPARE;
    while (this.pool.length < needed) this.pool.push(this.#line());
    const size = this.pool.length;
    for (let at = first; at < first + size; at++) this.#fill(this.pool[at % size], at);
  }

  #line() {
    const texts = COLUMNS.map(() => new Text());
    const element = make("div", { role: "row" }, ...texts.map((text) => make("span", { role: "gridcell" }, text)));
    this.body.append(element);
    return { at: -1, element, texts };
  }

  #fill(line, at) {
    const { call, player } = this;
    const { element, texts } = line;
    const row = this.rows[at];
    const token = call.token[row];
    element.hidden = at >= this.count;
    if (element.hidden) return;
    if (line.at !== at) {
      line.at = at;
      element.style.transform = `translateY(calc(var(--row) * ${at}))`;
      element.setAttribute("aria-rowindex", at + 2);
      element.id = `event-${at}`;
      const shown = token ? visible(token.slice(0, SHOWN)) : token === null ? "not recorded" : "masked";
      const times = [whole(call.at[row]), row && !call.isAfterHole(row) ? brief(call.gap(row)) : "", brief(call.wait[row])];
      const all = [whole(call.index[row] + 1), shown, KINDS[call.kindOf(row)], ...times];
      all.forEach((text, i) => (texts[i].data = text));
    }
    const here = row === player.count - 1;
    const looks = { here, stall: this.stalled.has(call.index[row]), active: at === this.active, blank: !token };
    let look = `list-row is-${call.kindOf(row)}`;
    for (const name in looks) if (looks[name]) look += ` is-${name}`;
    if (element.className !== look) element.className = look;
    element.setAttribute("aria-selected", here);
  }

  /** Scrolls until a line is in view. */
  #reveal(at) {
    if (at < 0 || !this.high) return;
    const { view, high, tall } = this;
    const top = at * high;
    if (top < view.scrollTop) view.scrollTop = top - Math.floor(tall / 3);
    else if (top + high > view.scrollTop + tall) view.scrollTop = top + high - tall;
  }

  #go(at) {
    this.#activate(at);
    this.player.pause();
    this.player.seekEvent(this.rows[at] + 1);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.tall / this.high) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity, Enter: 0 };
    const moved = by[event.key];
    if (moved === undefined || !this.count) return;
    event.preventDefault();
    this.#activate(Math.min(Math.max(0, this.active + moved), this.count - 1));
    if (!moved) this.#go(this.active);
  }

  #activate(at) {
    this.active = at;
    this.#reveal(at);
    this.#render();
    this.view.setAttribute("aria-activedescendant", `event-${at}`);
  }

  #listed(of) {
    return Array.from(this.rows.subarray(0, this.count), of);
  }

  #table() {
    const { call } = this;
    const lines = this.#listed((row) => {
      const token = visible(call.token[row] ?? "");
      // A spreadsheet would run what looks like a formula.
      const safe = /^[=+\-@]/.test(token) ? `'${token}` : token;
      const times = [call.at[row], call.gap(row), call.wait[row]].map((ms) => ms?.toFixed(3) ?? "");
      return [call.index[row], safe, call.kindOf(row), ...times].join("\t");
    });
    return [COPIED, ...lines].join("\n");
  }

  async #copy(what, text) {
    const words = await navigator.clipboard.writeText(text).then(
      () => `Copied ${what} of ${plural(this.count, "event")}`,
      () => "The browser did not allow copying",
    );
    say(this.said, words);
    say(this.shown, words);
  }
}

customElements.define("tape-list", TapeList);
