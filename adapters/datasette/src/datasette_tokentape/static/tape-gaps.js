/** How long the gaps between events were, as a histogram. */

import { CallElement } from "./call-element.js";
import { nice, sketch } from "./draw.js";
import { make, say } from "./element.js";
import { brief, duration, plural } from "./format.js";

const HEIGHT = 150;
const TOP = 44;
const BASE = HEIGHT - 20;
const BARS = 20;
const MARKS = [50, 95, 99];

/** Milliseconds between chunks, sorted; each choice has its own. */
export function gapsOf(call) {
  const last = new Map();
  const gaps = [];
  for (let row = 0; row < call.count; row++) {
    if (call.isAfterHole(row)) last.clear();
    const { choice } = call.parts[call.part[row]];
    const before = last.get(choice);
    const now = call.at[row];
    if (before !== undefined && (before !== now || call.wait[row])) gaps.push(now - before);
    last.set(choice, now);
  }
  return Float64Array.from(gaps).sort();
}

/** A percentile of sorted values, between the two nearest. */
export function percentile(sorted, percent) {
  const at = ((sorted.length - 1) * percent) / 100;
  const low = sorted[Math.floor(at)];
  return low + (sorted[Math.ceil(at)] - low) * (at % 1);
}

/** Counts in equal bars up to beyond what is usual; the rest is counted apart. */
export function histogram(sorted) {
  const usual = Math.max(3 * percentile(sorted, 50), 1.5 * percentile(sorted, 95));
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

class TapeGaps extends CallElement {
  made() {
    this.note = make("p", { class: "gaps-note" });
    this.picture = sketch("", HEIGHT, (...given) => this.#draw(...given));
    return [this.picture.canvas, this.note];
  }

  changed() {
    const gaps = gapsOf(this.call);
    const { canvas, redraw } = this.picture;
    canvas.style.display = gaps.length ? "block" : "none";
    if (!gaps.length) return say(this.note, "There is no gap: fewer than two events came.");
    this.bars = histogram(gaps);
    this.marks = MARKS.map((percent) => {
      const ms = percentile(gaps, percent);
      return { ms, label: `p${percent} ${duration(ms)}` };
    });
    canvas.setAttribute("aria-label", `Gaps between events: ${this.marks.map(({ label }) => label).join(", ")}`);
    say(this.note, `${plural(gaps.length, "gap")}, longest ${duration(gaps[gaps.length - 1])}`);
    redraw();
  }

  #draw(context, width, colour) {
    if (!this.bars) return;
    const { counts, longer, width: each } = this.bars;
    const wide = width / (BARS + 2);
    const most = Math.max(...counts, longer);
    const bar = (at, count) => {
      const tall = count ? Math.max(1.5, (count / most) * (BASE - TOP)) : 0;
      context.fillRect(at * wide, BASE - tall, wide - 2, tall);
    };
    context.fillStyle = colour("--rate-2");
    counts.forEach((count, at) => bar(at, count));
    context.fillStyle = colour("--wait");
    bar(BARS + 1, longer);
    context.fillStyle = colour("--line");
    context.fillRect(0, BASE, BARS * wide, 1);
    context.fillRect((BARS + 1) * wide, BASE, wide, 1);
    context.fillStyle = colour("--soft");
    context.textAlign = "left";
    for (let at = 0; at < BARS; at += BARS / 4) context.fillText(at ? brief(at * each) : "0", at * wide, BASE + 15);
    context.textAlign = "right";
    context.fillText(`over ${duration(BARS * each)}`, width, BASE + 15);
    context.fillStyle = colour("--ink");
    context.textAlign = "left";
    this.marks.forEach(({ ms, label }, row) => {
      const x = Math.min((ms / each) * wide, (BARS + 1.5) * wide);
      const y = 11 + 13 * row;
      for (let dot = y + 3; dot < BASE; dot += 4) context.fillRect(Math.round(x), dot, 1, 2);
      context.fillText(label, Math.min(x + 4, width - context.measureText(label).width), y);
    });
  }
}

customElements.define("tape-gaps", TapeGaps);
