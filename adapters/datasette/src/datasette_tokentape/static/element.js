/** What every element of the pages does: build nodes without markup, take over from the page's own table, or leave it. */

/**
 * Makes an element. Names with a dash, and `role`, `class`, `for`, are attributes; anything else is a property.
 * @param {string} name
 * @param {Record<string, any>} [given]
 * @param {...(Node|string)} children text stays text
 * @returns {any}
 */
export function make(name, given = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (/-|^(role|class|for)$/.test(key)) element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Sets text only where it changed: nothing is laid out anew for the same words. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * An element that enhances what the server put inside it. A subclass has `build()`: it asks the API and returns the nodes that
 * take the place of the content. While that goes on, and if it fails, the content stays; why it failed is said above it.
 */
export class TapeElement extends HTMLElement {
  #begun = false;

  async connectedCallback() {
    if (this.#begun) return;
    this.#begun = true;
    try {
      const nodes = await this.build();
      this.replaceChildren(...nodes);
      this.classList.add("is-live");
    } catch (error) {
      this.prepend(make("p", { class: "tape-note", role: "status" }, `${this.purpose} is missing: ${error.message}.`));
    }
  }
}

/** Whether the reader asked for less motion. */
export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
