// Teaches the index a word: pictures of any search are marked as showing it or not, and a preview shows what it would find.

import { forgetWord, LatestTask, listTaughtWords, previewWord, teachWord } from "./api.js";
import { announce, escapeControls, renderList, setProps, setText } from "./dom.js";
import { pluralize } from "./format.js";
import { renderError, showNote } from "./notifications.js";
import { createTaughtItem, createTeachLayout } from "./teach-layout.js";
import { TeachPreview } from "./teach-preview.js";

const MIN_MARKS = 3;
const MAX_MARKS = 20;
/** A mark, and the one that follows with a click. @type {Record<Mark, Mark>} */
const NEXT_MARKS = { none: "yes", yes: "no", no: "none" };
/** @type {Record<Mark, string>} */
const MARK_LABELS = { none: "not marked", yes: "shows it", no: "doesn't show it" };
const LINKS = "a.name, a.picture:not([aria-hidden])";

export class TeachMode {
  /** The marks of pictures, which stay during other searches. @type {Map<string, Mark>} */
  #marks = new Map();
  /** @type {TaughtWord[]} */
  #words = [];
  /** The body of the request whose preview is shown. */
  #previewed = "";
  /** What is being waited for. */
  #pending = "";
  #task = new LatestTask();
  /** The taught word whose former marks were added, and the pictures that got them. */
  #former = { word: "", ids: /** @type {string[]} */ ([]) };

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.layout = createTeachLayout();
    this.preview = new TeachPreview(() => this.hidePreview());
    this.opener = this.layout.opener;
    this.element = this.layout.element;
    const { word, form, cancel, apply } = this.layout;
    this.opener.addEventListener("click", () => this.open());
    word.addEventListener("input", () => this.#render());
    cancel.addEventListener("click", () => this.#close());
    apply.addEventListener("click", () => this.#apply());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#preview();
    });
    addEventListener("click", (event) => this.#markPicture(event), true); // before the link is followed
    addEventListener("keydown", (event) => this.#pressLink(event), true);
  }

  // ---- For the page ----

  get isOpen() {
    return !this.element.hidden;
  }

  /** Shows what the server allows, in the view that has pictures to mark. @param {boolean} isAllowed @param {boolean} isShown */
  update(isAllowed, isShown) {
    document.body.classList.toggle("can-teach", isAllowed);
    this.opener.hidden = !isAllowed;
    this.element.classList.toggle("away", !isShown);
  }

  /** Whether the index is being changed, which can't be cancelled. */
  get #isChanging() {
    return this.layout.cancel.disabled;
  }

  /** Opens the bar. @param {string} word the word to teach, if it is known */
  open(word = "") {
    if (this.#isChanging) return;
    if (word || !this.isOpen) this.layout.word.value = word;
    this.element.hidden = false;
    this.#render();
    this.layout.word.focus();
    this.#loadWords();
  }

  /** Shows the marks on the pictures of a list. @param {Element} list */
  showMarks(list) {
    if (!this.isOpen && !list.querySelector("[data-mark]")) return;
    for (const item of /** @type {NodeListOf<HTMLElement>} */ (list.querySelectorAll("[data-id]"))) {
      const mark = this.isOpen ? (this.#marks.get(item.dataset.id ?? "") ?? "none") : null;
      setProps(item, { "data-mark": mark });
      for (const link of item.querySelectorAll(LINKS))
        setProps(link, { role: mark && "button", "aria-description": mark && MARK_LABELS[mark] });
    }
  }

  /** Shows the search again; false if it is shown. */
  hidePreview() {
    if (this.#pending && !this.#isChanging) {
      this.#task.abort(); // what comes late would hide the newer search
      this.#setPending("");
    }
    this.#previewed = "";
    const wasShown = this.preview.hide();
    if (wasShown) this.#render();
    return wasShown;
  }

  // ---- Marks ----

  /** The link of a picture that an event marks; none outside of the mode. */
  #findLink(/** @type {Event} */ { target }) {
    if (!this.isOpen || !(target instanceof Element)) return null;
    return /** @type {HTMLElement | null} */ (target.closest(".results :is(a.name, a.picture)"));
  }

  #markPicture(/** @type {MouseEvent} */ event) {
    const link = this.#findLink(event);
    const id = /** @type {HTMLElement | undefined} */ (link?.closest("[data-id]"))?.dataset.id;
    if (!id || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    if (this.#isChanging) return;
    const mark = NEXT_MARKS[this.#marks.get(id) ?? "none"];
    if (mark === "none") this.#marks.delete(id);
    else this.#marks.set(id, mark);
    this.#render();
    announce(`${MARK_LABELS[mark]}: ${this.layout.count.textContent}`);
  }

  /** While a link is a button, the space bar presses it. */
  #pressLink(/** @type {KeyboardEvent} */ event) {
    const link = event.key === " " ? this.#findLink(event) : null;
    if (!link) return;
    event.preventDefault();
    link.click();
  }

  #listIds(/** @type {Mark} */ mark) {
    return [...this.#marks].filter(([, other]) => other === mark).map(([id]) => id);
  }

  #buildBody() {
    return { word: this.layout.word.value.trim(), yes: this.#listIds("yes"), no: this.#listIds("no") };
  }

  /** Adds the marks that a word was taught from, once, so that teaching it again keeps those that aren't taken away. */
  #addFormerMarks(/** @type {string} */ name) {
    const typed = name.normalize("NFC").toLowerCase().replace(/\s+/g, " ");
    const former = this.#words.find(({ word }) => word === typed);
    if ((former?.word ?? "") === this.#former.word) return;
    for (const id of this.#former.ids) this.#marks.delete(id);
    const yes = (former?.yes ?? []).filter((id) => !this.#marks.has(id));
    const no = (former?.no ?? []).filter((id) => !this.#marks.has(id));
    for (const id of yes) this.#marks.set(id, "yes");
    for (const id of no) this.#marks.set(id, "no");
    this.#former = { word: former?.word ?? "", ids: [...yes, ...no] };
  }

  // ---- Effects ----

  async #loadWords() {
    try {
      this.#words = (await listTaughtWords()).words;
      this.layout.problem.replaceChildren();
    } catch (error) {
      this.#showError(/** @type {Error} */ (error), () => this.#loadWords());
    }
    this.#renderWords();
  }

  async #preview() {
    this.#addFormerMarks(this.layout.word.value.trim());
    const body = this.#buildBody();
    this.#setPending("Comparing the marked pictures with the others…");
    const { result, error, isStale } = await this.#task.run((signal) => previewWord(body, signal));
    if (isStale) return;
    this.#setPending("");
    if (error) return this.#showError(error, () => this.#preview());
    this.app.rememberImages(result.hits);
    this.preview.show(result, this.app.getImage);
    this.#previewed = JSON.stringify(body);
    this.#render();
    announce(`preview of ${result.word}: ${pluralize(result.hits.length, "picture")}`);
  }

  async #apply() {
    const body = this.#buildBody();
    const done = await this.#change(`Giving “${body.word}” to the pictures that show it…`, () => teachWord(body));
    if (!done) return;
    this.#close();
    showNote(`“${escapeControls(done.word)}” is taught: ${pluralize(done.changed, "picture")} changed.`);
    this.app.searchAgain(done.word);
  }

  async #forget(/** @type {string} */ word) {
    if (this.#isChanging) return;
    const done = await this.#change(`Taking “${word}” back…`, () => forgetWord(word));
    if (!done) return;
    showNote(`“${escapeControls(word)}” is taken back: ${pluralize(done.changed, "picture")} changed.`);
    this.#loadWords();
    this.app.searchAgain();
  }

  /** Changes the index; nothing if that fails. @param {string} text @param {() => Promise<TeachResult>} request */
  async #change(text, request) {
    this.#task.abort();
    this.#setPending(text);
    this.layout.cancel.disabled = true; // it would not end what the server does
    try {
      const result = await request();
      if (result.failure) throw new Error(`${pluralize(result.failed, "picture")} failed: ${result.failure}`);
      return result;
    } catch (error) {
      this.#showError(/** @type {Error} */ (error));
      return null;
    } finally {
      this.layout.cancel.disabled = false;
      this.#setPending("");
    }
  }

  #close() {
    this.#task.abort();
    this.#marks.clear();
    this.#former = { word: "", ids: [] };
    this.#pending = "";
    this.layout.problem.replaceChildren();
    this.element.hidden = true;
    this.hidePreview();
    this.#render();
    this.opener.focus();
  }

  // ---- Rendering ----

  #setPending(/** @type {string} */ text) {
    this.#pending = text;
    if (text) this.layout.problem.replaceChildren();
    this.#render();
  }

