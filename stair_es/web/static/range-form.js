// The popover of a field of numbers or dates: a histogram with two ends.

import { formatRange, formatRangeEnd, isInteger } from "./conditions.js";
import { escapeControls, h, setProps, setText, setValue } from "./dom.js";
import { pluralize } from "./format.js";
import { selectRange } from "./query.js";

const DAY_MS = 86_400_000;
/** Bytes are typed in kB. */
const BYTES_PER_UNIT = 1000;
const MIN_BAR_PERCENT = 4;

/**
 * @param {RangeFacet} facet @param {UpdateQuery} updateQuery
 * @returns {{element: HTMLElement, update: (item: FacetItem<RangeFacet>) => void}}
 */
export function createRangeForm({ field, kind, label }, updateQuery) {
  const format = kind === "date" ? DATE_FORMAT : createNumberFormat(field);
  /** @type {FacetItem<RangeFacet>} */
  let current;
  const select = (/** @type {RangeFilter} */ range) =>
    updateQuery((query) => selectRange(query, field, range), `range of ${field}`);
  const selectTyped = () => void select(orderRange(format.parse(from.value), format.parse(to.value)));
  const createInput = (/** @type {string} */ name) =>
    h("input", {
      type: format.type,
      step: format.type === "number" ? "any" : null,
      "aria-label": `${escapeControls(label)} ${name}${format.unit}`,
      on: { change: selectTyped },
    });
  const from = createInput("from");
  const to = createInput("to");
  const histogram = new Histogram((first, last) =>
    select(buildRange(current.facet, first, last, isInteger(field, current.about))),
  );
  const [min, max] = [h("span", {}), h("span", {})];
  const scale = h("div", { class: "scale", "aria-hidden": "true" }, min, max);
  const inputs = [h("label", {}, `From${format.unit}`, from), h("label", {}, `To${format.unit}`, to)];
  const element = h("div", { class: "facet-body" }, histogram.element, scale, h("div", { class: "ends" }, inputs));
  const update = (/** @type {FacetItem<RangeFacet>} */ item) => {
    current = item;
    const filter = item.query.filters.get(field);
    const range = filter && !filter.values ? filter : { from: null, to: null };
    const bounds = listBounds(item.facet);
    for (const [input, end, text, bound] of /** @type {const} */ ([
      [from, range.from, min, bounds[0]],
      [to, range.to, max, bounds[1]],
    ])) {
      setValue(input, format.format(end));
      setText(text, formatRangeEnd(field, bound));
      if (format.type === "number") setProps(input, { placeholder: format.format(bound) });
    }
    histogram.update(item.facet, (bucket) => !filter || (!filter.values && overlapsBucket(range, bucket)));
  };
  return { element, update };
}

/** @type {RangeEndFormat} */
const DATE_FORMAT = {
  type: "date",
  unit: "",
  format: (end) => (end === null ? "" : String(end).slice(0, 10)),
  parse: (text) => (text && text >= "1000" ? text : null), // a year that is being typed has fewer digits
};

/** @returns {RangeEndFormat} */
function createNumberFormat(/** @type {string} */ field) {
  const divisor = field === "bytes" ? BYTES_PER_UNIT : 1;
  return {
    type: "number",
    unit: field === "bytes" ? " (kB)" : "",
    format: (end) => (end === null ? "" : String(Number(end) / divisor)),
    parse: (text) => (text && Number.isFinite(Number(text)) ? Number(text) * divisor : null),
  };
}

/** The ends of the scale; of dates only the days, unless all are on one day. */
function listBounds(/** @type {RangeFacet} */ { kind, min, max }) {
  const [minDay, maxDay] = [String(min).slice(0, 10), String(max).slice(0, 10)];
  return kind === "date" && minDay !== maxDay ? [minDay, maxDay] : [min, max];
}

/** @returns {RangeFilter} */
const orderRange = (/** @type {RangeEnd} */ from, /** @type {RangeEnd} */ to) =>
  from !== null && to !== null && from > to ? { from: to, to: from } : { from, to };

/**
 * The range of the buckets `first` to `last`. Its end is included for days and whole numbers.
 * @param {RangeFacet} facet @param {number} first @param {number} last @param {boolean} hasIntegers @returns {RangeFilter}
 */
