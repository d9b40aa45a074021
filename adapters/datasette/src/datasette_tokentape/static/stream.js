/** A stream on the clock: one mark an event, silences hatched by their cause. */

import { axis, CAUSE_COLOURS, KIND_COLOURS, nice, silence, sketch, still } from "./draw.js";
import { calm } from "./element.js";
import { CAUSES, duration, MARKS } from "./format.js";

/** Room at the right for the mark of how the call ended. */
const END = 16;
/** From how many events in the usual pixel on pixels are shaded. */
const CROWD = 2;
/** What is worth jumping to in a call, in the order it came. */
export function markersOf(call) {
  const found = [];
  const add = (row, label, kind) => found.push({ ms: call.at[row], end_ms: call.at[row], label, kind });
  const answer = call.answerRow;
  if (call.count) add(0, answer ? "first token (thinking)" : "first token", "first");
  if (answer > 0 && answer < Infinity) add(answer, "answer", "answer");
  for (const { start_ms: ms, end_ms, gap_ms, cause, position } of call.stalls) {
    const label = `${duration(gap_ms)} ${CAUSES[cause]}`;
    if (position !== "first") found.push({ ms, label, kind: "stall", end_ms, cause });
  }
  return found.sort((a, b) => a.ms - b.ms);
}

/** Stalls among markers, longest first. */
export const stallsIn = (markers) =>
  markers.filter(({ kind }) => kind === "stall").sort((a, b) => b.end_ms - b.ms - (a.end_ms - a.ms));

/** The wait for the first event, and the stalls. */
export function silencesOf(call) {
  const { stalls, count, info } = call;
  if (count ? stalls[0]?.position === "first" : stalls.length) return stalls;
  const end_ms = count ? call.at[0] : (info.first_token_latency_ms ?? call.durationMs);
  const waited = count ? call.wait[0] / end_ms : 1;
  const cause = waited > 0.5 ? "upstream" : waited ? "own" : "unknown";
  return [{ start_ms: 0, end_ms, gap_ms: end_ms, cause, position: "first" }, ...stalls];
}

function drawStream(context, call, { scale, y, height, colour }) {
  for (const { start_ms, end_ms, cause, position } of silencesOf(call)) {
    const [left, right] = [scale(start_ms), scale(end_ms)];
    const inset = position === "first" ? 0 : height / 4;
    if (right - left > 1.5) silence(context, left, y + inset, right - left, height - 2 * inset, cause, colour);
  }
  const ratio = devicePixelRatio;
  const columns = new Map();
  for (let row = 0; row < call.count; row++) {
    const x = Math.round(scale(call.at[row]) * ratio);
    const column = columns.get(x);
    if (column) column.events++;
    else columns.set(x, { kind: call.kindOf(row), events: 1 });
  }
  const events = Float64Array.from(columns.values(), (column) => column.events).sort();
  const most = events[Math.floor(events.length * 0.95)];
  const crowded = events[events.length >> 1] >= CROWD;
  for (const [x, column] of columns) {
    context.fillStyle = colour(KIND_COLOURS[column.kind]);
    // Where pixels usually hold several events a darker one holds more.
    if (crowded) context.globalAlpha = 0.35 + 0.65 * Math.min(1, column.events / most);
    context.fillRect(x / ratio, y, crowded ? 1 / ratio : Math.ceil(1.4 * ratio) / ratio, height);
  }
  context.globalAlpha = 1;
  if (call.status === "completed") return;
  context.fillStyle = colour({ running: "--accent", error: "--bad" }[call.status] ?? "--soft");
  context.textAlign = "left";
  context.fillText(MARKS[call.status], scale(call.durationMs) + 4, y + height / 2 + 4);
}

/** Labels in two rows above `y`, where there is room. */
function drawLabels(context, markers, { scale, y, width, colour }) {
  const rows = [[], []];
  const place = (text, from) => {
    const to = from + context.measureText(text).width;
    if (from < 0 || to > width) return false;
    const row = rows.findIndex((taken) => taken.every(([a, b]) => to + 8 < a || from - 8 > b));
    if (row >= 0) context.fillText(text, from, y - 5 - 14 * row);
    return row >= 0 && rows[row].push([from, to]);
  };
  const centred = (text, x) => place(text, Math.max(0, Math.min(x, width) - context.measureText(text).width / 2));
  context.textAlign = "left";
  for (const { ms, label, kind } of markers) {
    if (kind === "stall") continue;
    const x = scale(ms);
    context.fillStyle = colour("--accent");
    context.fill(new Path2D(`M${x} ${y - 2}l-4-7h8z`));
    context.fillStyle = colour("--soft");
    place(label, x + 7) || place(label, x - 7 - context.measureText(label).width);
  }
  for (const { ms, end_ms, label, cause } of stallsIn(markers).slice(0, 40)) {
    context.fillStyle = colour(cause === "upstream" ? "--soft" : CAUSE_COLOURS[cause]);
    const middle = scale((ms + end_ms) / 2);
    centred(label, middle) || centred(duration(end_ms - ms), middle);
  }
}

/** How much time a picture spans: more than has passed while it runs. */
export const spanOf = ({ durationMs, running }) => Math.max(1, running ? nice(durationMs * 1.1) : durationMs);

/** A stream on a canvas, with a head that a pointer moves; `words`: with axis and labels. */
export function streamPicture(call, player, { top, band, height, words }) {
  const { track } = player;
  const scaleOf = (width) => (ms) => (ms / spanOf(track)) * (width - END);
  const stays = still((context, width, colour) => {
    const scale = scaleOf(width);
    drawStream(context, call, { scale, y: top, height: band, colour });
    if (!words) return;
    axis(context, colour, { ms: spanOf(track), width: width - END, y: top + band + 3 });
    drawLabels(context, markersOf(call), { scale, y: top, width, colour });
  });
  const headAt = (width) => scaleOf(width)(calm() && player.playing ? (track.at[player.count - 1] ?? 0) : player.time);
  let head = -1;
  const { canvas, redraw } = sketch("", height, (context, width, colour) => {
    stays(context, width, colour, [call.count, call.status, spanOf(track)]);
    head = headAt(width);
    context.fillStyle = colour("--ink");
    context.fillRect(head - 0.75, top - 5, 1.5, band + 10);
    context.beginPath();
    context.arc(head, top + band + 5, 4, 0, 7);
    context.fill();
  });
  canvas.classList.add("tape-canvas");
  player.addEventListener("move", () => {
    const ratio = devicePixelRatio;
    if (!player.playing || Math.abs(headAt(canvas.width / ratio) - head) * ratio > 0.5) redraw();
  });
  call.addEventListener("change", redraw);
  const momentAt = ({ clientX }) => {
    const { left, width } = canvas.getBoundingClientRect();
    return Math.min(Math.max(0, ((clientX - left) / (width - END)) * spanOf(track)), track.durationMs);
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
