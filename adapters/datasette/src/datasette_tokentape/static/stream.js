/** A stream on the clock: one mark an event, silences hatched by their cause, and words where there is room. */

import { CAUSE_COLOURS, KIND_COLOURS, axis, kept, nice, silence, sketch, ticks } from "./draw.js";
import { calm } from "./element.js";
import { CAUSES, MARKS, duration } from "./format.js";

/** Room at the right for the mark of how the call ended. */
const END = 16;

/** From how many events on, in the usual pixel, pixels are shaded by how many there are. */
const CROWD = 2;

/** @typedef {import("./events.js").Call} Call */
/** @typedef {{ms: number, label: string, kind: "first"|"answer"|"stall", end_ms?: number, cause?: string}} Marker */

/** What is worth jumping to in a call, in the order it came. @param {Call} call @returns {Marker[]} */
export function markersOf(call) {
  /** @type {Marker[]} */
  const found = [];
  const answer = call.answerRow;
  if (call.count) {
    const thinking = answer !== 0;
    found.push({ ms: call.at[0], label: thinking ? "first token (thinking)" : "first token", kind: "first" });
    if (answer > 0) found.push({ ms: call.at[answer], label: "answer", kind: "answer" });
  }
  for (const { start_ms, end_ms, gap_ms, cause, position } of call.stalls) {
    const label = `${duration(gap_ms)} ${CAUSES[cause] ?? cause}`;
    if (position !== "first") found.push({ ms: start_ms, label, kind: "stall", end_ms, cause });
  }
  return found.sort((a, b) => a.ms - b.ms);
}

/** Silences to hatch: the wait for the first event, and the stalls. @param {Call} call */
export function silencesOf(call) {
  const stalls = call.stalls.map(({ start_ms, end_ms, cause, position }) => ({ start_ms, end_ms, cause, position }));
  const end_ms = call.count ? call.at[0] : call.durationMs;
  if (!stalls.some(({ position }) => position === "first" || !call.count)) {
    const waited = call.count ? call.wait[0] / end_ms : 1;
    const cause = waited >= 0.5 ? "upstream" : waited ? "own" : "unknown";
    stalls.unshift({ start_ms: 0, end_ms, cause, position: "first" });
  }
  return stalls;
}

/**
 * Draws silences and marks between `y` and `y + height`.
 * @param {CanvasRenderingContext2D} context
 * @param {Call} call
 * @param {{scale: (ms: number) => number, y: number, height: number, colour: (name: string) => string}} where
 */
export function drawStream(context, call, { scale, y, height, colour }) {
  for (const { start_ms, end_ms, cause, position } of silencesOf(call)) {
    const [left, right] = [scale(start_ms), scale(end_ms)];
    const inset = position === "first" ? 0 : height / 4;
    if (right - left > 1.5) silence(context, left, y + inset, right - left, height - 2 * inset, cause, colour);
  }
  const ratio = devicePixelRatio;
  /** @type {Map<number, {kind: string, events: number}>} by pixel */
  const columns = new Map();
  for (let row = 0; row < call.count; row++) {
    const x = Math.round(scale(call.at[row]) * ratio);
    const column = columns.get(x);
    if (column) column.events++;
    else columns.set(x, { kind: call.parts[call.part[row]].kind, events: 1 });
  }
  const crowd = Float64Array.from(columns.values(), ({ events }) => events).sort();
  const usual = crowd[crowd.length >> 1];
  const most = crowd[Math.floor(crowd.length * 0.95)];
  const colours = Object.fromEntries(Object.entries(KIND_COLOURS).map(([kind, name]) => [kind, colour(name)]));
  for (const [x, { kind, events }] of columns) {
    context.fillStyle = colours[kind] ?? colours.text;
    // Where pixels usually hold several events a darker one holds more; where they do not each mark is one event.
    if (usual >= CROWD) context.globalAlpha = 0.35 + 0.65 * Math.min(1, events / most);
    context.fillRect(x / ratio, y, usual >= CROWD ? 1 / ratio : Math.ceil(1.4 * ratio) / ratio, height);
  }
  context.globalAlpha = 1;
  drawEnd(context, call, { x: scale(call.durationMs), y: y + height / 2, colour });
}

/** The mark of how it ended, just behind the end. */
function drawEnd(context, call, { x, y, colour }) {
  if (call.status === "completed") return;
  context.fillStyle = colour(call.running ? "--accent" : call.status === "error" ? "--bad" : "--soft");
  context.textAlign = "left";
  context.fillText(MARKS[call.status] ?? "", x + 4, y + 4);
}

