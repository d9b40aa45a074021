/** What a replay is steered with: buttons, the scrubber, speed, and the keys people know from terminal recordings. */

import { make, say } from "./element.js";
import { exact } from "./format.js";
import { SPEEDS } from "./player.js";

const HELP = [
  ["space", "play or pause"],
  ["← →", "back or forward by 5 %, at most 5 s"],
  ["[ ]", "slower or faster"],
  ["0 … 9", "to 0 % … 90 %"],
  [", .", "one event back or forward"],
  ["?", "this help"],
];

const ICONS = {
  play: "M4 2 13 8 4 14Z",
  pause: "M3 2h4v12H3zM9 2h4v12H9z",
  stop: "M3 3h10v10H3z",
  back: "M12 2 5 8l7 6zM3 2h2v12H3z",
  forward: "M4 2l7 6-7 6zM11 2h2v12h-2z",
  end: "M2 2l5 6-5 6zM7 2l5 6-5 6zM12 2h2v12h-2z",
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", width: "14", height: "14", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  path.setAttribute("d", ICONS[name]);
  path.setAttribute("fill", "currentColor");
  svg.append(path);
  return svg;
}

function button(name, label, key, act) {
  const made = make("button", { type: "button", title: key ? `${label} (${key})` : label, onclick: act }, icon(name));
  made.setAttribute("aria-label", label);
  return made;
}

/** @typedef {import("./player.js").Player} Player */

/**
 * The controls of a player.
 * @param {Player} player
 * @param {() => string} where the position in words, as `Event 12/45 · 620 ms / 2300 ms`
 * @returns {{bar: HTMLElement, scrub: HTMLElement, marks: HTMLElement, said: HTMLElement, help: HTMLDialogElement}}
 */
export function controls(player, where) {
  const said = make("p", { class: "tape-unseen", role: "status" });
  const help = helpDialog();
  const play = button("play", "Play", "space", () => player.toggle());
  play.classList.add("is-main");
  const step = (by) => () => {
    player.step(by);
    said.textContent = where();
  };
  const toEnd = () => player.seek(player.track.durationMs);
  const speed = make("select", { "aria-label": "Speed", title: "Speed ([ and ])" });
  for (const one of SPEEDS) speed.append(make("option", { value: String(one) }, `${one}×`));
  speed.addEventListener("change", () => player.setSpeed(Number(speed.value)));
  const squeeze = make("input", { type: "checkbox" });
  squeeze.addEventListener("change", () => player.setSqueeze(squeeze.checked));
  const at = make("span", { class: "replay-at" });
  const bar = make(
    "div",
    { class: "replay-bar", role: "group", "aria-label": "Replay" },
    button("stop", "Stop", "", () => player.stop()),
    button("back", "Step back", ",", step(-1)),
    play,
    button("forward", "Step forward", ".", step(1)),
    button("end", "To the end", "", toEnd),
    speed,
    make("label", {}, squeeze, "squeeze pauses"),
    make("button", { type: "button", title: "Keys (?)", "aria-label": "Keys", onclick: () => help.showModal() }, "?"),
    at,
  );
  const range = make("input", { type: "range", min: "0", step: "1", "aria-label": "Position" });
  range.addEventListener("input", () => player.seek(Number(range.value)));
  const marks = make("span", { class: "scrub-marks", "aria-hidden": "true" });

  const moved = () => {
    const words = where();
    const most = Math.ceil(player.track.durationMs);
    say(at, words);
    // Less than a pixel is not worth a layout.
    if (player.playing && Math.abs(Number(range.value) - player.time) < most / 1000) return;
    if (Number(range.max) !== most) range.max = String(most);
    range.value = String(Math.round(player.time));
    range.setAttribute("aria-valuetext", words);
  };
  const changed = () => {
    moved();
    if (play.dataset.playing !== String(player.playing)) {
      play.dataset.playing = String(player.playing);
      play.replaceChildren(icon(player.playing ? "pause" : "play"));
      play.setAttribute("aria-label", player.playing ? "Pause" : "Play");
      said.textContent = player.playing ? `Playing at ${player.speed}×` : `Paused. ${where()}`;
    } else if (speed.value !== String(player.speed)) said.textContent = `Speed ${player.speed}×`;
    speed.value = String(player.speed);
    squeeze.checked = player.squeeze;
  };
  player.addEventListener("move", moved);
  player.addEventListener("state", changed);
  changed();
  said.textContent = "";
  return { bar, scrub: make("div", { class: "scrub" }, marks, range), marks, said, help };
}

/** Puts small marks on a scrubber. @param {HTMLElement} marks @param {{ms: number, kind: string}[]} markers @param {number} durationMs */
export function markScrubber(marks, markers, durationMs) {
  marks.replaceChildren(
    ...markers.slice(0, 200).map(({ ms, kind }) => {
      const mark = make("i", { class: `is-${kind}` });
      mark.style.left = `${(100 * ms) / Math.max(1, durationMs)}%`;
      return mark;
    }),
  );
}

function helpDialog() {
  const list = make("dl", {});
  for (const [key, meaning] of HELP) list.append(make("dt", {}, key), make("dd", {}, meaning));
  const dialog = make("dialog", { class: "replay-help", "aria-label": "Keys of the replay" });
  const close = make("button", { type: "button", onclick: () => dialog.close() }, "Close");
  dialog.append(make("h3", {}, "Keys"), make("p", {}, "They work while the replay or the strip has the focus."), list, close);
  return dialog;
}

const TYPES = "input:not([type=range], [type=checkbox]), textarea, select";
const PRESSED = "button, input[type=checkbox], a, summary";

/**
 * Lets the keys of a replay work inside an element.
 * @param {HTMLElement} element
 * @param {Player} player
 * @param {HTMLDialogElement} [help]
 */
export function keys(element, player, help) {
  element.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches(TYPES)) return;
    if (help?.open && event.key !== "?") return;
    if (event.key === " " && target.matches(PRESSED)) return;
    const act = action(event.key, player, target, help);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function action(key, player, target, help) {
  if (/^[0-9]$/.test(key)) return () => player.seek((player.track.durationMs * Number(key)) / 10);
  const slides = target.matches("input[type=range]");
  return {
    " ": () => player.toggle(),
    ArrowLeft: () => player.skip(-1),
    ArrowRight: () => player.skip(1),
    ArrowDown: slides && (() => player.skip(-1)),
    ArrowUp: slides && (() => player.skip(1)),
    "[": () => player.shift(-1),
    "]": () => player.shift(1),
    ",": () => player.step(-1),
    ".": () => player.step(1),
    "?": help && (() => (help.open ? help.close() : help.showModal())),
  }[key];
}

/** `Event 12/45 · 620 ms / 2300 ms` */
export const position = (count, of, ms, durationMs) => `Event ${count}/${of} · ${exact(ms)} / ${exact(durationMs)}`;
