// A picture of the user: chosen, dropped anywhere on the page, or pasted. The server encodes it and doesn't store it.

import { h } from "./dom.js";

const STORAGE_KEY = "stair-es-pictures";
const MAX_THUMBNAILS = 12;

/** Listens for pictures of the user. @param {ImageUploadOptions} options */
export function listenForImages({ button, input, onImage, onReject }) {
  const receive = (/** @type {File | undefined} */ file) => {
    if (file && (file.type.startsWith("image/") || !file.type)) onImage(file);
    else onReject(file?.name ? `“${file.name}” is not an image` : "this is not an image");
  };
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files?.length) receive(input.files[0]);
    input.value = "";
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    receive(file);
  });
  listenForDrops(receive);
}

function listenForDrops(/** @type {(file: File) => void} */ receive) {
  const overlay = h(
    "div",
    { class: "veil", hidden: true, "aria-hidden": "true" },
    h("p", {}, "Drop the image to search with it"),
  );
  document.body.append(overlay);
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    overlay.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) overlay.hidden = true;
  });
  addEventListener("drop", (event) => {
    overlay.hidden = true;
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    receive(event.dataTransfer.files[0]);
  });
}

/**
 * Remembers the thumbnail of a vector for this tab, because the URL contains only the tokens.
 * @param {TokenWeight[]} vector @param {string} thumbnail
 */
export function saveThumbnail(vector, thumbnail) {
  const key = getVectorKey(vector);
  const others = loadThumbnails().filter(([other]) => other !== key);
  try {
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify([[key, thumbnail], ...others].slice(0, MAX_THUMBNAILS)));
  } catch {
    // Full or forbidden: the chip then says "an image".
  }
}

/** The remembered thumbnail of a vector, or null. @param {TokenWeight[]} vector */
export function loadThumbnail(vector) {
  const [, thumbnail] = loadThumbnails().find(([key]) => key === getVectorKey(vector)) ?? [];
  return thumbnail && /^data:image\/(webp|png|jpeg);/.test(thumbnail) ? thumbnail : null;
}

const getVectorKey = (/** @type {TokenWeight[]} */ vector) =>
  vector.map(([token, weight]) => `${token}*${weight.toFixed(3)}`).join("|");

/** @returns {[key: string, thumbnail: string][]} */
function loadThumbnails() {
  try {
    const stored = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "[]");
    return Array.isArray(stored) ? stored : [];
  } catch {
    return [];
  }
}
