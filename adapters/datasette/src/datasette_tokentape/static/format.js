/** Numbers and names in the words of the command line, from values as the API gives them. */

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
/** What stands before a status. */
export const MARKS = { running: "●", completed: "✓", error: "✕", cancelled: "⊘", abandoned: "◇", lost: "?" };

/** `2.3 ms`, `23 ms`, `8.1 s`, `184 s`. @param {number} ms */
export function duration(ms) {
  if (ms < 99.5) return `${ms.toFixed(ms < 9.95 ? 1 : 0)} ms`;
  return `${(ms / 1000).toFixed(ms < 99950 ? 1 : 0)} s`;
}

/** A whole number, digits grouped from five on: `2300`, `12 300`. @param {number} value */
export function whole(value) {
  const digits = Math.round(value).toString();
  return digits.length > 4 ? digits.replace(/\B(?=(\d{3})+$)/g, "\u202f") : digits;
}

/** `620 ms`, however long. @param {number} ms */
export const exact = (ms) => `${whole(ms)} ms`;

/** Milliseconds without their unit, with a decimal below ten: `0.4`, `21`, `2324`. @param {number} ms */
export const brief = (ms) => (ms < 9.95 ? ms.toFixed(1) : whole(ms));

/** `1 event`, `2 events`. @param {number} count @param {string} noun */
export const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

/** `33.1 tok/s`, `18.0 events/s` where tokens are not known; null where neither is. */
export function rate(call) {
  const tokens = call.decode_tokens_per_second ?? call.tokens_per_second;
  if (tokens != null) return `${tokens.toFixed(1)} tok/s`;
  return call.events_per_second == null ? null : `${call.events_per_second.toFixed(1)} events/s`;
}

/** `first token 0.9 s`, or `first 0.4 s (thinking), answer 9.1 s`; null where no token came. */
export function firstToken({ first_token_latency_ms: first, first_output_token_latency_ms: answer }) {
  if (first == null) return null;
  if (answer === first) return `first token ${duration(first)}`;
  return `first ${duration(first)} (thinking), ${answer == null ? "no answer" : `answer ${duration(answer)}`}`;
}

function picture(character) {
  const code = character.charCodeAt(0);
  if (code === 0x7f) return "␡";
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : `⟨${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Text of an event, with what does not print made visible: ␀, ␛, ␊, ⟨202E⟩. @param {string} text */
export const visible = (text) =>
  text.replace(/[\0-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, picture);

/** Running text: as it is, but for control characters, each shown as one other character. @param {string} text */
export const printed = (text) =>
  text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, (found) => (found > "\x7f" ? "\ufffd" : picture(found)));
