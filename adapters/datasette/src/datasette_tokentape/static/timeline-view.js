/** Which stretch of time is shown, and how buttons, keys, wheel and pointer change it. */

import { make } from "./element.js";

const CLOSER = 1.6;
const STEP = 0.2;
const LEAST_MS = 0.5;
/** A pointer that moved less was not dragged. */
const STILL_PX = 4;
const TYPED = "input:not([type=checkbox], [type=radio]), select";

/** Says `change` whenever it shows another stretch. */
export class View extends EventTarget {
  from = 0;
  to = 1;
  whole = 1;

  get isWhole() {
    return this.from <= 0 && this.to >= this.whole;
  }

  /** What there is to see: all of it stays in view, if it was. */
  setWhole(ms) {
    if (ms === this.whole) return;
    const all = this.isWhole;
    this.whole = Math.max(ms, LEAST_MS);
    this.show(all ? 0 : this.from, all ? this.whole : this.to);
  }

  show(from, to) {
    const span = Math.min(this.whole, Math.max(LEAST_MS, to - from));
    this.from = Math.min(Math.max(0, from), this.whole - span);
    this.to = this.from + span;
    this.dispatchEvent(new Event("change"));
  }

  /** Shows less, where `closer` is above 1, or more; what is at `share` of the view stays there. */
  zoom(closer, share = 0.5) {
    const span = this.to - this.from;
    const at = this.from + span * share;
    this.show(at - (span / closer) * share, at + (span / closer) * (1 - share));
  }

  /** Moves by a share of what is shown. */
  pan(share) {
    const by = (this.to - this.from) * share;
    const from = Math.min(Math.max(0, this.from + by), this.whole - (this.to - this.from));
    this.show(from, from + this.to - this.from);
  }

  reset() {
    this.show(0, this.whole);
  }
}

/** The buttons of a view. */
export function zoomButtons(view) {
  const button = (label, key, text, act) =>
    make("button", { type: "button", "aria-label": label, title: `${label} (${key})`, onclick: act }, text);
  const closer = button("Zoom in", "+", "+", () => view.zoom(CLOSER));
  const wider = button("Zoom out", "−", "−", () => view.zoom(1 / CLOSER));
  const all = button("Show all", "0", "All", () => view.reset());
  const back = button("Earlier", "←", "←", () => view.pan(-STEP));
  const on = button("Later", "→", "→", () => view.pan(STEP));
  const look = () => {
    const { isWhole, from, to, whole } = view;
    wider.disabled = all.disabled = isWhole;
    back.disabled = from <= 0;
    on.disabled = to >= whole;
  };
  view.addEventListener("change", look);
  look();
  return make("div", { class: "tl-zoom", role: "group", "aria-label": "Time shown" }, back, wider, all, closer, on);
}

/** The keys of a view, while the focus is in `element` or nowhere. */
export function zoomKeys(element, view) {
  const acts = {
    "+": () => view.zoom(CLOSER),
    "=": () => view.zoom(CLOSER),
    "-": () => view.zoom(1 / CLOSER),
    0: () => view.reset(),
    ArrowLeft: () => view.pan(-STEP),
    ArrowRight: () => view.pan(STEP),
  };
  document.addEventListener("keydown", (event) => {
    if (event.target !== document.body && !element.contains(event.target)) return;
    const act = acts[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || event.target.matches(TYPED)) return;
    event.preventDefault();
    act();
  });
}

/** Wheel with Ctrl zooms, a drag moves; `clicked(event)` is told of a press that was none. `area()` gives where time is. */
export function zoomPointer(element, view, area, clicked) {
  const share = ({ clientX }) => {
    const { left, width } = area();
    return Math.min(1, Math.max(0, (clientX - left) / width));
  };
  element.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey) view.zoom(Math.exp(-event.deltaY / 200), share(event));
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) view.pan(event.deltaX / area().width);
      else return;
      event.preventDefault();
    },
    { passive: false },
  );
  let held = null;
  element.addEventListener("pointerdown", (event) => {
    if (event.button || event.target.closest("a, button")) return;
    held = { x: event.clientX, from: view.from, to: view.to, moved: false };
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", ({ clientX }) => {
    if (!held) return;
    held.moved ||= Math.abs(clientX - held.x) > STILL_PX;
    if (!held.moved) return;
    element.classList.add("is-dragged");
    const by = ((held.x - clientX) / area().width) * (held.to - held.from);
    const from = Math.min(Math.max(0, held.from + by), view.whole - (held.to - held.from));
    view.show(from, from + held.to - held.from);
  });
  const letGo = (event) => {
    if (held && !held.moved && event.type === "pointerup") clicked(event);
    held = null;
    element.classList.remove("is-dragged");
  };
  for (const type of ["pointerup", "pointercancel"]) element.addEventListener(type, letGo);
}
