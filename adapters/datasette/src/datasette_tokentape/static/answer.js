/** The text of a call as it stood after any of its events: choices apart, and in each thinking, text and tool arguments. */

import { make } from "./element.js";
import { CAUSES, duration, KINDS } from "./format.js";

/** From this length on a block ends with its line, from twice that at a space, from three times anywhere. */
const BLOCK = 2_000;

/** Text that grows at its end and can be cut back. It is laid out in blocks: what grows is only the last. */
class Running {
  length = 0;
  /** @type {{start: number, text: Text, element: HTMLElement, full: boolean}[]} */
  #blocks = [];

  constructor() {
    this.element = make("div", { class: "part-text" });
  }

  /** The element that the text ends in. */
  get last() {
    return this.#blocks.at(-1)?.element ?? this.element;
  }

  /** Shows the first `length` characters of `text`, of which what is shown now is a beginning, or the other way round. */
  show(text, length) {
    if (length < this.length) this.#cut(text, length);
    else if (length > this.length) this.#grow(text.slice(this.length, length));
    this.length = length;
  }

  #cut(text, length) {
    const kept = this.#blocks.findIndex((block) => block.start >= length);
    if (kept >= 0) for (const { element } of this.#blocks.splice(kept)) element.remove();
    const last = this.#blocks.at(-1);
    if (!last) return;
    last.text.data = text.slice(last.start, length);
    last.full = false;
  }

  #grow(piece) {
    for (let from = 0; from < piece.length; ) {
      const block = this.#open(this.length + from);
      const ends = (mark, blocks) => piece.indexOf(mark, Math.max(from, block.start + blocks * BLOCK - this.length)) + 1 || Infinity;
      const most = Math.max(from + 1, block.start + 3 * BLOCK - this.length);
      const end = Math.min(ends("\n", 1), ends(" ", 2), this.#whole(piece, most));
      block.text.appendData(piece.slice(from, end));
      block.full = end <= piece.length;
      from = end;
    }
  }

  /** Not between the two halves of a character. */
  #whole(piece, at) {
    const code = piece.charCodeAt(at - 1);
    return code >= 0xd800 && code < 0xdc00 ? at + 1 : at;
  }

  #open(start) {
    const last = this.#blocks.at(-1);
    if (last && !last.full) return last;
    const text = document.createTextNode("");
    const block = { start, text, element: make("div", {}, text), full: false };
    this.#blocks.push(block);
    this.element.append(block.element);
    return block;
  }
}

/** What is being waited for at a moment, in words; empty while events come. @param {import("./events.js").Call} call @param {number} ms */
export function waitedFor(call, ms) {
  if (!ms || (ms >= call.durationMs && !call.running)) return "";
  if (call.count && ms < call.at[0]) return `waiting ${duration(ms)} for the first token`;
  const stall = call.stalls.find(({ start_ms, end_ms }) => start_ms <= ms && ms < end_ms);
  return stall ? `${duration(stall.gap_ms)} ${CAUSES[stall.cause] ?? stall.cause}` : "";
}

/** Shows a call at any of its events, in `element`. */
export class Answer {
  #call;
  #cursor = make("span", { class: "cursor", "aria-hidden": "true" });
  /** @type {Map<number, {section: HTMLElement, running: Running}>} by part */
  #views = new Map();
  /** @type {Map<number, HTMLElement>} */
  #choices = new Map();

  /** @param {import("./events.js").Call} call */
  constructor(call) {
    this.#call = call;
    this.element = make("div", { class: "answer" });
  }

  /** Shows what had come with the first `count` events. @param {number} count */
  show(count) {
    const call = this.#call;
    for (const part of call.parts) {
      if (!part?.size) continue;
      const come = part.rows[0] < count;
      if (!come && !this.#views.has(part.part)) continue;
      const { section, running } = this.#view(part);
      if (section.hidden === come) section.hidden = !come;
      running.show(part.text, call.lengthAt(part, count));
    }
    if (!count) {
      this.#cursor.remove();
      return;
    }
    const { last } = this.#view(call.parts[call.part[count - 1]]).running;
    if (this.#cursor.parentNode !== last) last.append(this.#cursor);
  }

  #view(part) {
    let view = this.#views.get(part.part);
    if (!view) {
      const running = new Running();
      const name = [KINDS[part.kind] ?? part.kind, part.name].filter(Boolean).join(" · ");
      const section = make("section", { class: `part is-${part.kind}` }, make("p", { class: "part-name" }, name), running.element);
      this.#choice(part.choice).append(section);
      this.#views.set(part.part, (view = { section, running }));
      this.element.classList.toggle("has-parts", this.#views.size > this.#choices.size || part.kind !== "text");
    }
    return view;
  }

  #choice(number) {
    let choice = this.#choices.get(number);
    if (!choice) {
      choice = make("section", { class: "choice" }, make("p", { class: "choice-name" }, `choice ${number}`));
      const after = [...this.#choices].find(([other]) => other > number)?.[1] ?? null;
      this.element.insertBefore(choice, after);
      this.#choices.set(number, choice);
      this.element.classList.toggle("has-choices", this.#choices.size > 1);
    }
    return choice;
  }
}
