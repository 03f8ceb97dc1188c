// A button that opens something below it.

import { h, icon, say, set, visible } from "./dom.js";

const EDGE_PX = 8;
let made = 0;

/**
 * A button with its popover. A click outside or Esc closes it, and the focus returns to the button. `open` is called before
 * it is shown; the first control in it gets the focus.
 */
export function dropdown(text, content, { class: name = "", open = () => {} } = {}) {
  const id = `dropdown-${(made += 1)}`;
  const title = h("span", {}, visible(text));
  const count = h("span", { class: "n" });
  const button = h(
    "button",
    { type: "button", class: "opens", popovertarget: id, "aria-haspopup": "dialog" },
    title,
    count,
    icon("down"),
  );
  const close = () => popover.hidePopover();
  const shut = h(
    "button",
    { type: "button", class: "icon small shut-popover", "aria-label": "Close", on: { click: close } },
    icon("close"),
  );
  const popover = h(
    "div",
    { id, popover: "auto", role: "dialog", "aria-label": visible(text), class: "dropdown" },
    content,
    shut,
  );
  const element = h("div", { class: `opening ${name}` }, button, popover);
  const isOpen = () => popover.matches(":popover-open");

  popover.addEventListener("beforetoggle", ({ newState }) => newState === "open" && open());
  popover.addEventListener("toggle", ({ newState }) => {
    if (newState !== "open") return;
    place();
    const first = [...popover.querySelectorAll("input, summary, button")].find((each) => each.checkVisibility());
    first?.focus({ preventScroll: true });
  });
  popover.addEventListener("keydown", (event) => event.stopPropagation()); // the page's keyboard shortcuts are for the content behind it
  addEventListener("resize", () => isOpen() && place());

  /** Positions it below the button and within the window. On a phone, the style sheet puts it at the lower edge. */
  function place() {
    const { left, bottom } = button.getBoundingClientRect();
    const room = document.body.clientWidth - popover.offsetWidth - EDGE_PX;
    popover.style.setProperty("--left", `${Math.max(EDGE_PX, Math.min(left, room)) + scrollX}px`);
    popover.style.setProperty("--top", `${bottom + 4 + scrollY}px`);
    popover.style.setProperty("--room", `${Math.max(240, innerHeight - bottom - 16)}px`);
  }

  return {
    element,
    isOpen,
    close,
    /** Sets the button's text, the number of selected values, and whether it is disabled. */
    label(text, chosen = 0, off = false) {
      say(title, visible(text));
      set(popover, { "aria-label": visible(text) });
      say(count, chosen ? String(chosen) : "");
      button.classList.toggle("on", chosen > 0);
      set(button, { "aria-label": chosen ? `${visible(text)}, ${chosen} chosen` : null, disabled: off });
      if (isOpen()) place();
    },
  };
}
