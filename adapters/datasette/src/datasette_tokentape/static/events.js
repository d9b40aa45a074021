/** A call's token events as columns, growing while it runs. */

import { ask } from "./ask.js";
import { printed } from "./format.js";

const PAGE = 100_000;
const POLL_MS = 250;
const PATIENCE_MS = 3_000;
/** Stand for an event without recorded text, and for events that were removed. */
const UNKNOWN = "▪";
const REMOVED = "…";

/** How many of the first `count` sorted values are not above a value. */
export function upTo(column, count, value) {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (column[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

function roomFor(column, size) {
  if (size <= column.length) return column;
  const wider = new column.constructor(Math.max(size, column.length * 2));
  wider.set(column);
  return wider;
}

/** A part with its text so far and the `size` rows of the call that it consists of. */
const newPart = (given, text = "") => ({ ...given, text, rows: new Uint32Array(64), size: 0 });

/**
 * A call; says `change` when events came and when it ended. Row i is the i-th event that is stored: `at` and `wait` are
 * milliseconds, `index` its token_index, `token` its text or null, `end` the length of its `part` with it.
 */
export class Call extends EventTarget {
  count = 0;
  at = new Float64Array(64);
  wait = new Float64Array(64);
  index = new Uint32Array(64);
  part = new Uint16Array(64);
  end = new Uint32Array(64);
  token = [];
  parts = [];
  /** Whether events have text. */
  hasText = true;

  constructor(info) {
    super();
    this.info = info;
    this.status = info.status;
    // By the server's clock: ours may differ.
    this.began = performance.now() - (info.running_for_ms ?? 0);
  }

  get running() {
    return this.status === "running";
  }

  /** From the start to the end, or to now while it runs. */
  get durationMs() {
    const last = this.count ? this.at[this.count - 1] : 0;
    return Math.max(last, this.running ? performance.now() - this.began : (this.info.duration_ms ?? 0));
  }

  take(answer) {
    this.status = answer.status;
    for (const given of answer.parts) this.parts[given.part] ??= newPart(given);
    const added = answer.token_index.length;
    const size = this.count + added;
    for (const name of ["at", "wait", "index", "part", "end"]) this[name] = roomFor(this[name], size);
    for (let i = 0; i < added; i++) this.#add(answer, i);
    if (added) this.changed();
  }

  #add(answer, i) {
    const row = this.count++;
    const token = answer.token[i];
    const part = this.parts[answer.part[i]];
    this.at[row] = answer.offset_us[i] / 1000;
    this.wait[row] = answer.wait_us[i] / 1000;
    this.index[row] = answer.token_index[i];
    this.part[row] = answer.part[i];
    this.token.push(token);
    if (token === null) this.hasText = false;
    if (this.isAfterHole(row)) part.text += REMOVED;
    part.text += token === null ? UNKNOWN : printed(token);
    this.end[row] = part.text.length;
    part.rows = roomFor(part.rows, part.size + 1);
    part.rows[part.size++] = row;
  }

  /** Where its events are gone its text may be left. */
  takeText() {
    if (this.count) return;
    for (const given of this.info.parts) {
      if (given.content) this.parts[given.part] = newPart(given, printed(given.content));
    }
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  countAt(ms) {
    return upTo(this.at, this.count, ms);
  }

  /** How long a part is after `count` events of the call. */
  lengthAt(part, count) {
    const rows = upTo(part.rows, part.size, count - 1);
    return rows ? this.end[part.rows[rows - 1]] : part.size ? 0 : part.text.length;
  }

  /** Whether events before this one were removed. */
  isAfterHole(row) {
    return this.index[row] !== this.cameWith(row);
  }

  /** How many events had come by the first `count` that are stored. */
  cameWith(count) {
    return count ? this.index[count - 1] + 1 : 0;
  }

  /** Milliseconds since the event before, or the start; null after a hole. */
  gap(row) {
    return this.isAfterHole(row) ? null : this.at[row] - (row ? this.at[row - 1] : 0);
  }

  kindOf(row) {
    return this.parts[this.part[row]].kind;
  }

  get kinds() {
    return [...new Set(this.parts.filter(({ size }) => size).map(({ kind }) => kind))];
  }

  /** Stalls; of a call that runs its long gaps, whose cause is not known yet. */
  get stalls() {
    if (!this.running) return this.info.stalls.filter(({ end_ms }) => end_ms !== null);
    const found = [];
    for (let row = 0; row < this.count; row++) {
      const gap_ms = this.gap(row);
      if (gap_ms < (this.info.stall_threshold_ms ?? 1000)) continue;
      const [token_index, end_ms, position] = [this.index[row], this.at[row], row ? "middle" : "first"];
      found.push({ token_index, position, start_ms: end_ms - gap_ms, end_ms, gap_ms, cause: "unknown" });
    }
    return found;
  }

  /** The first row that is not thinking, or Infinity. */
  get answerRow() {
    return Math.min(...this.parts.filter(({ kind, size }) => kind !== "reasoning" && size).map(({ rows }) => rows[0]));
  }
}

const known = new Map();

/** The call with this uid, loaded once a page. @returns {Promise<Call>} */
export function callOf(element, uid) {
  const path = `/llm-calls/${encodeURIComponent(uid)}`;
  const call = known.get(uid) ?? load(element, path);
  known.set(uid, call);
  call.catch(() => known.delete(uid));
  return call;
}

async function load(element, path) {
  const [info, first] = await Promise.all([ask(element, path), ask(element, `${path}/events`, { limit: PAGE })]);
  const call = new Call(info);
  call.take(first);
  for (let { next } = first; next !== null; ) ({ next } = await more(element, path, call));
  if (call.running) follow(element, path, call);
  else if (info.status === "running") call.info = await ask(element, path);
  call.takeText();
  return call;
}

async function more(element, path, call) {
  const after = call.count ? call.index[call.count - 1] : -1;
  const answer = await ask(element, `${path}/events`, { after, limit: PAGE });
  call.take(answer);
  return answer;
}

async function follow(element, path, call) {
  let pause = POLL_MS;
  while (call.running) {
    await new Promise((resume) => setTimeout(resume, pause));
    if (!document.hidden) pause = await more(element, path, call).then(() => POLL_MS, () => PATIENCE_MS);
  }
  call.info = await ask(element, path).catch(() => ({ ...call.info, status: call.status }));
  call.changed();
}
