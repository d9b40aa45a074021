/** The timeline: the calls of a run on its clock, or the runs of a tape, each opening its own. */

import { ask } from "./ask.js";
import { calm, make, say, TapeElement } from "./element.js";
import { nice } from "./draw.js";
import { MARKS } from "./format.js";
import { causes, hatched, swatch } from "./legend.js";
import { Chart } from "./timeline-chart.js";
import { RATES } from "./timeline-draw.js";
import { Filters } from "./timeline-filters.js";
import { rowOfRun, rowsOfRun } from "./timeline-rows.js";
import { View, zoomButtons } from "./timeline-view.js";

const POLL_MS = 500;
const RUNS_POLL_MS = 2_000;
const PATIENCE_MS = 3_000;
const TICK_MS = 100;
const RUNS = 20;
const BUCKETS = 60;
/** Pieces of a call: at first, at the most, and of all calls together. */
const BINS = 48;
const MOST_BINS = 960;
const ALL_BINS = 30_000;
const NARROWED = ["q", "model", "provider", "adapter", "label", "status", "since", "until", "stalled"];

class TapeTimeline extends TapeElement {
  async build() {
    const plain = [...this.children];
    this.view = new View();
    this.source = this.dataset.run ? new OneRun(this) : new AllRuns(this, plain);
    await this.source.load();
    this.chart = new Chart(this.view, (row) => this.source.hrefOf(row));
    this.rates = make("li", { class: "tl-rates" });
    this.note = make("p", { class: "tape-note", role: "status" });
    this.view.addEventListener("change", () => this.source.viewed?.());
    const picture = make("div", {}, this.chart.element, this.#legend());
    const table = make("div", { hidden: true }, ...plain);
    const tools = make("div", { class: "tl-tools" }, zoomButtons(this.view), ...this.source.tools, asTable(picture, table));
    this.show();
    this.#follow();
    return [tools, this.note, picture, table];
  }

  /** Shows what the source knows now. */
  show() {
    const { chart, source, view } = this;
    const running = source.running;
    chart.now = source.now;
    chart.clock = source.clock;
    view.setWhole(running ? roundedUp(source.span) : source.span);
    chart.show(source.rows);
    this.#tellRates();
  }

  #follow() {
    let wait = this.source.pause;
    const again = async () => {
      const began = performance.now();
      if (!document.hidden) {
        const failed = await this.source.load().then(() => null, (error) => error);
        say(this.note, failed ? `Not up to date: ${failed.message}.` : "");
        if (!failed) this.show();
        // A server that takes long is not asked all the time.
        wait = failed ? PATIENCE_MS : Math.max(this.source.pause, 4 * (performance.now() - began));
      }
      if (this.source.grows) setTimeout(again, wait);
    };
    if (this.source.grows) setTimeout(again, wait);
    setInterval(() => {
      if (calm() || !this.source.running || document.hidden || this.note.textContent) return;
      this.chart.now = this.source.now;
      this.view.setWhole(roundedUp(this.source.span));
      this.chart.redraw();
    }, TICK_MS);
  }

  #legend() {
    const statuses = Object.entries(MARKS).map(([status, sign]) => {
      const mark = make("span", { class: `status status-${status}`, "aria-hidden": "true" }, sign);
      return make("li", {}, mark, status);
    });
    return make("ul", { class: "legend tl-legend" }, ...this.source.hatchings, this.rates, ...statuses);
  }

  #tellRates() {
    const { levels } = this.chart;
    const words = levels ? `slow → fast: up to ${levels.join(", ")} events/s and faster` : "";
    if (this.rates.dataset.words === words) return;
    this.rates.dataset.words = words;
    const shades = words ? RATES.map((name) => swatch("", 16, (colour) => colour(name)).firstChild) : [];
    this.rates.replaceChildren(...shades, words);
  }
}

/** A little more than there is, so that not everything moves all the time. */
const roundedUp = (ms) => {
  const step = nice(ms / 8);
  return Math.ceil((ms * 1.02) / step) * step;
};

function asTable(picture, table) {
  const button = make("button", { type: "button", "aria-pressed": "false" }, "As a table");
  button.addEventListener("click", () => {
    picture.hidden = !(table.hidden = !table.hidden);
    button.setAttribute("aria-pressed", String(picture.hidden));
  });
  return button;
}

/** What both sources have: how far the axis goes, and a clock that goes on between two answers. */
class Source {
  constructor(element) {
    this.element = element;
    this.answered = 0;
  }

  link(...steps) {
    const { pages, query } = this.element.dataset;
    return `${[pages, ...steps.map(encodeURIComponent)].join("/")}${query ? `?${query}` : ""}`;
  }
}

