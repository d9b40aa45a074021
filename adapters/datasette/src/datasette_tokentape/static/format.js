/** Numbers and names in the words of the command line. */

/** Whose time a stall was. */
export const CAUSES = {
  upstream: "waiting for provider or network",
  blocked: "event loop busy",
  own: "in your code",
  unknown: "cause not known",
};
export const KINDS = {
  text: "text",
  reasoning: "thinking",
  tool_args: "tool arguments",
  refusal: "refusal",
  audio_transcript: "transcript",
};
export const MARKS = { running: "●", completed: "✓", error: "✕", cancelled: "⊘", abandoned: "◇", lost: "?" };

/** `2.3 ms`, `23 ms`, `8.1 s`, `184 s`. */
export function duration(ms) {
  if (ms < 99.5) return `${ms.toFixed(ms < 9.95 ? 1 : 0)} ms`;
  return `${(ms / 1000).toFixed(ms < 99950 ? 1 : 0)} s`;
}

/** A whole number, digits grouped from five on: `2300`, `12 300`. */
export function whole(value) {
  const digits = Math.round(value).toString();
  return digits.length > 4 ? digits.replace(/\B(?=(\d{3})+$)/g, "\u202f") : digits;
}

/** `620 ms`, however long. */
export const exact = (ms) => `${whole(ms)} ms`;

/** Milliseconds without their unit: `0.4`, `21`, `2324`. */
export const brief = (ms) => (ms < 9.95 ? ms.toFixed(1) : whole(ms));

/** `1 event`, `2 events`. */
export const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

function picture(character) {
  const code = character.charCodeAt(0);
  if (code === 0x7f) return "␡";
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Text of an event, with what does not print made visible. */
export const visible = (text) =>
  text.replace(/[\0-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, picture);

/** Running text, each control character shown as another. */
export const printed = (text) =>
  text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, (found) => (found > "\x7f" ? "\ufffd" : picture(found)));
