// Elements without markup: text always becomes text nodes.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on` has listeners, `data` data attributes; true and false make boolean attributes; children are nodes or text. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  set(element, props);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Sets the properties of `h` on an existing element. */
export function set(element, { on = {}, data = {}, ...attributes }) {
  for (const [type, listener] of Object.entries(on)) element.addEventListener(type, listener);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value === true ? "" : value))
      element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

/** An icon of one or more paths in a 24 x 24 view box, hidden from screen readers. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({
    viewBox: "0 0 24 24",
    width: 18,
    height: 18,
    "aria-hidden": "true",
    class: "drawn",
  }))
    drawing.setAttribute(key, value);
  drawing.append(path(ICONS[name]));
  return drawing;
}

export function path(d, attributes = {}) {
  const element = document.createElementNS(SVG, "path");
  for (const [key, value] of Object.entries({ d, ...attributes })) element.setAttribute(key, value);
  return element;
}

/**
 * Renders `items` as the children of `parent`, in order. Remaining children are updated in place, so that
 * nothing flickers and the focus stays where it is. `make(item)` returns an element with a method `update(item)`.
 */
export function keyed(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((child) => [child.keyedBy, child]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const keys = new Set(items.map(keyOf));
  for (const [key, gone] of old) if (!keys.has(key)) gone.remove(); // first, because a moved element loses its focus and its popover
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = old.get(key);
    if (child) old.delete(key);
    else {
      child = make(item);
      child.keyedBy = key;
    }
    child.update?.(item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const [key, twice] of old) if (keys.has(key)) twice.remove();
  if (focused && focused.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

/** Text with visible control characters and bidirectional overrides, which would reverse or break the line. */
export function visible(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (sign) =>
    sign === "\n" || sign === "\t" ? " " : `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Sets the value of a field if it differs from the last one set, to keep what the user is typing. */
export function put(field, value) {
  if (field.wasPut !== value) field.value = field.wasPut = value;
}

/** Changes an element's text only if it differs, because a live region announces every change. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const ICONS = {
  picture: "M3 5h18v14H3zM3 16l5-5 4 4 3-3 6 6M15.5 9.5h.01",
  link: "M10 14a4 4 0 0 0 5.7 0l3-3a4 4 0 0 0-5.7-5.7l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3a4 4 0 0 0 5.7 5.7l1-1",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5h.01",
  close: "M6 6l12 12M18 6L6 18",
  before: "M15 5l-7 7 7 7",
  after: "M9 5l7 7-7 7",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  actual: "M4 4h16v16H4zM9 9v6M15 9v6M12 10.5h.01M12 14h.01",
  expand: "M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5",
  download: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  path: "M4 6h6l2 2h8v11H4z",
  open: "M14 4h6v6M20 4l-9 9M18 13v7H4V6h7",
  like: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM16.5 13.5v6M13.5 16.5h6",
  down: "M7 10l5 5 5-5",
  filter: "M4 6h16M7 12h10M10 18h4",
  sliders: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4",
  swap: "M7 7h12M15 3l4 4-4 4M17 17H5M9 13l-4 4 4 4",
};
