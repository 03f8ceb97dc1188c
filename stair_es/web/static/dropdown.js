// A button that opens something below it.

import { createButton, createIcon, createIconButton, escapeControls, h, setProps, setText } from "./dom.js";

const EDGE_PX = 8;
const MIN_HEIGHT_PX = 240;
let dropdownCount = 0;

/** A button with its popover. A click outside or Esc closes it, and the focus returns to the button. */
export class Dropdown {
  /**
   * @param {string} label
   * @param {HTMLElement} content
   * @param {{class?: string, onOpen?: () => void}} [options] `onOpen` is called before it is shown
   */
  constructor(label, content, { class: className = "", onOpen = () => {} } = {}) {
    dropdownCount += 1;
    const id = `dropdown-${dropdownCount}`;
    this.title = h("span", {}, escapeControls(label));
    this.count = h("span", { class: "n" });
    const props = { class: "opens", popovertarget: id, "aria-haspopup": "dialog" };
    this.button = createButton(props, this.title, " ", this.count, createIcon("down"));
    const close = createIconButton("close", "Close", { class: "icon small shut-popover", on: { click: () => this.close() } });
    const dialog = { id, popover: "auto", role: "dialog", "aria-label": escapeControls(label), class: "dropdown" };
    this.popover = h("div", dialog, content, close);
    this.element = h("div", { class: `opening ${className}` }, this.button, this.popover);
    this.popover.addEventListener("beforetoggle", (event) => /** @type {ToggleEvent} */ (event).newState === "open" && onOpen());
    this.popover.addEventListener(
      "toggle",
      (event) => /** @type {ToggleEvent} */ (event).newState === "open" && this.#focusContent(),
    );
    this.button.addEventListener("keydown", (event) => this.#enterByKey(event));
    this.popover.addEventListener("keydown", (event) => event.stopPropagation()); // shortcuts are for what is behind it
    addEventListener("resize", () => this.isOpen() && this.#setPosition());
  }

  isOpen() {
    return this.popover.matches(":popover-open");
  }

  close() {
    this.popover.hidePopover();
  }

  /**
   * Sets the button's text, the number of selected values, and whether it is disabled.
   * @param {string} label @param {number} selectedCount
   */
  update(label, selectedCount = 0, isDisabled = false) {
    const text = escapeControls(label);
    setText(this.title, text);
    setProps(this.popover, { "aria-label": text });
    setText(this.count, selectedCount ? String(selectedCount) : "");
    this.button.classList.toggle("on", selectedCount > 0);
    setProps(this.button, { "aria-label": selectedCount ? `${text}, ${selectedCount} chosen` : null, disabled: isDisabled });
    if (this.isOpen()) this.#setPosition();
  }

  /** The down key opens it, or moves into it if it is open: the focus follows a moment after opening, with the `toggle` event. */
  #enterByKey(/** @type {KeyboardEvent} */ event) {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    if (this.isOpen()) this.#focusContent();
    else this.button.click(); // not `showPopover`, so that the focus returns to the button
  }

  #focusContent() {
    this.#setPosition();
    if (this.popover.contains(document.activeElement)) return;
    /** @type {NodeListOf<HTMLElement>} */
    const controls = this.popover.querySelectorAll("input, summary, button");
    [...controls].find((control) => control.checkVisibility())?.focus({ preventScroll: true });
  }

  /** Positions it below the button and within the window. On a phone, the style sheet puts it at the lower edge. */
  #setPosition() {
    const { left, bottom } = this.button.getBoundingClientRect();
    const { style } = this.popover;
    const maxLeft = document.body.clientWidth - this.popover.offsetWidth - EDGE_PX;
    style.setProperty("--left", `${Math.max(EDGE_PX, Math.min(left, maxLeft)) + scrollX}px`);
    style.setProperty("--top", `${bottom + 4 + scrollY}px`);
    style.setProperty("--room", `${Math.max(MIN_HEIGHT_PX, innerHeight - bottom - 16)}px`);
  }
}
