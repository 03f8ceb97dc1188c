// Elements without markup: text always becomes text nodes.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/**
 * The key by which `renderList` made an element, and its component.
 * @type {WeakMap<Element, {key: unknown, component: Component<any>}>}
 */
const itemByElement = new WeakMap();

/** The last value that the page set a field to. @type {WeakMap<HTMLInputElement, string>} */
const valueByField = new WeakMap();

/**
 * Creates an element. `on` has listeners, `data` data attributes; true and false make boolean attributes.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Props} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  setProps(element, props);
  const present = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  element.append(.../** @type {(Node | string)[]} */ (present));
  return element;
}

/** Sets the properties of `h` on an existing element. @param {Element} element @param {Props} props */
export function setProps(element, { on = {}, data = {}, ...attributes }) {
  for (const [type, listener] of Object.entries(on)) element.addEventListener(type, /** @type {EventListener} */ (listener));
  for (const [name, value] of Object.entries(data)) element.setAttribute(`data-${name}`, value);
  for (const [name, value] of Object.entries(attributes)) {
    const text = value === true ? "" : String(value);
    if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** Creates a button that submits nothing. @param {Props} props @param {...(Child | Child[])} children */
export const createButton = (props, ...children) => h("button", { type: "button", ...props }, ...children);

/** Creates a button that shows only an icon. @param {IconName} name @param {string} label @param {Props} props */
export const createIconButton = (name, label, props) =>
  createButton({ class: "icon small", "aria-label": label, ...props }, createIcon(name));

/** An icon of one or more paths in a 24 x 24 view box, hidden from screen readers. @param {IconName} name */
export function createIcon(name) {
  const size = { viewBox: "0 0 24 24", width: 18, height: 18 };
  const icon = createSvgElement("svg", { ...size, "aria-hidden": "true", class: "drawn" });
  icon.append(createSvgElement("path", { d: ICON_PATHS[name] }));
  return icon;
}

/** Creates an element of SVG. @param {"svg" | "path"} tag @param {Props} props */
export function createSvgElement(tag, props) {
  const element = document.createElementNS(SVG_NAMESPACE, tag);
  setProps(element, props);
  return element;
}

/**
 * Renders `items` as the children of `parent`, in order. Remaining children are updated in place, so that
 * nothing flickers and the focus stays where it is.
 * @template Item
 * @param {Element} parent
 * @param {Item[]} items
 * @param {(item: Item) => unknown} getKey
 * @param {(item: Item) => Component<Item>} createItem
 */
export function renderList(parent, items, getKey, createItem) {
  const focused = parent.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
  const keys = new Set(items.map(getKey));
  const kept = new Map();
  for (const element of [...parent.children]) {
    const rendered = itemByElement.get(element);
    if (rendered && keys.has(rendered.key) && !kept.has(rendered.key)) kept.set(rendered.key, rendered.component);
    else element.remove(); // first, because a moved element loses its focus and its popover
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = getKey(item);
    const component = kept.get(key) ?? createItem(item);
    kept.delete(key);
    itemByElement.set(component.element, { key, component });
    component.update?.(item);
    if (component.element === next) next = component.element.nextElementSibling;
    else parent.insertBefore(component.element, next);
  }
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

/** The key of an item for `renderList`. @param {{key: string}} item */
export const getKey = ({ key }) => key;

/**
 * Text with visible control characters and bidirectional overrides, which would reverse or break the line.
 * @param {unknown} text
 */
export function escapeControls(text) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it escapes
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) =>
    character === "\n" || character === "\t" ? " " : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * Sets the value of a field if it differs from the last one set, to keep what the user is typing.
 * @param {HTMLInputElement} field @param {string} value
 */
export function setValue(field, value) {
  if (valueByField.get(field) === value) return;
  field.value = value;
  valueByField.set(field, value);
}

/**
 * Changes an element's text only if it differs, because a live region announces every change.
 * @param {Element} element @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Lets screen readers say a text. @param {string} text */
export const announce = (text) => setText(getById("said"), text);

/** An element of index.html. @param {string} id */
export const getById = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @typedef {keyof typeof ICON_PATHS} IconName */
const ICON_PATHS = {
  picture: "M3 5h18v14H3zM3 16l5-5 4 4 3-3 6 6M15.5 9.5h.01",
  link: "M10 14a4 4 0 0 0 5.7 0l3-3a4 4 0 0 0-5.7-5.7l-1 1M14 10a4 4 0 0 0-5.7 0l-3 3a4 4 0 0 0 5.7 5.7l1-1",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5h.01",
  close: "M6 6l12 12M18 6L6 18",
  previous: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  resize: "M4 4h16v16H4zM9 9v6M15 9v6M12 10.5h.01M12 14h.01",
  expand: "M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5",
  download: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  folder: "M4 6h6l2 2h8v11H4z",
  open: "M14 4h6v6M20 4l-9 9M18 13v7H4V6h7",
  similar: "M4 4h7v7H4zM13 4h7v7h-7zM4 13h7v7H4zM16.5 13.5v6M13.5 16.5h6",
  down: "M7 10l5 5 5-5",
  filter: "M4 6h16M7 12h10M10 18h4",
  sliders: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4",
  swap: "M7 7h12M15 3l4 4-4 4M17 17H5M9 13l-4 4 4 4",
};