/**
 * Labels of markers in two rows that end above `y`, each only where there is room.
 * @param {CanvasRenderingContext2D} context
 * @param {Marker[]} markers
 * @param {{scale: (ms: number) => number, y: number, width: number, colour: (name: string) => string}} where
 */
export function drawLabels(context, markers, { scale, y, width, colour }) {
  /** @type {[number, number][][]} what is taken in each row */
  const rows = [[], []];
  const free = (row, from, to) => from >= 0 && to <= width && row.every(([a, b]) => to < a || from > b);
  const place = (text, x, centred) => {
    const wide = context.measureText(text).width;
    const from = centred ? Math.min(Math.max(0, x - wide / 2), width - wide) : x + 7;
    const row = rows.findIndex((taken) => free(taken, from - 4, from + wide + 4) || (!from && free(taken, 0, wide)));
    if (row < 0) return false;
    rows[row].push([from - 4, from + wide + 4]);
    context.fillText(text, from, y - 5 - 14 * row);
    return true;
  };
  context.textAlign = "left";
  for (const { ms, label, kind } of markers) {
    if (kind === "stall") continue;
    const x = scale(ms);
    context.fillStyle = colour("--accent");
    triangle(context, x, y);
    context.fillStyle = colour("--soft");
    place(label, x, false) || place(label, x - context.measureText(label).width - 14, false);
  }
  const stalls = markers.filter(({ kind }) => kind === "stall");
  stalls.sort((a, b) => b.end_ms - b.ms - (a.end_ms - a.ms));
  for (const { ms, end_ms, label, cause } of stalls.slice(0, 40)) {
    context.fillStyle = colour(cause === "own" || cause === "blocked" ? CAUSE_COLOURS[cause] : "--soft");
    const middle = scale((ms + end_ms) / 2);
    place(label, middle, true) || place(duration(end_ms - ms), middle, true);
  }
}

function triangle(context, x, y) {
  context.beginPath();
  context.moveTo(x, y - 2);
  context.lineTo(x - 4, y - 9);
  context.lineTo(x + 4, y - 9);
  context.fill();
}

/** How much time a picture of a stream spans: while it runs more than has passed, so that marks stay where they are. */
export const spanOf = (ms, running) => Math.max(running ? nice(ms * 1.1) : ms, 1);

/**
 * A stream on a canvas, with the head of its player.
 * @param {Call} call
 * @param {import("./player.js").Player} player its track may be longer than the call
 * @param {{top: number, band: number, height: number, labels: boolean}} size
 */
export function streamPicture(call, player, { top, band, height, labels }) {
  const span = () => spanOf(player.track.durationMs, player.track.running);
  const scaleOf = (width) => (ms) => (ms / span()) * (width - END);
  const still = kept((context, width, _, colour) => {
    const scale = scaleOf(width);
    if (labels) axis(context, colour, ticks(span(), width - END), scale, top + band + 3, width);
    drawStream(context, call, { scale, y: top, height: band, colour });
    if (labels) drawLabels(context, markersOf(call), { scale, y: top, width, colour });
  });
  const headAt = (width) => {
    const { time, count, playing, track } = player;
    return scaleOf(width)(calm() && playing && count ? track.at[count - 1] : time);
  };
  let shown = -1;
  const { canvas, redraw } = sketch("", height, (context, width, _, colour) => {
    still(context, width, height, colour, [call.count, call.status, span()]);
    const x = (shown = headAt(width));
    context.fillStyle = colour("--ink");
    context.fillRect(x - 0.75, top - 5, 1.5, band + 10);
    context.beginPath();
    context.arc(x, top + band + 5, 4, 0, 7);
    context.fill();
  });
  canvas.classList.add("tape-canvas");
  player.addEventListener("move", () => {
    const x = headAt(canvas.width / devicePixelRatio);
    if (Math.abs(x - shown) * devicePixelRatio > 0.5 || !player.playing) redraw();
  });
  call.addEventListener("grow", redraw);
  call.addEventListener("finish", redraw);
  /** The moment that a pointer is at. */
  const momentAt = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(((event.clientX - box.left) / Math.max(1, box.width - END)) * span(), player.track.durationMs);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    player.seek(momentAt(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) player.seek(momentAt(event));
  });
  return { canvas, momentAt };
}
