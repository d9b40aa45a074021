/** How long the gaps between events were: a histogram with its percentiles. */

import { nice, sketch } from "./draw.js";
import { make, say, TapeElement } from "./element.js";
import { callOf } from "./events.js";
import { brief, duration, plural } from "./format.js";

const HEIGHT = 150;
const TOP = 44;
const BOTTOM = 20;
const BARS = 20;

/** Milliseconds between arrivals, sorted; events of one chunk are one arrival, and each choice has gaps of its own. */
export function gapsOf(call) {
  /** @type {Map<number, number>} the last arrival of each choice */
  const last = new Map();
  const gaps = [];
  for (let row = 0; row < call.count; row++) {
    const { choice } = call.parts[call.part[row]];
    const before = last.get(choice);
    const sameChunk = row > 0 && call.at[row] === call.at[row - 1] && !call.wait[row];
    if (before !== undefined && !(sameChunk && before === call.at[row])) gaps.push(call.at[row] - before);
    last.set(choice, call.at[row]);
  }
  return Float64Array.from(gaps).sort();
}

/** A percentile of sorted values, between the two nearest as numpy does it. @param {number} share 0 to 1 */
export function percentile(sorted, share) {
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

/** Counts in equal bars from 0 to beyond what is usual; what is longer is counted apart. */
export function histogram(sorted) {
  const usual = Math.max(3 * percentile(sorted, 0.5), 1.5 * percentile(sorted, 0.95));
  const width = nice(Math.min(usual, sorted[sorted.length - 1]) / BARS);
  const counts = new Array(BARS).fill(0);
  let longer = 0;
  for (const gap of sorted) {
    const bar = Math.floor(gap / width);
    if (bar < BARS) counts[bar]++;
    else longer++;
  }
  return { width, counts, longer };
}

class TapeGaps extends TapeElement {
  purpose = "The histogram of gaps";

  async build() {
    const call = await callOf(this, this.dataset.call);
    const picture = sketch("", HEIGHT, (...given) => this.#draw(...given));
    this.note = make("p", { class: "soft gaps-note" });
    const changed = () => {
      this.gaps = gapsOf(call);
      this.#measure();
      picture.canvas.hidden = !this.gaps.length;
      picture.canvas.setAttribute("aria-label", `Gaps between events: ${this.marks.map(({ label }) => label).join(", ")}`);
      say(this.note, this.#words());
      picture.redraw();
    };
    let soon = 0;
    call.addEventListener("grow", () => {
      soon ||= setTimeout(() => ((soon = 0), changed()), 1000);
    });
    call.addEventListener("finish", changed);
    changed();
    return [picture.canvas, this.note];
  }

  #measure() {
    const { gaps } = this;
    this.bars = gaps.length ? histogram(gaps) : null;
    this.marks = gaps.length
      ? [50, 95, 99].map((share) => {
          const ms = percentile(gaps, share / 100);
          return { ms, label: `p${share} ${duration(ms)}` };
        })
      : [];
  }

  #words() {
    const { gaps, bars } = this;
    if (!bars) return "There is no gap: fewer than two events came.";
    const longest = `longest ${duration(gaps[gaps.length - 1])}`;
    if (!bars.longer) return `${plural(gaps.length, "gap")}, ${longest}`;
    return `${plural(gaps.length, "gap")}, ${bars.longer} over ${duration(bars.width * BARS)}, ${longest}`;
  }

  #draw(context, width, height, colour) {
    if (!this.bars) return;
    const { counts, longer, width: each } = this.bars;
    const base = height - BOTTOM;
    const columns = BARS + 2;
    const wide = width / columns;
    const most = Math.max(...counts, longer);
    const tall = (count) => (count ? Math.max(1.5, (count / most) * (base - TOP)) : 0);
    context.fillStyle = colour("--rate-2");
    counts.forEach((count, bar) => context.fillRect(bar * wide, base - tall(count), wide - 2, tall(count)));
    context.fillStyle = colour("--wait");
    context.fillRect((BARS + 1) * wide, base - tall(longer), wide - 1, tall(longer));
    context.fillStyle = colour("--line");
    context.fillRect(0, base, BARS * wide, 1);
    context.fillRect((BARS + 1) * wide, base, wide, 1);
    context.fillStyle = colour("--soft");
    for (const share of [0, 0.25, 0.5, 0.75]) {
      const words = brief(share * BARS * each);
      context.textAlign = share ? "center" : "left";
      context.fillText(share ? words : "0", share * BARS * wide, base + 15);
    }
    context.textAlign = "right";
    context.fillText(`over ${duration(BARS * each)}`, width, base + 15);
    this.#drawMarks(context, { each, wide, base, width, colour });
  }

  #drawMarks(context, { each, wide, base, width, colour }) {
    context.textAlign = "left";
    this.marks.forEach(({ ms, label }, row) => {
      const x = Math.min((ms / each) * wide, (BARS + 1.5) * wide);
      const y = 11 + 13 * row;
      context.fillStyle = colour("--ink");
      for (let dot = y + 3; dot < base; dot += 4) context.fillRect(Math.round(x), dot, 1, 2);
      const room = context.measureText(label).width;
      context.fillText(label, Math.min(x + 4, width - room), y);
    });
  }
}

customElements.define("tape-gaps", TapeGaps);
