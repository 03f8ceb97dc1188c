// One picture of the gallery: uncropped, with its name, its score and its heaviest words.

import { h, icon, say, set, visible } from "./dom.js";
import { isPiece, many, weight } from "./words.js";

const WORDS = 3;
/** Number of tiles that are usually on the first screen, whose pictures load eagerly. */
const FIRST = 8;
/** Limits of the aspect ratio of a tile; other pictures get a margin. */
const TALLEST = 0.33;
const WIDEST = 5;

/** A tile that is updated in place; `act` has the URL `open(id)`, and `copies(hit)` for a click on the number of copies. */
export function tile({ hit, place }, act) {
  const score = h("span", { class: "score" });
  const words = h("span", { class: "counting" });
  const link = h(
    "a",
    { href: act.open(hit.id), class: "picture" },
    image(hit, place < FIRST),
    h(
      "span",
      { class: "about", "aria-hidden": "true" },
      h("bdi", { class: "title" }, visible(hit.name)),
      score,
      words,
    ),
  );
  const copies = h("button", { type: "button", class: "copies", on: { click: () => act.copies(shown.hit) } });
  const item = h("li", { class: "tile", data: { id: hit.id } }, link, copies);
  item.style.setProperty("--ratio", String(ratioOf(hit)));
  let shown = {};
  item.update = (next) => {
    if (next.hit === shown.hit) return;
    shown = next;
    drawScore(next.hit);
    drawCopies(next.hit);
  };
  return item;

  function drawScore({ name, score: value, contributions }) {
    const counting = contributions.filter(({ token }) => !isPiece(token)).slice(0, WORDS);
    say(score, contributions.length || value ? weight(value) : "");
    words.replaceChildren(...counting.map(({ token }) => h("bdi", {}, visible(token))));
    words.hidden = !counting.length;
    const because = counting.length ? `: ${counting.map(({ token }) => visible(token)).join(", ")}` : "";
    set(link, { "aria-label": `${visible(name)}${value ? `, score ${weight(value)}` : ""}${because}` });
  }

  function drawCopies({ name, duplicates = [] }) {
    copies.hidden = !duplicates.length;
    say(copies, `+${duplicates.length}`);
    set(copies, { "aria-label": `${many(duplicates.length, "copy", "copies")} of ${visible(name)}`, title: "Copies of this image" });
  }
}

/** Aspect ratio, within the limits of a row. */
function ratioOf({ width, height }) {
  return width > 0 && height > 0 ? Math.min(WIDEST, Math.max(TALLEST, width / height)) : 4 / 3;
}

function image({ thumbnail, thumbnail_2x: twice, width, height }, first) {
  const none = () => h("span", { class: "none" }, icon("picture"));
  if (!thumbnail) return none();
  const made = h("img", {
    alt: "",
    width: width || null,
    height: height || null,
    loading: first ? "eager" : "lazy",
    fetchpriority: first ? "high" : null,
    decoding: "async",
    srcset: twice ? `${thumbnail} 1x, ${twice} 2x` : null,
    src: thumbnail,
    on: { error: () => made.replaceWith(none()) },
  });
  return made;
}

/** Placeholder tiles of several widths. */
export function skeletons(count) {
  return Array.from({ length: count }, (_, place) => {
    const bone = h("li", { class: "tile skeleton", "aria-hidden": "true" });
    bone.style.setProperty("--ratio", String([1.5, 1, 1.33, 0.75, 1.78][place % 5]));
    return bone;
  });
}

/** The list of an image's copies: `show(hit)` opens it; `open(id)` is the URL of a copy. */
export function copiesDialog(open) {
  const title = h("h2", { id: "copies-title" });
  const list = h("ul", {});
  const close = h("button", { type: "button", class: "icon", "aria-label": "Close" }, icon("close"));
  const dialog = h(
    "dialog",
    { class: "copies-list", "aria-labelledby": "copies-title" },
    h("div", { class: "title" }, title, close),
    list,
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => (event.target === dialog || event.target.closest("a")) && dialog.close());
  dialog.show = ({ id, name, uri, duplicates }) => {
    say(title, `${many(duplicates.length + 1, "file")} of the same image`);
    list.replaceChildren(
      ...[{ id, name, uri }, ...duplicates].map((copy) =>
        h(
          "li",
          {},
          h("a", { href: open(copy.id), dir: "auto" }, visible(copy.name)),
          h("span", { class: "hint", dir: "auto" }, visible(copy.uri ?? "")),
        ),
      ),
    );
    dialog.showModal();
  };
  return dialog;
}
