/** A stream on the clock: one mark an event, silences hatched by their cause, and words where there is room. */

import { CAUSE_COLOURS, KIND_COLOURS, axis, nice, silence, sketch, ticks } from "./draw.js";
import { calm } from "./element.js";
import { CAUSES, MARKS, duration } from "./format.js";

/** Room at the right for the mark of how the call ended. */
const END = 16;

/** From how many events in one pixel on it is shaded by how many there are. */
const CROWD = 3;
const SHADES = [0.3, 0.5, 0.75, 1];

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
 * @returns {boolean} whether somewhere several events share a pixel
 */
export function drawStream(context, call, { scale, y, height, colour }) {
  for (const { start_ms, end_ms, cause, position } of silencesOf(call)) {
    const [left, right] = [scale(start_ms), scale(end_ms)];
    const inset = position === "first" ? 0 : height / 4;
    if (right - left > 1.5) silence(context, left, y + inset, right - left, height - 2 * inset, cause, colour);
  }
  const ratio = devicePixelRatio;
  const columns = new Map();
  let most = 0;
  for (let row = 0; row < call.count; row++) {
    const x = Math.round(scale(call.at[row]) * ratio);
    const kind = call.parts[call.part[row]].kind;
    let column = columns.get(x);
    if (!column) columns.set(x, (column = { kind, events: 0 }));
    column.events++;
    most = Math.max(most, column.events);
  }
  const colours = Object.fromEntries(Object.entries(KIND_COLOURS).map(([kind, name]) => [kind, colour(name)]));
  const crowded = most > CROWD;
  for (const [x, { kind, events }] of columns) {
    context.fillStyle = colours[kind] ?? colours.text;
    if (crowded) context.globalAlpha = SHADES[Math.ceil((SHADES.length * events) / most) - 1];
    context.fillRect(x / ratio, y, crowded ? 1 / ratio : Math.ceil(1.4 * ratio) / ratio, height);
  }
  context.globalAlpha = 1;
  drawEnd(context, call, { x: scale(call.durationMs), y: y + height / 2, colour });
  return crowded;
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
  let drawn = null;
  const still = (context, width, scale, colour) => {
    if (labels) axis(context, colour, ticks(span(), width - END), scale, top + band + 3, width);
    drawStream(context, call, { scale, y: top, height: band, colour });
    if (labels) drawLabels(context, markersOf(call), { scale, y: top, width, colour });
  };
  const { canvas, redraw } = sketch("", height, (context, width, _, colour) => {
    const scale = (ms) => (ms / span()) * (width - END);
    const { width: across, height: down } = context.canvas;
    // What does not move with the head is drawn once, and copied.
    const look = [across, down, colour("--card"), colour("--ink"), span()].join();
    if (drawn?.look !== look) {
      const copy = new OffscreenCanvas(across, down);
      const to = /** @type {any} */ (copy.getContext("2d"));
      to.setTransform(context.getTransform());
      to.font = context.font;
      still(to, width, scale, colour);
      drawn = { look, copy };
    }
    context.drawImage(drawn.copy, 0, 0, width, height);
    const { time, count, playing } = player;
    const x = scale(calm() && playing && count ? player.track.at[count - 1] : time);
    context.fillStyle = colour("--ink");
    context.fillRect(x - 0.75, top - 5, 1.5, band + 10);
    context.beginPath();
    context.arc(x, top + band + 5, 4, 0, 7);
    context.fill();
  });
  canvas.classList.add("tape-canvas");
  const changed = () => {
    drawn = null;
    redraw();
  };
  player.addEventListener("move", redraw);
  call.addEventListener("grow", changed);
  call.addEventListener("finish", changed);
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
