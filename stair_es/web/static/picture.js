// A picture of the user: chosen, dropped anywhere on the page, or pasted. The server encodes it and doesn't store it.

import { h } from "./dom.js";

const KEPT = "stair-es-pictures";
const MOST = 12;

/** Calls `take(blob, name)` for each picture, and `refuse(message)` for anything else. */
export function pictures({ choose, file, take, refuse }) {
  const veil = h("div", { class: "veil", hidden: true, "aria-hidden": "true" }, h("p", {}, "Drop the image to search with it"));
  document.body.append(veil);
  choose.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) offer(file.files[0]);
    file.value = "";
  });
  const brings = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!brings(event)) return;
    event.preventDefault();
    offer(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!pasted) return;
    event.preventDefault();
    offer(pasted);
  });

  function offer(blob) {
    if (blob && (blob.type.startsWith("image/") || !blob.type)) take(blob, blob.name ?? "");
    else refuse(blob?.name ? `“${blob.name}” is not an image` : "this is not an image");
  }
}

/** Remembers the thumbnail of a vector for this tab, because the URL contains only the words. */
export function keepThumbnail(vector, thumbnail) {
  const kept = stored().filter(([key]) => key !== keyOf(vector));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify([[keyOf(vector), thumbnail], ...kept].slice(0, MOST)));
  } catch {
    // Full or forbidden: the chip then says "an image".
  }
}

/** The remembered thumbnail of a vector, or null. */
export function thumbnailOf(vector) {
  const found = stored().find(([key]) => key === keyOf(vector));
  return found && /^data:image\/(webp|png|jpeg);/.test(found[1]) ? found[1] : null;
}

const keyOf = (vector) => vector.map(([name, weight]) => `${name}*${weight.toFixed(3)}`).join("|");

function stored() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    return Array.isArray(kept) ? kept : [];
  } catch {
    return [];
  }
}
