/** The numbers of a call in words, as the command line has them. */

import { duration } from "./format.js";

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
