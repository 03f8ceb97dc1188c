// The filter as a query string: a box that completes fields and values, and shows errors.

import { countFacets, LatestTask } from "./api.js";
import { createButton, escapeControls, h, setProps, setValue } from "./dom.js";
import { FilterCompleter } from "./filter-completer.js";
import { listExamples } from "./filter-completion.js";
import { renderError } from "./notifications.js";
import { buildSearchBody, EMPTY_QUERY, setFilterQuery } from "./query.js";

const INPUT_PROPS = {
  type: "text",
  id: "filter",
  role: "combobox",
  "aria-autocomplete": "list",
  "aria-expanded": "false",
  "aria-controls": "filter-options",
  "aria-describedby": "filter-problem",
  autocomplete: "off",
  autocapitalize: "none",
  spellcheck: "false",
};

export class FilterQueryForm {
  #validation = new LatestTask();
  /** @type {FieldInfo[] | null} */
  #fields = null;
  #renderedExamples = "";

  /** @param {UpdateQuery} updateQuery @param {() => void} onApply is called when a filter was accepted */
  constructor(updateQuery, onApply) {
    this.updateQuery = updateQuery;
    this.onApply = onApply;
    this.input = h("input", { ...INPUT_PROPS, on: { input: () => this.#handleInput(), click: () => this.#complete() } });
    this.completer = new FilterCompleter(this.input);
    this.problem = h("div", { id: "filter-problem" });
    this.examples = h("dl", { class: "filter-help" });
    const apply = h("button", { type: "submit", class: "strong" }, "Apply");
    const submit = (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#apply();
    };
    this.element = h(
      "form",
      { class: "query-box", "aria-label": "Filter by a query", on: { submit } },
      h("label", { for: "filter" }, "Query over the fields"),
      h("div", { class: "entry" }, this.input, apply),
      this.completer.element,
      this.problem,
      this.examples,
    );
  }

  /** @param {{facets: Facet[], query: Query, about: AboutResponse | null}} state */
  update({ facets, query, about }) {
    const isTyping = document.activeElement === this.input;
    const hadFields = this.#fields !== null;
    this.#fields = about?.fields ?? null;
    if (!hadFields && this.#fields && isTyping) this.#complete(); // typed before the fields were known
    setValue(this.input, query.filter);
    this.#renderExamples(listExamples(facets));
  }

  #renderExamples(/** @type {[filter: string, meaning: string][]} */ examples) {
    setProps(this.input, { placeholder: examples[0]?.[0] ?? "" });
    const key = JSON.stringify(examples);
    if (key === this.#renderedExamples) return;
    this.#renderedExamples = key;
    const rows = examples.map(([filter, meaning]) => {
      const button = createButton(
        { class: "quiet", on: { click: () => this.#insert(filter) } },
        h("code", {}, escapeControls(filter)),
      );
      return h("div", {}, h("dt", {}, button), h("dd", {}, meaning));
    });
    this.examples.replaceChildren(...rows);
  }

  #insert(/** @type {string} */ filter) {
    this.input.value = filter;
    this.input.dispatchEvent(new Event("input"));
    this.input.focus();
  }

  #handleInput() {
    this.#showError(null);
    this.#complete();
  }

  #complete() {
    this.completer.complete(this.#fields ?? []);
  }

  #showError(/** @type {Error | null} */ error) {
    setProps(this.input, { "aria-invalid": error ? "true" : null });
    this.problem.replaceChildren(...(error ? [renderError(error)] : []));
  }

  async #apply() {
    const filter = this.input.value.trim();
    this.completer.close();
    const body = { ...buildSearchBody(EMPTY_QUERY), filter };
    const { error, isStale } = await this.#validation.run(async (signal) => filter && countFacets(body, signal));
    if (isStale) return;
    this.#showError(error);
    if (error) return this.input.focus();
    this.updateQuery((query) => setFilterQuery(query, filter));
    this.onApply();
  }
}
