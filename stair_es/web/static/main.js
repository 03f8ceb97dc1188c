// Starts the page: one route at a time, one view for each kind of route.

import * as api from "./api.js";
import { asked, withVector } from "./change.js";
import { compareView } from "./compare-view.js";
import { h, icon, keyed, put, set, visible } from "./dom.js";
import { step } from "./grid.js";
import { imageView } from "./image-view.js";
import { keyboard } from "./keys.js";
import { copyText, errorNotice } from "./notice.js";
import { keepThumbnail, pictures, thumbnailOf } from "./picture.js";
import { pathOf, urlOf } from "./root.js";
import { searchView } from "./search-view.js";
import { hrefOf, NOTHING, readRoute } from "./state.js";

const byId = (id) => document.getElementById(id);
const shell = document.body;
const main = byId("main");
const met = new Map(); // id -> facts from a list, which a chip and the image's page show at once
const app = {
  about: null,
  title: "stair-es",
  corpus: null,
  trouble: null,
  shell,
  go,
  know,
  meet,
  drawTitle,
  met: (id) => met.get(id),
  found: () => views.search.listed(),
};
const views = { search: searchView(app), image: imageView(app), compare: compareView(app) };
let route = null;
let merged = "";
let lastSearch = history.state?.from ?? urlOf("");
let knowing = false;

/** Goes to a route. Steps with the same `merge` are one history entry; `still` keeps the scroll position. */
function go(next, { merge = "", replace = false, still = false } = {}) {
  const href = hrefOf(next);
  app.trouble = null;
  if (href === location.pathname + location.search) return show();
  const same = next.view === route?.view && next.view === "search";
  if (replace || (merge && merge === merged)) history.replaceState(history.state, "", href);
  else {
    history.replaceState({ ...history.state, y: scrollY }, "");
    history.pushState(stateOf(next), "", href);
  }
  merged = merge;
  const before = route;
  show();
  if (!still && !same) scrollTo(0, 0);
  returned(before);
}

/** The history state of a step to an image: its search, and the number of steps since. */
function stateOf(next) {
  if (next.view !== "image") return {};
  const steps = route.view === "search" ? 1 : history.state?.steps && history.state.steps + 1;
  return { from: lastSearch, steps };
}

/** Back at the hits: focuses the image that was opened last, and scrolls to it if it isn't visible. */
function returned(before) {
  if (before?.view !== "image" || route.view !== "search") return;
  const tile = views.search.element.querySelector(`[data-id="${CSS.escape(before.id)}"]`);
  if (tile?.matches(".waiting")) for (const each of tile.parentElement.querySelectorAll(".waiting")) each.classList.remove("waiting");
  tile?.querySelector("a[href]:not([tabindex='-1'])")?.focus({ preventScroll: true });
  tile?.scrollIntoView({ block: "nearest" });
}

function show() {
  const next = readRoute(location);
  const moved = next.view !== route?.view || next.id !== route?.id;
  route = next;
  document.body.dataset.view = route.view;
  if (route.view === "search") lastSearch = location.pathname + location.search;
  for (const [name, view] of Object.entries(views)) view.element.hidden = name !== route.view;
  drawShell();
  views[route.view].show(route);
  drawTitle();
  if (!app.about && !app.trouble && !knowing) know();
  if (moved && main.contains(document.activeElement) === false && document.activeElement === document.body)
    main.focus({ preventScroll: true });
}

function drawShell() {
  const query = route.view === "search" ? route.query : NOTHING;
  put(byId("text"), query.text);
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === "back" || link.dataset.nav === "search") link.href = lastSearch;
    set(link, { "aria-current": link.dataset.nav === route.view ? "page" : null });
  }
  drawChips(query);
}

/** The title of the tab: the content, and the title of the page. */
function drawTitle() {
  const looked = { search: () => visible(route.query.text), image: views.image.name, compare: () => "Compare" };
  document.title = [looked[route.view](), app.title].filter(Boolean).join(" · ");
}

function drawChips(query) {
  const chips = [
    ...(query.vector.length ? [{ kind: "vector", key: `vector ${query.vector.length} ${query.vector[0][0]}`, query }] : []),
    ...(query.like ? [{ kind: "like", key: `like ${query.like} ${met.has(query.like)}`, query }] : []),
  ];
  keyed(byId("chips"), chips, (chip) => chip.key, pictureChip);
  byId("chips").hidden = !chips.length;
}

/** An image in the query: uploaded or from the index. */
function pictureChip({ kind, query }) {
  const own = kind === "vector";
  const source = own ? thumbnailOf(query.vector) : met.get(query.like)?.thumbnail;
  const name = own ? `an image's ${query.vector.length} words` : `like ${visible(met.get(query.like)?.name ?? "an image")}`;
  const image = source
    ? h("img", { src: source, alt: "", width: 28, height: 28, on: { error: () => image.replaceWith(icon("picture")) } })
    : icon("picture");
  const without = () => go({ view: "search", query: own ? withVector(route.query, []) : { ...route.query, like: "" } });
  return h(
    "li",
    { class: "chip image-chip" },
    image,
    h("span", {}, name),
    h("button", { type: "button", class: "icon small", "aria-label": `Remove ${name}`, on: { click: without } }, icon("close")),
  );
}

/** Remembers the facts about images from lists. */
function meet(images) {
  for (const { id, name, thumbnail, caption, width, height, duplicates } of images)
    met.set(id, { name, thumbnail, caption, width, height, duplicates });
  if (route?.view === "search" && met.has(route.query.like)) drawChips(route.query);
}

