// One hit: the picture, its name and score, and the common words with their contributions.

import { h, icon, keyed, say, set, visible } from "./dom.js";
import { weight, word } from "./words.js";

const SHOWN = 4;

/**
 * A card that is updated in place. `act` has the URLs `open(id)` and `like(id)`, and `word(name)` for a click on a word.
 * `update` takes `{hit, scale, hueOf, required}`; `scale` is shared by all hits, so that bars are comparable.
 */
export function hitCard({ hit }, act) {
  const link = h("a", { href: act.open(hit.id), class: "name", dir: "auto" }, visible(hit.name));
  const score = h("span", { class: "score" });
  const caption = h("p", { class: "caption", dir: "auto" });
  const ribbon = h("div", { class: "ribbon", "aria-hidden": "true" });
  const rows = h("ul", { class: "reasons", "aria-label": "Words in common" });
  const rest = h("button", { type: "button", class: "rest" });
  const also = h("ul", { class: "also", "aria-label": "Other words" });
  const card = h(
    "li",
    { class: "hit", data: { id: hit.id } },
    h("a", { href: act.open(hit.id), class: "picture", tabindex: "-1", "aria-hidden": "true" }, picture(hit.thumbnail)),
    h("div", { class: "head" }, h("h3", {}, link), score, caption),
    ribbon,
    rows,
    h(
      "div",
      { class: "foot" },
      rest,
      also,
      h(
        "a",
        { href: act.like(hit.id), class: "like", "aria-label": `More like ${visible(hit.name)}` },
        icon("like"),
        "more like this",
      ),
    ),
  );
  let open = false;
  let last = null;
  rest.addEventListener("click", () => {
    open = !open;
    card.update(last);
  });

  card.update = (shown) => {
    last = shown;
    const { hit, scale, hueOf, required } = shown;
    say(score, weight(hit.score));
    score.hidden = ribbon.hidden = !hit.score; // if the hits aren't ranked by words
    set(score, { title: `score ${hit.score}` });
    say(caption, hit.caption ? visible(hit.caption) : "");
    caption.hidden = !hit.caption;
    set(caption, { title: hit.caption ? visible(hit.caption).slice(0, 400) : null });
    drawRibbon(ribbon, hit, hueOf, scale.score);
    keyed(
      rows,
      open ? hit.contributions : hit.contributions.slice(0, SHOWN),
      (reason) => reason.token,
      () => reasonRow(act.word),
    );
    for (const [place, row] of [...rows.children].entries()) row.fill(hit.contributions[place], hueOf, scale.adds, required);
    const hidden = hit.contributions.slice(SHOWN);
    rest.hidden = !hidden.length;
    set(rest, {
      "aria-expanded": String(open),
      "aria-label": `${open ? "Fewer words" : `${hidden.length} more words in common`} of ${visible(hit.name)}`,
    });
    say(rest, open ? "fewer" : `+${hidden.length} = ${weight(hidden.reduce((sum, reason) => sum + reason.contribution, 0))}`);
    const common = new Set(hit.contributions.map((reason) => reason.token));
    keyed(
      also,
      hit.tokens.filter(([name]) => !common.has(name)).slice(0, 3),
      ([name]) => name,
      ([name]) => tag(name, act.word),
    );
    also.hidden = !also.children.length;
  };
  return card;
}

/** The largest score and the largest contribution of a word among hits. */
export function scaleOf(hits) {
  const most = (numbers) => numbers.reduce((one, other) => Math.max(one, other), 1e-9);
  const adds = hits.flatMap((hit) => hit.contributions.map((reason) => reason.contribution));
  return { score: most(hits.map((hit) => hit.score)), adds: most(adds) };
}

/** The image, or a placeholder. */
export function picture(address, alt = "") {
  const none = () => h("span", { class: "none" }, icon("picture"));
  if (!address) return none();
  const image = h("img", {
    src: address,
    alt,
    loading: "lazy",
    decoding: "async",
    on: { error: () => image.replaceWith(none()) },
  });
  return image;
}

/** The score as one line: a part for each word with a color, as long as its contribution, and one for all others. */
export function drawRibbon(ribbon, hit, hueOf, top) {
  const all = hit.contributions.map((reason) => ({ key: reason.token, adds: reason.contribution, hue: hueOf(reason.token) }));
  const parts = all.filter((part) => part.hue !== "rest");
  const rest = all.filter((part) => part.hue === "rest").reduce((sum, part) => sum + part.adds, 0);
  if (rest) parts.push({ key: " rest", adds: rest, hue: "rest" });
  if (hit.text_score > 0.005 * hit.score) parts.push({ key: " beside", adds: hit.text_score, hue: "beside" });
  keyed(
    ribbon,
    parts,
    (part) => part.key,
    () => {
      const part = h("i", {});
      part.update = ({ adds, hue }) => {
        part.dataset.hue = hue;
        part.style.width = `${(100 * adds) / top}%`;
      };
      return part;
    },
  );
}

function reasonRow(onWord) {
  const bar = h("i", {});
  const sum = h("span", { class: "sum" });
  let name = "";
  const button = h("button", { type: "button", class: "term", on: { click: () => onWord(name) } });
  const row = h("li", {}, button, h("span", { class: "track", "aria-hidden": "true" }, bar), sum);
  row.fill = (reason, hueOf, most, required) => {
    if (name !== reason.token) button.replaceChildren(word((name = reason.token)));
    const must = required.has(name);
    set(button, { "aria-pressed": String(must), title: must ? "Required: click to remove" : "Click to require it" });
    bar.dataset.hue = hueOf(name);
    bar.style.width = `${(100 * reason.contribution) / most}%`;
    say(sum, `${weight(reason.query_weight)} × ${weight(reason.document_weight)} = ${weight(reason.contribution)}`);
  };
  return row;
}

function tag(name, onWord) {
  return h(
    "li",
    {},
    h(
      "button",
      { type: "button", class: "tag", title: "Click to add it to the query", on: { click: () => onWord(name) } },
      word(name),
    ),
  );
}