/** The calls and marks of one run. */
class OneRun extends Source {
  pause = POLL_MS;
  bins = BINS;
  #all = [];

  constructor(element) {
    super(element);
    this.filters = new Filters(element, () => element.show());
    this.tools = [this.filters.element];
    this.hatchings = causes();
  }

  async load() {
    this.timeline = await ask(this.element, `/runs/${encodeURIComponent(this.element.dataset.run)}/timeline`, { bins: this.bins });
    this.answered = performance.now();
    this.#all = rowsOfRun(this.timeline);
    this.filters.offer(this.#all);
  }

  get running() {
    const { run } = this.timeline;
    return run.status === "running" || run.running_count > 0;
  }

  get grows() {
    return this.running;
  }

  get now() {
    const { duration_ms } = this.timeline;
    return this.running ? duration_ms + performance.now() - this.answered : duration_ms;
  }

  get span() {
    return this.now;
  }

  get rows() {
    return this.filters.of(this.#all, this.element.view, this.now);
  }

  hrefOf({ kind, key }) {
    return kind === "call" ? this.link("calls", key) : null;
  }

  /** Another stretch is shown: with other calls perhaps, and perhaps in more detail. */
  viewed() {
    const { view, chart } = this.element;
    if (this.filters.byTime) chart.show(this.rows);
    const closer = view.whole / (view.to - view.from);
    const most = Math.min(MOST_BINS, ALL_BINS / Math.max(1, this.#all.length));
    const bins = Math.round(Math.max(BINS, Math.min(most, BINS * 2 ** Math.ceil(Math.log2(closer)))));
    if (bins <= this.bins) return;
    this.bins = bins;
    this.load().then(() => this.element.show(), () => {});
  }
}

/** The runs that the page lists, the newest first; on its first page those too that begin while it is looked at. */
class AllRuns extends Source {
  pause = RUNS_POLL_MS;
  byClock = false;
  #runs = [];
  #counted = new Map();

  constructor(element, plain) {
    super(element);
    const asked = new URLSearchParams(location.search);
    const links = plain.flatMap((node) => [...node.querySelectorAll("tbody th a")]);
    this.listed = links.map(({ pathname }) => decodeURIComponent(pathname.split("/").at(-1)));
    this.isNewest = !asked.get("runs") && !NARROWED.some((name) => asked.get(name));
    this.hatchings = [hatched("upstream", "a call open, nothing came")];
    const select = make("select", {}, new Option("from its own start", ""), new Option("by the clock (UTC)", "clock"));
    select.addEventListener("change", () => {
      this.byClock = Boolean(select.value);
      element.show();
      element.view.reset();
    });
    this.tools = [make("label", {}, "Each run ", select)];
  }

  async load() {
    const runs = this.isNewest
      ? (await ask(this.element, "/runs", { limit: RUNS })).runs
      : await Promise.all(this.listed.map((uid) => ask(this.element, `/runs/${encodeURIComponent(uid)}`)));
    for (const run of runs) {
      if (this.#counted.get(run.uid)?.isWhole) continue;
      const path = `/runs/${encodeURIComponent(run.uid)}/tokens/timeseries`;
      const counted = await ask(this.element, path, { buckets: BUCKETS });
      this.#counted.set(run.uid, { ...counted, isWhole: run.status !== "running" && !run.running_count });
    }
    // Not before all is known: what is there is drawn meanwhile.
    this.#runs = runs;
    this.answered = performance.now();
    this.began = Math.min(...runs.map((run) => Date.parse(run.started_at)));
  }

  get running() {
    return this.#runs.some(({ status }) => status === "running");
  }

  get grows() {
    return this.running || this.isNewest;
  }

  get clock() {
    return this.byClock ? this.began : undefined;
  }

  /** Where a run stands on the axis. */
  #begin(run) {
    return this.byClock ? Date.parse(run.started_at) - this.began : 0;
  }

  #end(run) {
    const counted = this.#counted.get(run.uid).end_ms;
    const since = run.status === "running" ? performance.now() - this.answered : 0;
    return this.#begin(run) + (run.duration_ms ?? counted + since);
  }

  get span() {
    return Math.max(1, ...this.#runs.map((run) => this.#end(run)));
  }

  get now() {
    return this.span;
  }

  get rows() {
    return this.#runs.map((run) => {
      const row = rowOfRun(run, this.#counted.get(run.uid), this.#begin(run));
      // Runs that began at different times do not share a "now" where each has its own start.
      return row.end === null ? { ...row, end: this.#end(run) } : row;
    });
  }

  hrefOf({ key }) {
    return this.link("runs", key);
  }
}

customElements.define("tape-timeline", TapeTimeline);
