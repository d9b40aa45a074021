/** What every element of the pages does: build nodes without markup, and take over from the page's own content. */

/** Makes an element. Names with a dash, `role` and `class` are attributes, others properties; text in it stays text. */
export function make(name, given = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (/-|^(role|class)$/.test(key)) element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Sets text where it differs, so that it is not laid out anew. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Whether the reader asked for less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * Enhances what the server put inside it: the nodes that a subclass's `build()` returns take its place. Until then, and
 * where that fails, it stays; why it failed is said above it.
 */
export class TapeElement extends HTMLElement {
  async connectedCallback() {
    if (this.begun) return;
    this.begun = true;
    try {
      this.replaceChildren(...(await this.build()));
      this.classList.add("is-live");
    } catch (error) {
      this.prepend(make("p", { class: "tape-note", role: "status" }, `This is the plain version: ${error.message}.`));
    }
  }
}
