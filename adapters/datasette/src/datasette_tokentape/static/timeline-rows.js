/** What a timeline shows, a row each: runs, or the calls of a run with those they made below them, and marks. */

import { CAUSES, duration, plural } from "./format.js";

/** A rate is not told from less time than this, and from fewer events only where they are all there are. */
const LEAST_MS = 1;
const FEW = 4;

/** How much came: tokens where their number is known, events otherwise. */
export function amount(call) {
  if (!call.counted) return "counted once, below";
  if (call.status === "running") return `running, ${plural(call.event_count, "event")}`;
  const { token_count: tokens, tokens_per_second: rate } = call;
  const [count, speed] =
    tokens == null
      ? [plural(call.event_count, "event"), call.events_per_second && `${call.events_per_second.toFixed(1)} events/s`]
      : [plural(tokens, "token"), rate && `${rate.toFixed(1)} tok/s`];
  if (call.status !== "completed") return `${count}, ${call.error_type ?? call.status}`;
  return speed ? `${count}, ${speed}` : count;
}

/** Calls and marks in the order they began; calls that another made stay behind it. */
export function rowsOfRun({ calls, marks }) {
  const groups = [...calls.map((call) => callsFrom(call, 0)), ...marks.map((mark, i) => [rowOfMark(mark, i)])];
  return groups.sort(([a], [b]) => a.start - b.start).flat();
}

function callsFrom(call, depth) {
  const row = rowOfCall(call, depth);
  const below = call.children.flatMap((child) => callsFrom(child, depth + 1));
  row.below = below.map(({ key }) => key);
  return [row, ...below];
}

function rowOfCall(call, depth) {
  const start = call.start_ms;
  const running = call.status === "running";
  const last = call.profile.at(-1)?.end_ms ?? start + (call.last_token_latency_ms ?? 0);
  const silences = call.stalls
    .filter(({ end_ms }) => end_ms !== null)
    .map(({ start_ms, end_ms, gap_ms, cause, position }) => ({
      start: start + start_ms,
      end: start + end_ms,
      words: `${duration(gap_ms)} ${CAUSES[cause]}`,
      short: `${duration(gap_ms)} ${cause === "upstream" ? "waiting" : CAUSES[cause]}`,
      cause,
      first: position === "first",
    }));
  const end = running ? null : call.duration_ms == null ? last : start + call.duration_ms;
  const row = { kind: "call", key: call.uid, name: call.name, depth, call, start, end, silences, status: call.status };
  row.pieces = piecesOf(call, silences);
  const first = call.first_token_latency_ms ?? (row.pieces.length ? row.pieces[0].start - start : null);
  row.first = first === null ? null : start + first;
  if (!silences.some((one) => one.first) && (first ?? 1) > 0) silences.unshift(firstWait(row));
  if (running && first !== null) silences.push({ start: last, end: null, words: "nothing since", cause: "unknown" });
  row.note = call.layer === "framework" ? call.adapter : (call.model ?? call.adapter);
  row.amount = amount(call);
  return row;
}

function firstWait({ start, first, end }) {
  const words = first === null ? "nothing came" : `${duration(first - start)} until the first token`;
  return { start, end: first ?? end, words, cause: "upstream", first: true };
}

/**
 * The time in which events came as pieces of one rate each, in events a second: from one event to the next that was
 * counted, without the stalls. Where events are not on the tape it is one piece.
 */
function piecesOf(call, silences) {
  const { profile, event_count: count, first_token_latency_ms: first, last_token_latency_ms: last } = call;
  if (!profile.length) {
    if (!count || first == null) return [];
    return [{ start: call.start_ms + first, end: call.start_ms + last, rate: (1000 * count) / Math.max(last - first, LEAST_MS) }];
  }
  const pieces = [];
  let from = profile[0].start_ms;
  let events = 0;
  profile.forEach((bin, i) => {
    events += bin.events;
    const isStalled = silences.some(({ start, end }) => start < bin.end_ms && end > from);
    if (events < FEW && !isStalled && i < profile.length - 1) return;
    const open = without(from, bin.end_ms, silences);
    const ms = open.reduce((sum, [start, end]) => sum + end - start, 0);
    const rate = (1000 * events) / Math.max(ms, LEAST_MS);
    for (const [start, end] of open) pieces.push({ start, end, rate });
    from = bin.end_ms;
    events = 0;
  });
  return pieces;
}

