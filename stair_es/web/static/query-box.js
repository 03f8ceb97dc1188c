// The filter as a query string: a box that completes fields and values, and shows errors.

import * as api from "./api.js";
import { filtered } from "./change.js";
import { listComparisons, listExamples, listFields, quoted, readPlace } from "./completion.js";
import { h, put, set, visible } from "./dom.js";
import { errorNotice } from "./notice.js";
import { bodyOf, NOTHING } from "./state.js";

/** The form; `show({facets, query, about})`. `done()` is called when a filter was accepted. */
export function queryBox({ change, done }) {
  const input = h("input", {
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
  });
  const options = h("ul", { id: "filter-options", class: "options", role: "listbox", "aria-label": "Completions", hidden: true });
  const problem = h("div", { id: "filter-problem" });
  const examples = h("dl", { class: "filter-help" });
  const apply = h("button", { type: "submit", class: "strong" }, "Apply");
  const element = h(
    "form",
    { class: "query-box", "aria-label": "Filter by a query" },
    h("label", { for: "filter" }, "Query over the fields"),
    h("div", { class: "entry" }, input, apply),
    options,
    problem,
    examples,
  );
  const list = optionList(input, options);
  const checking = api.latest();
  let about = null;

  async function submit() {
    const filter = input.value.trim();
    list.close();
    const { error, stale } = filter ? await checking((signal) => api.facets({ ...bodyOf(NOTHING), filter }, signal)) : {};
    if (stale) return;
    set(input, { "aria-invalid": error ? "true" : null });
    problem.replaceChildren(...(error ? [errorNotice(error)] : []));
    if (error) return input.focus();
    change((query) => filtered(query, filter));
    done();
  }

  input.addEventListener("input", () => {
    problem.replaceChildren();
    set(input, { "aria-invalid": null });
    list.complete(about?.fields ?? []);
  });
  input.addEventListener("click", () => list.complete(about?.fields ?? []));
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });

  element.show = (now) => {
    const late = !about && now.about && document.activeElement === input; // typed before the fields were known
    about = now.about;
    if (late) list.complete(about.fields);
    put(input, now.query.filter);
    const lines = listExamples(now.facets);
    set(input, { placeholder: lines[0]?.[0] ?? "" });
    if (examples.dataset.of === JSON.stringify(lines)) return;
    examples.dataset.of = JSON.stringify(lines);
    examples.replaceChildren(...lines.map((line) => exampleLine(line, input)));
  };
  return element;
}

function exampleLine([text, does], input) {
  const use = () => {
    input.value = text;
    input.dispatchEvent(new Event("input"));
    input.focus();
  };
  return h(
    "div",
    {},
    h("dt", {}, h("button", { type: "button", class: "quiet", on: { click: use } }, h("code", {}, visible(text)))),
    h("dd", {}, does),
  );
}

/** The completions below a box: `complete(fields)` lists them for the position of the caret; keys select one. */
function optionList(input, options) {
  const asking = api.latest();
  let active = -1;

  function mark(place) {
    active = place;
    for (const [at, option] of [...options.children].entries()) set(option, { "aria-selected": String(at === place) });
    set(input, { "aria-activedescendant": options.children[place]?.id ?? null });
    options.children[place]?.scrollIntoView({ block: "nearest" });
  }

  function close() {
    asking.stop();
    options.hidden = true;
    set(input, { "aria-expanded": "false" });
    mark(-1);
  }

  function draw(items, place) {
    const caret = input.selectionStart;
    options.replaceChildren(
      ...items.map(({ text, note, insert }, at) =>
        h(
          "li",
          {
            id: `filter-option-${at}`,
            role: "option",
            "aria-selected": "false",
            on: { pointerdown: (event) => event.preventDefault(), click: () => take(insert, place.start, caret) },
          },
          h("bdi", {}, visible(text)),
          note === "" ? null : h("span", { class: "n" }, visible(note)),
        ),
      ),
    );
    if (!items.length) return close();
    options.hidden = false;
    set(input, { "aria-expanded": "true" });
    mark(-1);
  }

  function take(insert, start, caret) {
    input.setRangeText(insert, start, caret, "end");
    input.focus();
    input.dispatchEvent(new Event("input"));
  }

  async function complete(fields) {
    const place = readPlace(input.value, input.selectionStart);
    if (!place) return close();
    if (place.kind === "field") return draw(listFields(place, fields), place);
    const field = fields.find(({ name }) => name === place.field);
    if (!field) return close();
    const comparisons = listComparisons(place, field.type);
    if (comparisons) return draw(comparisons, place);
    const { result, stale } = await asking((signal) => api.values(field.name, place.typed, signal));
    if (stale) return;
    const values = (result?.values ?? []).filter(({ value }) => String(value) !== place.typed);
    draw(
      values.map(({ value, count }) => ({
        text: String(value),
        note: count.toLocaleString("en"),
        insert: `${quoted(String(value))} `,
      })),
      place,
    );
  }

  input.addEventListener("keydown", (event) => {
    const { length } = options.children;
    if (options.hidden) {
      if (event.key === "ArrowDown") input.click();
      return;
    }
    const to = { ArrowDown: (active + 1) % length, ArrowUp: active <= 0 ? length - 1 : active - 1 }[event.key];
    if (to !== undefined) mark(to);
    else if (["Enter", "Tab"].includes(event.key) && active >= 0) options.children[active].click();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
  return { complete, close };
}