  /** @param {Error} error @param {() => void} [retry] */
  #showError(error, retry) {
    this.layout.problem.replaceChildren(renderError(error, retry));
  }

  #render() {
    const { word, count, hint, preview, apply } = this.layout;
    const { word: name, yes, no } = this.#buildBody();
    const isReady = Boolean(name) && yes.length >= MIN_MARKS && Math.max(yes.length, no.length) <= MAX_MARKS;
    const isPreviewed = this.#previewed === JSON.stringify(this.#buildBody());
    setText(count, `${yes.length} show it, ${no.length} ${no.length === 1 ? "doesn't" : "don't"}`);
    setText(hint, this.#pending || describeNextStep(name, yes.length, no.length, isPreviewed));
    word.readOnly = Boolean(this.#pending);
    preview.disabled = !isReady || isPreviewed || Boolean(this.#pending);
    apply.disabled = !isReady || !isPreviewed || Boolean(this.#pending);
    setProps(this.element, { "aria-busy": String(Boolean(this.#pending)) });
    setProps(this.opener, { "aria-expanded": String(this.isOpen) });
    document.body.classList.toggle("teaching", this.isOpen);
    this.showMarks(this.preview.element.parentElement ?? this.element);
  }

  #renderWords() {
    const { taught, summary, words } = this.layout;
    taught.hidden = !this.#words.length;
    setText(summary, `Taught words: ${this.#words.length}`);
    const items = this.#words.map((word) => ({ ...word, key: JSON.stringify(word) }));
    const actions = { teachMore: this.#teachMore.bind(this), forget: this.#forget.bind(this) };
    renderList(
      words,
      items,
      ({ key }) => key,
      (item) => createTaughtItem(item, actions),
    );
  }

  #teachMore(/** @type {string} */ word) {
    if (this.#isChanging) return;
    this.layout.word.value = word;
    this.#addFormerMarks(word);
    this.#render();
    this.layout.word.focus();
  }
}

/** @param {string} word @param {number} yes @param {number} no @param {boolean} isPreviewed */
function describeNextStep(word, yes, no, isPreviewed) {
  if (isPreviewed) return "Mark more of these pictures, wrong ones too, or apply the word.";
  if (Math.max(yes, no) > MAX_MARKS) return `At most ${MAX_MARKS} pictures of each kind can be marked.`;
  if (yes < MIN_MARKS)
    return `Click pictures, in any search: once if they show it, twice if they don't. At least ${MIN_MARKS} must show it.`;
  return word ? "Preview what the word would find." : "Type the word that these pictures show.";
}
