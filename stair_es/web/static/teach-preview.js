// The preview of a word, in place of a search: its tokens, what is estimated of it, and the pictures that would get it.

import { createButton, escapeControls, h, renderList } from "./dom.js";
import { formatCount, formatWeight, pluralize, renderToken } from "./format.js";
import { GalleryRows } from "./gallery-rows.js";
import { getHitId } from "./hit-list.js";
import { buildHref } from "./routes.js";
import { createTile } from "./tile.js";

/** @type {HitActions} */
const HIT_ACTIONS = {
  buildOpenHref: (id) => buildHref({ view: "image", id }),
  buildSimilarHref: (id) => buildHref({ view: "image", id }),
  selectToken: () => {},
  showDuplicates: () => {},
};

export class TeachPreview {
  /** @param {() => void} hide */
  constructor(hide) {
    this.heading = h("h2", { tabindex: -1 });
    this.facts = h("div", { class: "facts" });
    this.matches = h("ol", { class: "gallery found", "aria-label": "Pictures that would match" });
    this.weakTitle = h("h3", { class: "weak-title" }, "Weak matches");
    this.weak = h("ol", { class: "gallery weak", "aria-label": "Pictures that would be weak matches" });
    const back = createButton({ class: "quiet", on: { click: hide } }, "back to the search");
    const title = h("div", { class: "title" }, this.heading, back);
    this.element = h("section", { class: "preview", hidden: true }, title, this.facts, this.matches, this.weakTitle, this.weak);
    this.rows = [new GalleryRows(this.matches), new GalleryRows(this.weak)];
  }

  /** @param {TeachPreviewResponse} preview @param {App["getImage"]} getImage */
  show(preview, getImage) {
    this.element.hidden = false;
    this.element.parentElement?.classList.add("previewing");
    this.heading.textContent = `Preview of “${escapeControls(preview.word)}”`;
    this.facts.replaceChildren(...renderFacts(preview, getImage));
    const weak = preview.hits.filter((hit) => hit.weak);
    for (const [list, hits] of /** @type {const} */ ([
      [this.matches, preview.hits.filter((hit) => !hit.weak)],
      [this.weak, weak],
    ])) {
      const items = hits.map((hit) => ({ hit }));
      renderList(list, items, getHitId, (item) => createTile(item, HIT_ACTIONS));
    }
    this.weakTitle.hidden = !weak.length;
    for (const rows of this.rows) rows.update(false);
    scrollTo(0, 0);
    this.heading.focus({ preventScroll: true });
  }

  /** Shows the search again; false if it is shown. */
  hide() {
    const wasShown = !this.element.hidden;
    this.element.hidden = true;
    for (const list of [this.matches, this.weak]) list.replaceChildren();
    this.element.parentElement?.classList.remove("previewing");
    return wasShown;
  }
}

/** @param {TeachPreviewResponse} preview @param {App["getImage"]} getImage */
function renderFacts(preview, getImage) {
  const { tokens, yes, no, images, sampled, matches, precision, found_again: found, erased } = preview;
  const share = precision === null ? "" : `About ${Math.round(100 * precision)} % of its matches show it. `;
  const total = sampled ? `About ${formatCount(matches)} of ${pluralize(images, "image")} would match. ` : "";
  const again = `${found} of the ${yes.length} marked pictures would be found if they were not marked.`;
  const name = (/** @type {string[]} */ ids) => ids.map((id) => escapeControls(getImage(id)?.name ?? id)).join(", ");
  const notes = [
    describeMode(preview),
    preview.taught && "It was taught before: applying it replaces what it means.",
    erased > 0 && `${pluralize(erased, "marked picture")} no longer in the index.`,
    preview.doubtful_yes.length > 0 && `Marked as showing it, but no match: ${name(preview.doubtful_yes)}.`,
    preview.matching_no.length > 0 && `Marked as not showing it, but a match: ${name(preview.matching_no)}.`,
    !no.length && "Mark pictures that don't show it, too: they make it more exact.",
  ];
  const chips = tokens.map(([token, weight]) =>
    h("li", { class: "chip" }, renderToken(token), " ", h("span", { class: "n" }, formatWeight(weight))),
  );
  return [
    h("p", {}, share, total, again),
    h("ul", { class: "chips", "aria-label": "Words of the model that make it up" }, chips),
    h("ul", { class: "hint" }, ...notes.filter(Boolean).map((note) => h("li", {}, note))),
  ];
}

/** @param {TeachPreviewResponse} preview */
function describeMode({ known, mode }) {
  if (!known) return "The model doesn't know the word.";
  return mode === "add" ? "It adds to what the model knows of the word." : "It replaces what the model knows of the word.";
}
