// One image: all its words, what else is known of it, and the images nearest to it.

import * as api from "./api.js";
import { likeImage } from "./change.js";
import { h, keyed, put, say, set, visible } from "./dom.js";
import { arrange } from "./grid.js";
import { hitCard, picture, scaleOf } from "./hit.js";
import { layout, wordBar } from "./image-parts.js";
import { errorNotice } from "./notice.js";
import { hrefOf, NOTHING } from "./state.js";
import { colour, hues, many, weight } from "./words.js";

const NEAR = 12;

export function imageView(app) {
  const parts = layout();
  const loading = api.latest();
  const nearing = api.latest();
  let route = null;
  let image = null;

  const change = (fields, merge) => app.go({ ...route, ...fields }, { merge, still: true });
  const pick = (name) =>
    change({ picked: route.picked.includes(name) ? route.picked.filter((other) => other !== name) : [...route.picked, name] });

  function show(next) {
    const other = route?.id !== next.id || !image;
    route = next;
    if (!other) return drawWords();
    image = null;
    parts.problem.replaceChildren();
    load();
  }

  async function load() {
    parts.element.setAttribute("aria-busy", "true");
    const { result, error, stale } = await loading((signal) => api.image(route.id, signal));
    if (stale) return;
    parts.element.setAttribute("aria-busy", "false");
    parts.body.hidden = Boolean(error);
    parts.problem.replaceChildren(...(error ? [errorNotice(error, load)] : []));
    if (error) return say(parts.name, "No image");
    image = result;
    app.meet([image]);
    draw();
    near();
  }

  async function near() {
    const { result, error, stale } = await nearing((signal) => api.neighbors(route.id, NEAR, signal));
    if (stale) return;
    parts.trouble.replaceChildren(...(error ? [errorNotice(error, near)] : []));
    const hits = error ? [] : result.hits;
    app.meet(hits);
    const scale = scaleOf(hits);
    const hueOf = hues(image.tokens.map(([name]) => name));
    const act = {
      open: (id) => hrefOf({ view: "image", id }),
      like: (id) => hrefOf({ view: "search", query: likeImage(id) }),
      word: pick,
    };
    arrange(
      parts.near,
      hits.map((hit) => ({ hit, scale, hueOf, required: new Set() })),
      (item) => item.hit.id,
      (item) => hitCard(item, act),
    );
    parts.none.hidden = Boolean(error || hits.length);
  }

  function draw() {
    const name = visible(image.name);
    say(parts.name, name);
    app.drawTitle();
    say(parts.caption, image.caption ? visible(image.caption) : "");
    parts.caption.hidden = !image.caption;
    parts.figure.replaceChildren(
      picture(image.original ?? image.thumbnail, image.caption ? visible(image.caption).slice(0, 300) : name),
    );
    parts.figure.classList.toggle("large", Boolean(image.original));
    set(parts.original, { href: image.original ?? "#" });
    parts.original.hidden = !image.original;
    set(parts.like, { href: hrefOf({ view: "search", query: likeImage(image.id) }) });
    say(parts.sum, `${many(image.explain.token_count, "word")}, total weight ${weight(image.explain.sum_of_weights)}`);
    parts.facts.replaceChildren(
      ...[["uri", image.uri], ...Object.entries(image.facts)].map(([key, value]) =>
        h("tr", {}, h("th", { scope: "row" }, visible(key)), h("td", {}, drawnFact(key, value))),
      ),
    );
    drawWords();
  }

  function drawWords() {
    const hueOf = hues(image.tokens.map(([name]) => name));
    const most = Math.max(...image.tokens.map(([, value]) => value), 1e-9);
    const sought = route.find.toLowerCase();
    const shown = image.tokens.filter(([name]) => name.toLowerCase().includes(sought));
    if (route.sort === "name") shown.sort(([one], [other]) => bare(one).localeCompare(bare(other)));
    put(parts.find, route.find);
    parts.sort.value = route.sort;
    keyed(
      parts.words,
      shown,
      ([name]) => name,
      ([name]) => wordBar(name, pick),
    );
    for (const [place, [name, value]] of shown.entries())
      parts.words.children[place].fill(value, most, hueOf(name), route.picked.includes(name));
    say(parts.matches, sought ? `${many(shown.length, "word")} of ${image.tokens.length}` : "");
    const vector = route.picked.length ? image.tokens.filter(([name]) => route.picked.includes(name)) : image.tokens;
    say(parts.withWords, route.picked.length ? `search with ${many(vector.length, "selected word")}` : "search with these words");
    set(parts.withWords, { href: hrefOf({ view: "search", query: { ...NOTHING, vector } }) });
    parts.clear.hidden = !route.picked.length;
  }

  parts.find.addEventListener("input", () => change({ find: parts.find.value }, "find"));
  parts.sort.addEventListener("change", () => change({ sort: parts.sort.value }));
  parts.clear.addEventListener("click", () => change({ picked: [] }));
  return { element: parts.element, show, grid: parts.near, name: () => (image ? visible(image.name) : "") };
}

const bare = (name) => name.replace(/^##/, "");

function drawnFact(key, value) {
  if (key !== "colours" || !Array.isArray(value)) return h("bdi", {}, told(value));
  return h(
    "ul",
    { class: "chips" },
    value.map((name) => h("li", {}, colour(name))),
  );
}

function told(value) {
  if (typeof value === "string") return visible(value);
  return visible(
    Array.isArray(value) && value.every((one) => typeof one !== "object") ? value.join(", ") : JSON.stringify(value),
  );
}
