/** Bars on a canvas: a row each, on a view of time. */

import { CAUSE_COLOURS, nice, silence } from "./draw.js";
import { MARKS } from "./format.js";

export const RATES = ["--rate-0", "--rate-1", "--rate-2", "--rate-3"];
/** Room at the right for how a call ended. */
const END = 18;
const STATUS_COLOURS = { running: "--accent", error: "--bad", cancelled: "--own", abandoned: "--own", lost: "--own" };

/** Where a moment is on a canvas of this width, and back. */
export const scaleOf = (view, width) => {
  const [across, span] = [Math.max(1, width - END), view.to - view.from];
  return { x: (ms) => ((ms - view.from) / span) * across, ms: (x) => view.from + (x / across) * span, across };
};

/** Round moments in a view, about `room` pixels apart. */
function* ticks(view, across, room) {
  const step = nice(((view.to - view.from) * room) / across);
  for (let at = Math.ceil(view.from / step - 1e-6) * step; at <= view.to; at += step) yield { at, step };
}

function tickLabel(at, step, clock) {
  if (clock === undefined) {
    if (step < 100) return `${Math.round(at)} ms`;
    return `${(at / 1000).toFixed(step < 1000 && at ? 1 : 0)} s`;
  }
  const [day, time] = new Date(clock + at).toISOString().split("T");
  if (step >= 86_400_000) return day;
  return step < 1000 ? time.slice(0, 12) : time.slice(0, 8);
}

/** The axis; `clock` is the time of day, in ms, at which it begins. */
export function drawAxis(context, width, colour, view, clock) {
  const { x, across } = scaleOf(view, width);
  context.fillStyle = colour("--soft");
  context.textAlign = "left";
  for (const { at, step } of ticks(view, across, clock === undefined ? 80 : 110)) {
    const label = tickLabel(at, step, clock);
    context.fillRect(Math.round(x(at)), 16, 1, 8);
    if (x(at) + 3 + context.measureText(label).width <= width) context.fillText(label, x(at) + 3, 13);
  }
}

/** Lines below the axis. */
export function drawGrid(context, width, height, colour, view, clock) {
  const { x, across } = scaleOf(view, width);
  context.fillStyle = colour("--line");
  for (const { at } of ticks(view, across, clock === undefined ? 80 : 110)) context.fillRect(Math.round(x(at)), 0, 1, height);
}

/** Which of the four shades a rate has. */
const levelOf = (rate, levels) => levels.filter((level) => rate >= level).length;

/** A row's bar: from `top`, `height` pixels high, with words above it where there is room for them. */
export function drawRow(context, row, { width, top, height, colour, view, levels, now, words }) {
  const { x, across } = scaleOf(view, width);
  const [left, right] = [x(row.start), x(row.end ?? now)];
  if (right < 0 || left > across) return;
  context.save();
  context.beginPath();
  context.rect(0, top - 16, width, height + 20);
  context.clip();
  if (row.kind === "mark") drawMark(context, left, right, top, height, colour);
  else drawStream(context, row, { x, left, right, top, height, colour, levels, now });
  if (words) drawWords(context, row, { x, across, top, colour });
  if (row.status && row.status !== "completed") {
    context.fillStyle = colour(STATUS_COLOURS[row.status] ?? "--soft");
    context.font = "bold 14px system-ui, 'DejaVu Sans', sans-serif";
    context.fillText(MARKS[row.status], Math.max(right, left + 2) + 3, top + height / 2 + 5);
  }
  context.restore();
}

function drawMark(context, left, right, top, height, colour) {
  context.fillStyle = colour("--mark");
  context.globalAlpha = 0.55;
  context.beginPath();
  context.roundRect(left, top + 3, Math.max(3, right - left), height - 6, (height - 6) / 2);
  context.fill();
  context.globalAlpha = 1;
}

function drawStream(context, row, { x, left, right, top, height, colour, levels, now }) {
  context.fillStyle = colour("--edge");
  context.fillRect(left, top + height / 2, Math.max(1, right - left), 1);
  for (const { start, end, cause, first } of row.silences) {
    const [from, to] = [x(start), x(end ?? now)];
    if (to - from < 1 || to < 0 || from > context.canvas.width) continue;
    const inset = first ? 0 : height / 4;
    context.fillStyle = colour("--card");
    context.fillRect(from, top, to - from, height);
    // What is far outside of the view needs no strokes.
    const [a, b] = [Math.max(from, -9), Math.min(to, context.canvas.width + 9)];
    silence(context, a, top + inset, b - a, height - 2 * inset, cause, colour);
  }
  for (const { start, end, rate } of row.pieces) {
    const from = x(start);
    context.fillStyle = colour(RATES[levelOf(rate, levels ?? [])]);
    context.fillRect(from, top, Math.max(1.5, x(end) - from), height);
  }
  context.strokeStyle = colour("--edge");
  context.lineWidth = 1;
  if (row.status === "lost") context.setLineDash([3, 3]);
  context.strokeRect(Math.round(left) + 0.5, top + 0.5, Math.max(2, Math.round(right - left) - 1), height - 1);
  context.setLineDash([]);
}

function drawWords(context, row, { x, across, top, colour }) {
  let taken = -Infinity;
  context.textAlign = "left";
  for (const { start, end, short, first, cause } of row.silences) {
    if (first || !short) continue;
    const [from, to] = [x(start), x(end)];
    const wide = context.measureText(short).width;
    const at = Math.min(Math.max(0, (from + to - wide) / 2), across - wide);
    if (to < 0 || from > across || at < taken || (to - from < 8 && wide > 3 * (to - from) + 60)) continue;
    context.fillStyle = colour(cause === "upstream" ? "--soft" : CAUSE_COLOURS[cause]);
    context.fillText(short, at, top - 4);
    taken = at + wide + 8;
  }
}
