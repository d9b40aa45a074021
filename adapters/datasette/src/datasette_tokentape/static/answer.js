/** The text of a call as it stood after any of its events: choices, thinking, text and tool arguments apart. */

import { make, say } from "./element.js";
import { CAUSES, duration, KINDS } from "./format.js";

/** From this length on a block ends with its line, from twice that at a space, then anywhere. */
const BLOCK = 2_000;

/** Text that grows and can be cut back, in blocks: only the last is laid out anew. */
class Running {
  element = make("div", { class: "part-text" });
  length = 0;
  #blocks = [];

  get last() {
    return this.#blocks.at(-1)?.element ?? this.element;
  }

  /** Shows the first `length` characters of a text that only ever grew. */
  show(text, length) {
    if (length < this.length) this.#cut(text, length);
    else if (length > this.length) this.#grow(text.slice(this.length, length));
    this.length = length;
  }

  #cut(text, length) {
    const kept = this.#blocks.findIndex(({ start }) => start >= length);
    if (kept >= 0) for (const { element } of this.#blocks.splice(kept)) element.remove();
    const last = this.#blocks.at(-1);
    if (!last) return;
    last.text.data = text.slice(last.start, length);
    last.element.className = "";
    last.full = false;
  }

  #grow(piece) {
    for (let from = 0; from < piece.length; ) {
      const block = this.#open(this.length + from);
      const at = (blocks) => Math.max(from, block.start + blocks * BLOCK - this.length);
      const after = (mark, blocks) => piece.indexOf(mark, at(blocks)) + 1 || Infinity;
      let end = Math.min(after("\n", 1), after(" ", 2), at(3) + 1);
      // Not between the two halves of a character.
      if ((piece.charCodeAt(end - 1) & 0xfc00) === 0xd800) end++;
      block.text.appendData(piece.slice(from, end));
      block.element.className = (block.full = end <= piece.length) ? "is-full" : "";
      from = end;
    }
  }

  #open(start) {
    const last = this.#blocks.at(-1);
    if (last && !last.full) return last;
    const text = new Text();
    const block = { start, text, element: make("div", {}, text), full: false };
    this.#blocks.push(block);
    this.element.append(block.element);
    return block;
  }
}

/** What is waited for at a moment, in words. */
function waitedFor(call, ms) {
  if (!ms || (ms >= call.durationMs && !call.running)) return "";
  if (call.count && ms < call.at[0]) return `waiting ${duration(ms)} for the first token`;
  const stall = call.stalls.find(({ start_ms, end_ms }) => start_ms <= ms && ms < end_ms);
  return stall ? `${duration(stall.gap_ms)} ${CAUSES[stall.cause]}` : "";
}

/** A call's answer at any of its events, and what is waited for, in a `box`. */
export class Answer {
  #cursor = make("span", { class: "cursor", "aria-hidden": "true" });
  #wait = make("p", { class: "replay-silence" });
  #element = make("div", { class: "answer" });
  /** Sections by the number of their part, and of their choice. */
  #views = new Map();
  #choices = new Map();

  constructor(call, label) {
    this.call = call;
    const inside = make("div", {}, this.#element, this.#wait);
    this.box = make("div", { class: "replay-text", tabIndex: 0, role: "region", "aria-label": label }, inside);
  }

  /** Shows the first `count` events, at a moment. */
  show(count, ms) {
    const { call } = this;
    for (const part of call.parts) {
      const come = part && (part.size ? part.rows[0] < count : part.text !== "");
      if (!come && !this.#views.has(part?.part)) continue;
      const { section, running } = this.#view(part);
      if (section.hidden === come) section.hidden = !come;
      running.show(part.text, call.lengthAt(part, count));
    }
    say(this.#wait, waitedFor(call, ms));
    if (!count) return this.#cursor.remove();
    const { last } = this.#view(call.parts[call.part[count - 1]]).running;
    if (this.#cursor.parentNode !== last) last.append(this.#cursor);
  }

  #view(part) {
    let view = this.#views.get(part.part);
    if (!view) {
      const running = new Running();
      const name = [KINDS[part.kind], part.name].filter(Boolean).join(" · ");
      const section = make("section", { class: `part is-${part.kind}` });
      section.append(make("p", { class: "part-name" }, name), running.element);
      this.#choice(part.choice).append(section);
      this.#views.set(part.part, (view = { section, running }));
      if (this.#views.size > this.#choices.size || part.kind !== "text") this.#element.classList.add("has-parts");
    }
    return view;
  }

  #choice(number) {
    let choice = this.#choices.get(number);
    if (!choice) {
      choice = make("section", { class: "choice" }, make("p", { class: "choice-name" }, `choice ${number}`));
      choice.style.order = number;
      this.#element.append(choice);
      this.#choices.set(number, choice);
      this.#element.classList.toggle("has-choices", this.#choices.size > 1);
    }
    return choice;
  }
}