function buildRange({ buckets, kind }, first, last, hasIntegers) {
  const { from } = buckets[first];
  const { to } = buckets[last];
  if (kind === "date" && String(from).length === 10 && typeof to === "string" && to.length === 10)
    return { from, to: new Date(Date.parse(to) - DAY_MS).toISOString().slice(0, 10) };
  return hasIntegers && typeof to === "number" && Number.isInteger(to) ? { from, to: to - 1 } : { from, to, below: true };
}

function overlapsBucket(/** @type {RangeFilter} */ { from, to, below }, /** @type {RangeBucket} */ bucket) {
  if (from !== null && bucket.to <= from) return false;
  return to === null || (below ? bucket.from < to : bucket.from <= to);
}

/** A histogram in which the user selects a range by a click or a drag. */
class Histogram {
  /** The first bar of the drag in progress. @type {number | null} */
  #start = null;
  #renderedBuckets = "";

  /** @param {(first: number, last: number) => void} onSelect gets indexes of buckets */
  constructor(onSelect) {
    this.element = h("div", { class: "bars", role: "img" });
    this.element.addEventListener("pointerdown", (event) => this.#startDrag(event));
    this.element.addEventListener("pointermove", (event) => {
      if (this.#start !== null) this.#markBetween(this.#start, this.#findIndex(event));
    });
    this.element.addEventListener("pointerup", (event) => {
      if (this.#start === null) return;
      const [start, end] = [this.#start, this.#findIndex(event)];
      this.#start = null;
      onSelect(Math.min(start, end), Math.max(start, end));
    });
    this.element.addEventListener("pointercancel", () => {
      this.#start = null;
    });
  }

  /**
   * Shows the buckets of a facet, and marks those of a range.
   * @param {RangeFacet} facet @param {(bucket: RangeBucket) => boolean} isMarked
   */
  update(facet, isMarked) {
    const buckets = JSON.stringify(facet.buckets);
    if (buckets !== this.#renderedBuckets) this.#renderBars(facet);
    this.#renderedBuckets = buckets;
    if (this.#start === null) this.#mark((index) => isMarked(facet.buckets[index]));
  }

  #renderBars(/** @type {RangeFacet} */ { field, label, buckets, min, max }) {
    const maxCount = Math.max(1, ...buckets.map(({ count }) => count));
    const formatBucket = (/** @type {RangeBucket} */ { from, to }) => formatRange(field, { from, to, below: true });
    const bars = buckets.map((bucket) => {
      const bar = h("i", {});
      bar.style.height = bucket.count ? `${Math.max(MIN_BAR_PERCENT, (100 * bucket.count) / maxCount)}%` : "0";
      return h("span", { title: `${formatBucket(bucket)}: ${pluralize(bucket.count, "image")}` }, bar);
    });
    this.element.replaceChildren(...bars);
    const highest = buckets.find(({ count }) => count === maxCount);
    const peak = highest ? `; most in ${formatBucket(highest)}` : "";
    const range = `${formatRangeEnd(field, min)} to ${formatRangeEnd(field, max)}`;
    setProps(this.element, { "aria-label": `Histogram of ${escapeControls(label)}: ${range}${peak}` });
  }

  #startDrag(/** @type {PointerEvent} */ event) {
    if (event.button || !this.element.children.length) return;
    this.element.setPointerCapture(event.pointerId);
    this.#start = this.#findIndex(event);
    this.#markBetween(this.#start, this.#start);
  }

  #findIndex(/** @type {PointerEvent} */ { clientX }) {
    const { left, width } = this.element.getBoundingClientRect();
    const count = this.element.children.length;
    return Math.max(0, Math.min(count - 1, Math.floor(((clientX - left) / width) * count)));
  }

  #markBetween(/** @type {number} */ one, /** @type {number} */ other) {
    this.#mark((index) => index >= Math.min(one, other) && index <= Math.max(one, other));
  }

  #mark(/** @type {(index: number) => boolean} */ isMarked) {
    for (const [index, bar] of [...this.element.children].entries()) bar.classList.toggle("in", isMarked(index));
  }
}
