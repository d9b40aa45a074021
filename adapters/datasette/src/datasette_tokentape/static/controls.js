/** What a replay is steered with: buttons, scrubber, keys. */

import { make, say } from "./element.js";
import { paced, SPEEDS, TEXT_MS } from "./player.js";

const HELP = {
  space: "play or pause",
  "← →": "back or forward by 5 %, at most 5 s",
  "[ ]": "slower or faster",
  "0 … 9": "to 0 % … 90 %",
  ", .": "one event back or forward",
  "?": "this help",
};
const ICONS = {
  Play: "M4 2 13 8 4 14Z",
  Pause: "M3 2h4v12H3zM9 2h4v12H9z",
  Stop: "M3 3h10v10H3z",
  "Step back": "M12 2 5 8l7 6zM3 2h2v12H3z",
  "Step forward": "M4 2l7 6-7 6zM11 2h2v12h-2z",
  "To the end": "M2 2l5 6-5 6zM7 2l5 6-5 6zM12 2h2v12h-2z",
};
// What has use of its own for keys, and for space.
const TYPES = "input:not([type=range], [type=checkbox]), select";
const PRESSED = "button, input[type=checkbox], a";

function iconButton(label, key, onclick) {
  const button = make("button", { type: "button", onclick, title: key && `${label} (${key})` });
  name(button, label);
  return button;
}

function name(button, label) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS(svg.namespaceURI, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  path.setAttribute("d", ICONS[label]);
  svg.append(path);
  button.replaceChildren(svg);
  button.setAttribute("aria-label", label);
}

/** Controls of a player, whose element is `element`; `where` says the position, `mark` marks the scrubber. */
export function controls(element, player, where) {
  const { track } = player;
  const said = make("p", { class: "tape-unseen", role: "status" });
  const help = helpDialog();
  const play = iconButton("Play", "space", () => player.toggle());
  play.classList.add("is-main");
  const speed = make("select", { "aria-label": "Speed", onchange: () => player.set({ speed: Number(speed.value) }) });
  speed.append(...SPEEDS.map((one) => make("option", { value: one }, `${one}×`)));
  const squeeze = make("input", { type: "checkbox", onchange: () => player.set({ squeeze: squeeze.checked }) });
  const at = make("span", { class: "replay-at" });
  const step = (by) => () => {
    player.step(by);
    say(said, where());
  };
  const bar = make(
    "div",
    { class: "replay-bar", role: "group", "aria-label": "Replay" },
    iconButton("Stop", "", () => player.stop()),
    iconButton("Step back", ",", step(-1)),
    play,
    iconButton("Step forward", ".", step(1)),
    iconButton("To the end", "", () => player.seek(track.durationMs)),
    speed,
    make("label", {}, squeeze, "squeeze pauses"),
    make("button", { type: "button", "aria-label": "Keys", title: "Keys (?)", onclick: () => help.showModal() }, "?"),
    at,
  );
  const oninput = () => player.seek(Number(range.value));
  const range = make("input", { type: "range", min: 0, "aria-label": "Position", oninput });
  const marks = make("span", { class: "scrub-marks", "aria-hidden": "true" });

  const moved = () => {
    const words = where();
    const most = Math.ceil(track.durationMs);
    say(at, words);
    if (Number(range.max) !== most) range.max = most;
    range.value = Math.round(player.time);
    range.setAttribute("aria-valuetext", words);
  };
  let before = {};
  const changed = () => {
    const { playing } = player;
    if (playing !== before.playing) {
      name(play, playing ? "Pause" : "Play");
      say(said, playing ? "Playing" : `Paused. ${where()}`);
    } else if (player.speed !== before.speed) say(said, `Speed ${player.speed}×`);
    before = { playing, speed: player.speed };
    speed.value = player.speed;
    squeeze.checked = player.squeeze;
  };
  paced(player, TEXT_MS, moved);
  player.addEventListener("state", changed);
  moved();
  changed();
  said.textContent = "";
  keys(element, player, help);
  const mark = (markers) => {
    marks.replaceChildren(...markers.map(({ kind }) => make("i", { class: `is-${kind}` })));
    markers.forEach(({ ms }, i) => (marks.children[i].style.left = `${(100 * ms) / Math.max(1, track.durationMs)}%`));
  };
  return { bar, scrub: make("div", { class: "scrub" }, marks, range), rest: [said, help], mark };
}

function helpDialog() {
  const keys = Object.entries(HELP).flatMap(([key, meaning]) => [make("dt", {}, key), make("dd", {}, meaning)]);
  const close = make("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const where = make("p", {}, "Keys work wherever nothing else has use for them.");
  const dialog = make("dialog", { class: "replay-help", "aria-label": "Keys" }, where, make("dl", {}, ...keys), close);
  return dialog;
}

/** Lets the keys of a replay work in its element, on a strip, and while nothing has the focus. */
function keys(element, player, help) {
  const acts = {
    " ": () => player.toggle(),
    ArrowLeft: () => player.skip(-1),
    ArrowRight: () => player.skip(1),
    "[": () => player.shift(-1),
    "]": () => player.shift(1),
    ",": () => player.step(-1),
    ".": () => player.step(1),
    "?": () => (help.open ? help.close() : help.showModal()),
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.matches(TYPES)) return;
    if (target !== document.body && !element.contains(target) && !target.closest("tape-strip")) return;
    if (event.defaultPrevented || (help.open && key !== "?") || (key === " " && target.matches(PRESSED))) return;
    const act = /^\d$/.test(key) ? () => player.seek((player.track.durationMs * key) / 10) : acts[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
