/** The chart of a timeline: names at the left, bars on one clock, amounts at the right; on a narrow screen the names above. */

import { sketch } from "./draw.js";
import { make, say } from "./element.js";
import { duration, MARKS } from "./format.js";
import { drawAxis, drawGrid, drawRow, scaleOf } from "./timeline-draw.js";
import { about, levelsOf, wordsAt } from "./timeline-rows.js";
import { zoomKeys, zoomPointer } from "./timeline-view.js";

/** Height of a row, as in browse.css. */
const ROW = 44;
/** Rows that share a canvas: only those in sight are drawn. */
const CHUNK = 16;
const AXIS = 26;
const BAR = 18;
const HINT = "Point at a bar, or go to a name with Tab: what is there is told here. Keys: + − 0 ← → and , . along a bar.";

/** A chart of rows in a view; `hrefOf(row)` is where a row leads. */
export class Chart {
  rows = [];
  levels = null;
  now = 0;
  /** Time of day at which the axis begins, where it shows the time of day. */
  clock = undefined;
  /** What is pointed at: a row and a moment. */
  #at = null;
  #shown = new Map();
  #chunks = [];

  constructor(view, hrefOf) {
    this.view = view;
    this.hrefOf = hrefOf;
    this.axis = sketch("", AXIS, (context, width, colour) => drawAxis(context, width, colour, view, this.clock));
    decorative(this.axis.canvas);
    this.list = make("div", { role: "list", class: "tl-list" });
    this.tip = make("div", { class: "tl-tip", hidden: true, "aria-hidden": "true" });
    this.line = make("p", { class: "tl-line" }, HINT);
    this.said = make("p", { class: "hidden", role: "status" });
    const top = make("div", { class: "tl-top", "aria-hidden": "true" }, make("span"), this.axis.canvas, make("span"));
    this.element = make("div", { class: "tl-chart" }, top, this.list, this.tip, this.line, this.said);
    view.addEventListener("change", () => this.redraw());
    this.#listen();
  }

