// What is among the images that match: their heaviest words, their colours, their sources; and the filter box.

import { filtered, from, having, inColour } from "./change.js";
import { h, keyed, put, say, set, visible } from "./dom.js";
import { colour, short, word } from "./words.js";

export function facetPanel(change) {
  const box = h("input", {
    type: "text",
    id: "filter",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "width:>800 AND format:JPEG",
  });
  const form = h(
    "form",
    { class: "filter" },
    h("label", { for: "filter" }, "Filter"),
    box,
    h("button", { type: "submit" }, "Apply"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    change((query) => filtered(query, box.value.trim()));
  });
  const words = h("ul", { class: "facet words", "aria-label": "Filter by word" });
  const colours = h("ul", { class: "facet colours", "aria-label": "Filter by colour" });
  const coloursTitle = h("h3", { class: "sub" }, "Colours");
  const sources = h("ul", { class: "facet sources", "aria-label": "Filter by source" });
  const found = h(
    "div",
    { class: "found" },
    h("h2", {}, "Among the matches"),
    words,
    coloursTitle,
    colours,
    h("h3", { class: "sub" }, "Sources"),
    sources,
  );
  const element = h("section", { class: "facets", "aria-label": "Filters" }, found, form);

  /** Shows `{facets, query}`; `facets` may be missing. */
  element.show = ({ facets, query }) => {
    put(box, query.filter);
    found.hidden = !facets;
    if (!facets) return;
    const draw = (list, items, chosen, labelOf, act) => {
      const shown = withChosen(items, chosen);
      keyed(
        list,
        shown,
        (item) => item.name,
        ({ name }) => facet(name, labelOf(name), () => change((now) => act(now, name))),
      );
      const most = Math.max(1, facets.total);
      for (const [place, item] of shown.entries()) list.children[place].fill(item, chosen.includes(item.name), most);
    };
    const named = (counts, key) => counts.map(({ [key]: name, count }) => ({ name, count }));
    draw(words, named(facets.tokens, "token"), query.has, word, having);
    draw(colours, named(facets.colours, "colour"), query.colours, colour, inColour);
    coloursTitle.hidden = colours.hidden = !colours.children.length; // an index may lack them
    draw(sources, named(facets.sources, "source"), query.sources, short, from);
  };
  element.box = box;
  return element;
}

/** What was chosen stays in the list even when the matches have none of it, so that it can be lifted. */
function withChosen(items, chosen) {
  const names = new Set(items.map((item) => item.name));
  return [...chosen.filter((name) => !names.has(name)).map((name) => ({ name, count: 0 })), ...items];
}

function facet(name, label, act) {
  const count = h("span", { class: "n" });
  const bar = h("i", { "aria-hidden": "true" });
  const button = h(
    "button",
    { type: "button", title: visible(name), on: { click: act } },
    bar,
    h("span", { class: "what" }, label),
    count,
  );
  const item = h("li", {}, button);
  item.fill = (shown, on, most) => {
    say(count, String(shown.count));
    set(button, { "aria-pressed": String(on) });
    bar.style.width = `${(100 * shown.count) / most}%`;
  };
  return item;
}
