/** The models side by side: how their first tokens and rates are spread, above the tables of the page. */

import { ask } from "./ask.js";
import { sketch } from "./draw.js";
import { make, say, TapeElement } from "./element.js";
import { duration, plural } from "./format.js";

const HEIGHT = 78;
const BASE = 58;
const TOP = 16;

const perSecond = (rate) => `${rate < 9.95 ? rate.toFixed(1) : Math.round(rate)} tok/s`;
const SPREADS = {
  first_token: { title: "First token", unit: duration, log: true },
  rate: { title: "Rate while decoding", unit: perSecond, log: false },
};
const PERCENTILES = {
  first_token: ["first_token_latency_p50_ms", "first_token_latency_p95_ms"],
  rate: ["decode_tokens_per_second_p50", "decode_tokens_per_second_p95"],
};
/** What the models can be ordered by; those of which it is not known come last. */
const ORDERS = {
  "most used": (model) => -model.call_count,
  "fastest first token": (model) => model.first_token_latency_p50_ms,
  "fastest rate": (model) => model.decode_tokens_per_second_p50 && -model.decode_tokens_per_second_p50,
  "most stalls": (model) => -(model.stall_count ?? 0),
};

class TapeModels extends TapeElement {
  async build() {
    const plain = [...this.children];
    const { models } = await ask(this, "/models", { all: this.dataset.all === "1" });
    if (!models.length) return plain;
    this.shown = models.map((model) => ({ model, element: this.#card(model) }));
    this.list = make("ul", { class: "models-list" });
    this.count = make("p", { class: "tl-count", role: "status" });
    this.order = make("select", { onchange: () => this.#show() }, ...Object.keys(ORDERS).map((name) => new Option(name)));
    this.search = make("input", { type: "search", maxLength: 200, oninput: () => this.#show() });
    this.#show();
    const tools = make(
      "form",
      { class: "filters", role: "search", "aria-label": "Models", onsubmit: (event) => event.preventDefault() },
      make("label", {}, "Name ", this.search),
      make("label", {}, "Order ", this.order),
      this.count,
    );
    const stalled = this.#stalled(models);
    return [tools, this.list, ...(stalled ? [stalled] : []), make("h3", {}, "As tables"), ...plain];
  }

  #link(...steps) {
    const { pages, query } = this.dataset;
    return `${[pages, ...steps.map(encodeURIComponent)].join("/")}${query ? `?${query}` : ""}`;
  }

  #show() {
    const wanted = this.search.value.trim().toLowerCase();
    const by = ORDERS[this.order.value];
    const key = ({ model }) => by(model) ?? Infinity;
    const found = this.shown.filter(({ model }) => nameOf(model).toLowerCase().includes(wanted));
    found.sort((a, b) => (key(a) === key(b) ? 0 : key(a) - key(b)));
    this.list.replaceChildren(...found.map(({ element }) => element));
    say(this.count, found.length < this.shown.length ? `${found.length} of ${plural(this.shown.length, "model")} shown` : "");
  }

  #card(model) {
    const facts = [plural(model.call_count, "call")];
    if (model.failed_count) facts.push(`${model.failed_count} failed`);
    if (model.running_count) facts.push(`${model.running_count} running`);
    facts.push(model.stall_count ? plural(model.stall_count, "stall") : "no stall");
    const head = make("div", { class: "model-head" }, make("h3", {}, make("bdi", {}, nameOf(model))));
    head.append(make("p", {}, [model.provider, ...facts].filter(Boolean).join(" · ")));
    return make("li", {}, head, ...Object.keys(SPREADS).map((name) => spread(model, name)));
  }

  /** The calls that stalled most, of all models, with bars as long as what their stalls took more than usual. */
  #stalled(models) {
    const calls = models.flatMap((model) => model.most_stalled.map((call) => ({ ...call, model: nameOf(model) })));
    calls.sort((a, b) => (b.stall_excess_ms ?? 0) - (a.stall_excess_ms ?? 0));
    if (!calls.length) return null;
    const most = Math.max(1, calls[0].stall_excess_ms ?? 0);
    const rows = calls.slice(0, 10).map((call) => {
      const link = make("a", { href: this.#link("calls", call.uid) }, make("bdi", {}, call.name));
      const bar = make("span", { class: "stalled-bar", "aria-hidden": "true" });
      bar.style.width = `${(100 * (call.stall_excess_ms ?? 0)) / most}%`;
      const words = `${plural(call.stall_count, "stall")}, ${duration(call.stall_excess_ms ?? 0)} longer than usual`;
      return make("li", {}, link, make("bdi", { class: "tl-note" }, call.model), make("span", { class: "stalled-track" }, bar), words);
    });
    return make("div", {}, make("h3", {}, "Calls that stalled most"), make("ol", { class: "stalled-list" }, ...rows));
  }
}

const nameOf = ({ model }) => model ?? "not known";

/** A distribution: bars, median and p95; what is under the pointer, or under , and . is said below. */
function spread(model, name) {
  const { title, unit, log } = SPREADS[name];
  const { edges, counts } = model[`${name}_histogram`];
  const [median, p95] = PERCENTILES[name].map((column) => model[column]);
  const summary = median == null ? `${title}: not known` : `${title}: median ${unit(median)}, p95 ${unit(p95)}`;
  const box = make("div", { class: "spread" });
  const line = make("p", {}, summary);
  if (!counts.length || median == null) {
    box.append(line);
    return box;
  }
  let at = -1;
  const place = (value, width) => {
    const [low, high, here] = [edges[0], edges.at(-1), value].map((one) => (log ? Math.log(Math.max(one, 1e-3)) : one));
    return high > low ? Math.min(width, Math.max(0, ((here - low) / (high - low)) * width)) : width / 2;
  };
  const { canvas, redraw } = sketch(`${summary}; ${plural(counts.reduce((a, b) => a + b), "call")}`, HEIGHT, (context, width, colour) => {
    const most = Math.max(...counts);
    counts.forEach((count, i) => {
      const [left, right] = [place(edges[i], width), place(edges[i + 1], width)];
      const high = count ? Math.max(2, (count / most) * (BASE - TOP)) : 0;
      context.fillStyle = colour(i === at ? "--accent" : "--rate-2");
      context.fillRect(left + 0.5, BASE - high, Math.max(1, right - left - 1), high);
    });
    context.fillStyle = colour("--line");
    context.fillRect(0, BASE, width, 1);
    drawMarks(context, colour, width, place(median, width), place(p95, width));
    context.fillStyle = colour("--soft");
    context.textAlign = "left";
    context.fillText(unit(edges[0]), 0, BASE + 15);
    context.textAlign = "right";
    context.fillText(unit(edges.at(-1)), width, BASE + 15);
  });
  canvas.tabIndex = 0;
  const point = (bin) => {
    at = bin;
    say(line, bin < 0 ? summary : `${unit(edges[bin])} to ${unit(edges[bin + 1])}: ${plural(counts[bin], "call")}`);
    redraw();
  };
  canvas.addEventListener("pointermove", ({ clientX }) => {
    const { left, width } = canvas.getBoundingClientRect();
    point(counts.findLastIndex((_, i) => place(edges[i], width) <= clientX - left));
  });
  canvas.addEventListener("pointerleave", () => point(-1));
  canvas.addEventListener("blur", () => point(-1));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    point(Math.min(counts.length - 1, Math.max(0, at < 0 && by < 0 ? counts.length - 1 : at + by)));
  });
  line.setAttribute("role", "status");
  box.append(canvas, line);
  return box;
}

/** Lines at median and p95 with their names, which are one where they would meet. */
function drawMarks(context, colour, width, median, p95) {
  const line = (x, name, fill) => {
    context.fillStyle = fill;
    context.fillRect(Math.min(Math.round(x), width - 1), TOP - 2, 1, BASE - TOP + 2);
    const wide = context.measureText(name).width;
    context.textAlign = "left";
    context.fillText(name, Math.min(Math.max(0, x - wide / 2), width - wide), TOP - 4);
  };
  const meet = p95 - median < 40;
  line(median, meet ? "p50, p95" : "p50", colour("--ink"));
  line(p95, meet ? "" : "p95", colour("--ink"));
}

customElements.define("tape-models", TapeModels);