  /** Shows these rows. */
  show(rows) {
    this.rows = rows;
    this.levels = levelsOf(rows);
    const keys = new Set(rows.map(({ key }) => key));
    for (const key of this.#shown.keys()) if (!keys.has(key)) this.#shown.delete(key);
    const elements = rows.map((row) => this.#elementOf(row));
    for (let i = 0; i * CHUNK < Math.max(rows.length, this.#chunks.length * CHUNK); i++) {
      this.#chunks[i] ??= this.#newChunk(i);
      place(this.#chunks[i].element, elements.slice(i * CHUNK, (i + 1) * CHUNK));
    }
    this.redraw();
  }

  redraw() {
    this.axis.redraw();
    for (const { inSight, redraw } of this.#chunks) if (inSight) redraw();
  }

  #newChunk(i) {
    const draw = (context, width, colour) => this.#drawChunk(i, context, width, colour);
    const { canvas, redraw } = sketch("", CHUNK * ROW, draw);
    decorative(canvas);
    const chunk = { element: make("div", { class: "tl-chunk" }, canvas), canvas, redraw, inSight: false };
    new IntersectionObserver(([entry]) => {
      chunk.inSight = entry.isIntersecting;
      if (chunk.inSight) redraw();
    }).observe(chunk.element);
    this.list.append(chunk.element);
    return chunk;
  }

  #drawChunk(i, context, width, colour) {
    const rows = this.rows.slice(i * CHUNK, (i + 1) * CHUNK);
    const { view, levels, now, clock } = this;
    drawGrid(context, width, rows.length * ROW, colour, view, clock);
    // The names stand above the bars where there is no room beside them.
    const words = width < this.list.clientWidth - 4;
    const above = words ? (ROW - BAR) / 2 + 3 : ROW - BAR - 3;
    rows.forEach((row, n) => {
      drawRow(context, row, { width, top: n * ROW + above, height: BAR, colour, view, levels, now, words });
    });
    if (!this.#at) return;
    context.fillStyle = colour("--accent");
    context.fillRect(Math.round(scaleOf(view, width).x(this.#at.ms)), 0, 1, rows.length * ROW);
  }

  #elementOf(row) {
    let shown = this.#shown.get(row.key);
    if (!shown) this.#shown.set(row.key, (shown = newRow(row, this.hrefOf(row))));
    shown.element.style.setProperty("--depth", Math.min(row.depth, 4));
    if (row.status) {
      shown.sign.className = `tl-sign status status-${row.status}`;
      say(shown.sign, MARKS[row.status] ?? "·");
      say(shown.word, `${row.status}, `);
    }
    say(shown.note, row.note);
    say(shown.amount, row.amount);
    shown.amount.classList.toggle("failed", row.status === "error");
    say(shown.about, `${row.depth ? "made by a call above; " : ""}${about(row)}`);
    return shown.element;
  }

  // What is pointed at.

  #listen() {
    const { list, view } = this;
    const area = () => this.axis.canvas.getBoundingClientRect();
    zoomPointer(list, view, () => ({ left: area().left, width: scaleOf(view, area().width).across }), (event) => {
      const { row } = this.#under(event);
      const href = row && this.hrefOf(row);
      if (href) location.assign(href);
    });
    list.addEventListener("pointermove", (event) => this.#point(this.#under(event), event));
    list.addEventListener("pointerleave", () => this.#leave());
    list.addEventListener("focusin", ({ target }) => {
      const row = this.#rowAround(target);
      if (row) say(this.line, describe(row));
    });
    list.addEventListener("focusout", () => this.#leave());
    zoomKeys(this.element, view);
    this.element.addEventListener("keydown", (event) => this.#step(event));
  }

  #rowAround(target) {
    const key = target.closest?.("[data-key]")?.dataset.key;
    return this.rows.find((row) => row.key === key);
  }

  #under({ clientX, clientY }) {
    const { top } = this.list.getBoundingClientRect();
    const { left, width } = this.axis.canvas.getBoundingClientRect();
    const row = this.rows[Math.floor((clientY - top) / ROW)];
    const ms = scaleOf(this.view, width).ms(clientX - left);
    return clientX < left || clientX > left + width || !row ? {} : { row, ms };
  }

  #point({ row, ms }, event) {
    const words = row && wordsAt(row, ms, this.now);
    if (!words) return this.#leave();
    this.#at = { row, ms };
    this.list.classList.toggle("is-link", Boolean(this.hrefOf(row)));
    const text = `${row.name} at ${this.#moment(ms)}: ${words}`;
    say(this.line, text);
    say(this.tip, text);
    this.tip.hidden = false;
    const { left, top, width } = this.element.getBoundingClientRect();
    const x = Math.min(event.clientX - left + 14, width - this.tip.offsetWidth);
    this.tip.style.translate = `${Math.max(0, x)}px ${event.clientY - top + 18}px`;
    this.redraw();
  }

  #moment(ms) {
    return this.clock === undefined ? duration(Math.max(0, ms)) : new Date(Math.round(this.clock + ms)).toISOString().slice(11, 23);
  }

  #leave() {
    this.list.classList.remove("is-link");
    this.tip.hidden = true;
    if (!this.#at) return;
    this.#at = null;
    const row = this.#rowAround(document.activeElement);
    say(this.line, row ? describe(row) : HINT);
    this.redraw();
  }

  /** Goes along the bar of the row that has the focus, from one rate or silence to the next. */
  #step(event) {
    const by = { ",": -1, ".": 1 }[event.key];
    const row = by && this.#rowAround(event.target);
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const stops = [...row.pieces, ...row.silences].map(({ start, end }) => (start + (end ?? this.now)) / 2);
    stops.sort((a, b) => a - b);
    const from = this.#at?.row.key === row.key ? this.#at.ms : by > 0 ? -Infinity : Infinity;
    const ms = by > 0 ? stops.find((stop) => stop > from + 1e-6) : stops.findLast((stop) => stop < from - 1e-6);
    if (ms === undefined) return;
    this.#at = { row, ms };
    const text = `${row.name} at ${this.#moment(ms)}: ${wordsAt(row, ms, this.now)}`;
    say(this.line, text);
    say(this.said, text);
    const { from: begin, to } = this.view;
    if (ms < begin || ms > to) this.view.show(ms - (to - begin) / 2, ms + (to - begin) / 2);
    this.redraw();
  }
}

const describe = (row) => [row.name, row.status, row.note, row.amount, about(row)].filter(Boolean).join(" · ");

/** The words beside it say the same. */
function decorative(canvas) {
  canvas.removeAttribute("role");
  canvas.removeAttribute("aria-label");
  canvas.setAttribute("aria-hidden", "true");
}

function newRow(row, href) {
  const sign = make("span", { class: "tl-sign", "aria-hidden": "true" });
  const word = make("span", { class: "hidden" });
  const name = make("bdi", {}, row.name);
  const title = href ? make("a", { href }, name) : make("span", {}, `${row.kind === "mark" ? `${row.note} ` : ""}`, name);
  const note = make("bdi", { class: "tl-note" });
  const amount = make("span", { class: "tl-amount" });
  const said = make("span", { class: "hidden" });
  const label = make("span", { class: "tl-name" }, sign, word, title, note);
  const element = make("div", { role: "listitem", class: `tl-row is-${row.kind}`, "data-key": row.key }, label, amount, said);
  return { element, sign, word, note, amount, about: said };
}

/** Puts elements behind the canvas of a chunk; what is there already is not touched. */
function place(chunk, elements) {
  const [canvas, ...now] = chunk.children;
  if (now.length !== elements.length || now.some((one, i) => one !== elements[i])) chunk.replaceChildren(canvas, ...elements);
  chunk.style.height = `${elements.length * ROW}px`;
}