async function take(blob) {
  if (app.about && blob.size > app.about.max_upload_bytes) {
    const mib = (bytes) => `${(bytes / 1048576).toFixed(1)} MiB`;
    return refuse(
      `the image has ${mib(blob.size)}; at most ${mib(app.about.max_upload_bytes)} are allowed`,
      "Use a smaller one: 640 pixels are enough.",
    );
  }
  shell.classList.add("reading");
  try {
    const { tokens, thumbnail } = await api.read(blob);
    const rounded = tokens.map(([name, value]) => [name, Number(value.toFixed(4))]);
    keepThumbnail(rounded, thumbnail);
    go({ view: "search", query: withVector(route.view === "search" ? { ...route.query, like: "" } : NOTHING, rounded) });
  } catch (error) {
    refuse(error.message, error.remedy);
  } finally {
    shell.classList.remove("reading");
  }
}

function refuse(message, remedy = "") {
  byId("toast").replaceChildren(errorNotice({ message, remedy }));
  setTimeout(() => byId("toast").replaceChildren(), 12000);
}

const copyLink = () => copyText(location.href, "Link");

function drawTheme() {
  const dark = document.documentElement.dataset.theme === "dark";
  byId("theme").replaceChildren(icon(dark ? "sun" : "moon"));
  set(byId("theme"), { "aria-pressed": String(dark) });
}

function switchTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("stair-es-theme", root.dataset.theme);
  } catch {
    // Storage is full or forbidden: nothing is kept.
  }
  drawTheme();
}

/** The link to the images; `<base>` would make it a link to the root. */
function skip(event) {
  event.preventDefault();
  main.focus();
}

/** Follows links within the page without reloading it. */
function follow(event) {
  const link = event.target.closest?.("a[href]");
  if (link?.classList.contains("skip")) return skip(event);
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const to = new URL(link.href);
  const ours =
    to.origin === location.origin &&
    !link.target &&
    !link.hash &&
    /^\/(compare|image\/.*)?$/.test(pathOf(to.pathname));
  if (!ours) return;
  event.preventDefault();
  if (link.dataset.nav === "back") return backToSearch();
  go(readRoute(to));
}

function leave() {
  const { side } = views.search;
  if (side.classList.contains("open")) return side.sheet(false);
  if (document.activeElement?.matches("input")) return document.activeElement.blur();
  if (route.view !== "image") return false;
  if (views.image.zoom.zoomed()) return views.image.zoom.reset();
  backToSearch();
}

/** Goes back in the history, to the same scroll position, or forward to the search if the image wasn't reached from it. */
function backToSearch() {
  if (history.state?.steps) history.go(-history.state.steps);
  else go(readRoute(new URL(lastSearch, location.href)));
}

/** An arrow key focuses a card, moves a zoomed picture, or goes to another picture. */
function arrow(key) {
  if (route.view === "search") return step(views.search.grid, key);
  if (route.view !== "image") return false;
  const { cards, pan, step: walk } = views.image;
  if (cards.contains(document.activeElement)) return step(cards, key);
  return pan(key) || (key === "ArrowRight" && walk(1)) || (key === "ArrowLeft" && walk(-1));
}

/** Runs an action on the shown image; elsewhere the key does nothing. */
const onImage = (act) => () => (route.view === "image" ? act(views.image) : false);

const openHelp = keyboard({
  find: () => byId("text").select() ?? byId("text").focus(),
  arrow,
  next: onImage(({ step: walk }) => walk(1)),
  previous: onImage(({ step: walk }) => walk(-1)),
  zoom: onImage(({ zoom }) => zoom.toggle()),
  zoomIn: onImage(({ zoom }) => zoom.step(1)),
  zoomOut: onImage(({ zoom }) => zoom.step(-1)),
  fullScreen: onImage(({ toggleFull }) => toggleFull()),
  like: () => {
    const id = document.activeElement?.closest("[data-id]")?.dataset.id ?? (route.view === "image" ? route.id : null);
    return id ? go({ view: "search", query: views.search.alike(id) }) : false;
  },
  weights: () => {
    const { side } = views.search;
    if (route.view !== "search") return false;
    const { display, position } = getComputedStyle(side);
    if (display === "none" || position === "fixed") side.sheet(true);
    side.querySelector("input[type=range]")?.focus();
  },
  explain: () => views[route.view].turn?.() ?? false,
  copy: copyLink,
  theme: switchTheme,
  leave,
});

async function start() {
  for (const [id, name] of [
    ["choose", "picture"],
    ["copy", "link"],
    ["help", "help"],
  ])
    byId(id).append(icon(name));
  main.replaceChildren(...Object.values(views).map((view) => view.element));
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const now = route.view === "search" ? route.query : NOTHING;
    go({ view: "search", query: asked(now, byId("text").value.trim()) });
  });
  byId("copy").addEventListener("click", copyLink);
  byId("theme").addEventListener("click", switchTheme);
  byId("help").addEventListener("click", openHelp);
  addEventListener("click", follow);
  addEventListener("popstate", ({ state }) => {
    merged = "";
    const before = route;
    show();
    requestAnimationFrame(() => {
      scrollTo(0, state?.y ?? 0);
      returned(before);
    });
  });
  history.scrollRestoration = "manual";
  drawTheme();
  pictures({ choose: byId("choose"), file: byId("file"), take, refuse });
  show();
}

/** Facts about the server, and words to try; requested again with the next step after a failure. */
async function know() {
  knowing = true;
  app.trouble = null;
  try {
    app.about = await api.about();
    app.title = visible(app.about.title);
    byId("title").textContent = app.title;
    drawTitle();
  } catch (error) {
    app.trouble = error;
  }
  knowing = false;
  show();
}

start();