/** What is left of a stretch of time without the silences in it. */
function without(from, to, silences) {
  const left = [];
  for (const { start, end } of silences) {
    if (end === null || end <= from || start >= to) continue;
    if (start > from) left.push([from, start]);
    from = Math.min(to, end);
  }
  return [...left, [from, to]];
}

function rowOfMark({ kind, name, start_ms: start, duration_ms }, i) {
  const end = start + duration_ms;
  const silences = [];
  return { kind: "mark", key: `mark ${i}`, name, note: kind, depth: 0, start, end, pieces: [], silences, amount: duration(duration_ms) };
}

/** A run as a row; `counted` are its buckets, `began` is where it stands on the axis. */
export function rowOfRun(run, counted, began) {
  const end = run.duration_ms ?? (run.status === "running" ? null : (counted?.end_ms ?? 0));
  const row = { kind: "run", key: run.uid, name: run.name, depth: 0, run, start: began, status: run.status, pieces: [], silences: [] };
  row.end = end === null ? null : began + end;
  for (const { start_ms, events, calls } of counted?.buckets ?? []) {
    if (!calls) continue;
    const [start, until] = [began + start_ms, began + Math.min(start_ms + counted.bucket_ms, end ?? Infinity)];
    if (events) row.pieces.push({ start, end: until, rate: (1000 * events) / counted.bucket_ms });
    else if (start - row.silences.at(-1)?.end < LEAST_MS) row.silences.at(-1).end = until;
    else row.silences.push({ start, end: until, words: "a call open, nothing came", cause: "upstream", first: true });
  }
  row.note = run.started_at.slice(0, 19).replace("T", " ");
  row.amount = amountOfRun(run);
  return row;
}

function amountOfRun(run) {
  const words = [plural(run.call_count, "call")];
  if (run.failed_count) words.push(`${run.failed_count} failed`);
  if (run.running_count) words.push(`${run.running_count} running`);
  if (run.stall_count) words.push(plural(run.stall_count, "stall"));
  return words.join(", ");
}

/** A row in words, for who does not see its bar: when, how long, what it waited for. */
export function about(row) {
  const words = row.kind === "run" ? [`began ${row.note} UTC`] : [`began after ${duration(row.start)}`];
  if (row.end !== null) words.push(`took ${duration(row.end - row.start)}`);
  if (row.kind === "call") {
    if (row.first !== null) words.push(`first token after ${duration(row.first - row.start)}`);
    for (const one of row.silences) if (!one.first && one.end !== null) words.push(`${one.words} at ${duration(one.start)}`);
  }
  if (row.run?.slowest_first_token_ms != null) words.push(`slowest first token ${duration(row.run.slowest_first_token_ms)}`);
  if (row.run?.models.length) words.push(row.run.models.join(", "));
  return words.join("; ");
}

/** What there is in a row at a moment. */
export function wordsAt(row, ms, now) {
  const end = row.end ?? now;
  if (ms < row.start || ms > end) return "";
  if (row.kind === "mark") return `${row.note} ${row.name}, ${row.amount}`;
  const silence = row.silences.find(({ start, end: until }) => start <= ms && ms < (until ?? now));
  if (silence) return silence.words;
  const piece = row.pieces.find(({ start, end: until }) => start <= ms && ms <= until);
  if (piece) return `${piece.rate.toFixed(1)} events/s`;
  return row.kind === "run" ? "no call open" : "nothing came";
}

/** Three rates between slow and fast: fractions of the usual one, of all pieces that are shown. */
export function levelsOf(rows) {
  const rates = Float64Array.from(rows.flatMap(({ pieces }) => pieces.map(({ rate }) => rate))).sort();
  const usual = rates[rates.length >> 1];
  return usual ? [0.35, 0.75, 1.5].map((share) => Number((usual * share).toPrecision(2))) : null;
}
