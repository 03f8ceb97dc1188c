// The list of completions below the box of a filter query, which keys and clicks select.

import { LatestTask, listValues } from "./api.js";
import { escapeControls, h, setProps } from "./dom.js";
import { completeComparison, completeField, parseContext, quoteValue } from "./filter-completion.js";
import { formatCount } from "./format.js";

export class FilterCompleter {
  #task = new LatestTask();
  #activeIndex = -1;

  /** @param {HTMLInputElement} input */
  constructor(input) {
    this.input = input;
    const props = { id: "filter-options", class: "options", role: "listbox", "aria-label": "Completions", hidden: true };
    this.element = h("ul", props);
    input.addEventListener("keydown", (event) => this.#handleKey(event));
    input.addEventListener("blur", () => this.close());
  }

  close() {
    this.#task.abort();
    this.element.hidden = true;
    setProps(this.input, { "aria-expanded": "false" });
    this.#activate(-1);
  }

  /** Lists the completions at the caret. @param {FieldInfo[]} fields */
  async complete(fields) {
    const context = parseContext(this.input.value, this.input.selectionStart ?? 0);
    if (!context) return this.close();
    if (context.kind === "field") return this.#render(completeField(context, fields), context.start);
    const field = fields.find(({ name }) => name === context.field);
    if (!field) return this.close();
    const comparisons = completeComparison(context, field.type);
    if (comparisons) return this.#render(comparisons, context.start);
    const { result, isStale } = await this.#task.run((signal) => listValues(field.name, context.prefix, signal));
    if (isStale) return;
    const values = (result?.values ?? []).map(({ value, count }) => ({ text: String(value), count }));
    const completions = values.filter(({ text }) => text !== context.prefix);
    this.#render(
      completions.map(({ text, count }) => ({ text, note: formatCount(count), insert: `${quoteValue(text)} ` })),
      context.start,
    );
  }

  #render(/** @type {Completion[]} */ completions, /** @type {number} */ start) {
    const caret = this.input.selectionStart ?? 0;
    const options = completions.map((completion, index) => this.#createOption(completion, index, start, caret));
    this.element.replaceChildren(...options);
    if (!completions.length) return this.close();
    this.element.hidden = false;
    setProps(this.input, { "aria-expanded": "true" });
    this.#activate(-1);
  }

  /** @param {Completion} completion @param {number} index @param {number} start @param {number} caret */
  #createOption({ text, note, insert }, index, start, caret) {
    const select = () => {
      this.input.setRangeText(insert, start, caret, "end");
      this.input.focus();
      this.input.dispatchEvent(new Event("input"));
    };
    const keepFocus = (/** @type {Event} */ event) => event.preventDefault();
    return h(
      "li",
      { id: `filter-option-${index}`, role: "option", "aria-selected": "false", on: { pointerdown: keepFocus, click: select } },
      h("bdi", {}, escapeControls(text)),
      note === "" ? null : h("span", { class: "n" }, escapeControls(note)),
    );
  }

  #activate(/** @type {number} */ index) {
    const options = [...this.element.children];
    this.#activeIndex = index;
    for (const [at, option] of options.entries()) setProps(option, { "aria-selected": String(at === index) });
    setProps(this.input, { "aria-activedescendant": options[index]?.id ?? null });
    options[index]?.scrollIntoView({ block: "nearest" });
  }

  #handleKey(/** @type {KeyboardEvent} */ event) {
    if (event.isComposing) return;
    const options = /** @type {HTMLElement[]} */ ([...this.element.children]);
    const active = this.#activeIndex;
    if (this.element.hidden) {
      if (event.key === "ArrowDown") this.input.click();
      return;
    }
    if (event.key === "ArrowDown") this.#activate((active + 1) % options.length);
    else if (event.key === "ArrowUp") this.#activate(active <= 0 ? options.length - 1 : active - 1);
    else if (["Enter", "Tab"].includes(event.key) && active >= 0) options[active].click();
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
  }
}
