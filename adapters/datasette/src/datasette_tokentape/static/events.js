/** A call's token events as columns, asked from the API once for all elements of a page, and growing while the call runs. */

import { printed } from "./format.js";

const PAGE = 100_000;
const POLL_MS = 250;
const PATIENCE_MS = 5_000;
/** Stands for an event whose text was not recorded. */
const UNKNOWN = "▪";

/**
 * The address of an answer of the API.
 * @param {HTMLElement} element has `data-api`, where the API is with its version, and `data-query`, which tape is meant
 * @param {string} path as `/llm-calls/01…`
 * @param {Record<string, string|number>} [parameters]
 */
export function address(element, path, parameters = {}) {
  const query = new URLSearchParams(element.dataset.query);
  for (const [name, value] of Object.entries(parameters)) query.set(name, String(value));
  return `${element.dataset.api}${path}${query.size ? `?${query}` : ""}`;
}

/** Asks the API, as `address` says; an error's message says what it answered. */
export async function ask(element, path, parameters) {
  const answer = await fetch(address(element, path, parameters)).catch(() => {
    throw new Error("the server cannot be reached");
  });
  if (answer.ok) return answer.json();
  const { detail } = await answer.json().catch(() => ({}));
  throw new Error(`the API answered ${answer.status}${detail ? ` (${detail.replace(/\.$/, "")})` : ""}`);
}

/** How many of the first `count` values of a sorted column are at most `value`. */
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

/** One part of an answer: its text so far, and which `size` rows of the call it consists of. */
class Part {
  text = "";
  rows = new Uint32Array(64);
  size = 0;

  constructor({ part, kind, choice, name }) {
    Object.assign(this, { part, kind, choice, name });
  }
}

/**
 * A call and its events. Says `change` when events came and when it ended.
 * Row i is the i-th event that is stored: `at[i]` and `wait[i]` are milliseconds, `index[i]` its token_index, `part[i]` its part,
 * `token[i]` its text or null, `end[i]` how long the text of its part is with it.
 */
export class Call extends EventTarget {
  count = 0;
  at = new Float64Array(64);
  wait = new Float64Array(64);
  index = new Uint32Array(64);
  part = new Uint16Array(64);
  end = new Uint32Array(64);
  token = [];
  /** @type {Part[]} by number */
  parts = [];
  /** Whether events have text: not where only timings were recorded. */
  hasText = true;

  /** @param {any} info the API's answer about the call */
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

  /** Milliseconds from the start to the end, or to now while it runs. */
  get durationMs() {
    const last = this.count ? this.at[this.count - 1] : 0;
    return Math.max(last, this.running ? performance.now() - this.began : (this.info.duration_ms ?? 0));
  }

  /** Takes an answer of `…/events`. */
  take(answer) {
    this.status = answer.status;
    for (const given of answer.parts) this.parts[given.part] ??= new Part(given);
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
    part.text += token === null ? UNKNOWN : printed(token);
    this.end[row] = part.text.length;
    part.rows = roomFor(part.rows, part.size + 1);
    part.rows[part.size++] = row;
  }

  /** Where the events of a call are no longer there, its text may be. */
  takeText() {
    if (this.count) return;
    for (const given of this.info.parts) {
      if (given.content) this.parts[given.part] = Object.assign(new Part(given), { text: printed(given.content) });
    }
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  /** How many events had come at a time. @param {number} ms */
  countAt(ms) {
    return upTo(this.at, this.count, ms);
  }

  /** How long the text of a part is when the first `count` events of the call have come. */
  lengthAt(part, count) {
    const rows = upTo(part.rows, part.size, count - 1);
    return rows ? this.end[part.rows[rows - 1]] : part.size ? 0 : part.text.length;
  }

  /** Milliseconds between a row and the one before it. */
  gap(row) {
    return this.at[row] - (row ? this.at[row - 1] : 0);
  }

  kindOf(row) {
    return this.parts[this.part[row]].kind;
  }

  /** Kinds of its events. @returns {string[]} */
  get kinds() {
    return [...new Set(this.parts.filter(({ size }) => size).map(({ kind }) => kind))];
  }

  /** Stalls that have their place; of a call that runs its long gaps: whose time they were is known when it has ended. */
  get stalls() {
    if (!this.running) return this.info.stalls.filter(({ end_ms }) => end_ms !== null);
    const found = [];
    for (let row = 0; row < this.count; row++) {
      const gap_ms = this.gap(row);
      if (gap_ms < (this.info.stall_threshold_ms ?? 1000)) continue;
      const [token_index, end_ms] = [this.index[row], this.at[row]];
      const position = row ? "middle" : "first";
      found.push({ token_index, position, start_ms: end_ms - gap_ms, end_ms, gap_ms, cause: "unknown" });
    }
    return found;
  }

  /** The first row that is not thinking, or -1. */
  get answerRow() {
    const first = this.parts.filter(({ kind, size }) => kind !== "reasoning" && size).map(({ rows }) => rows[0]);
    return first.length ? Math.min(...first) : -1;
  }
}

/** @type {Map<string, Promise<Call>>} */
const known = new Map();

/**
 * The call with this uid and all events that are there, loaded once a page. It goes on growing while the call runs.
 * @param {HTMLElement} element as `address` takes it
 * @param {string} uid
 * @returns {Promise<Call>}
 */
export function callOf(element, uid) {
  const path = `/llm-calls/${encodeURIComponent(uid)}`;
  const key = address(element, path);
  const call = known.get(key) ?? load(element, path);
  known.set(key, call);
  call.catch(() => known.delete(key));
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
    if (document.hidden) continue;
    pause = await more(element, path, call).then(() => POLL_MS, () => Math.min(2 * pause, PATIENCE_MS));
  }
  call.info = await ask(element, path).catch(() => ({ ...call.info, status: call.status }));
  call.changed();
}
