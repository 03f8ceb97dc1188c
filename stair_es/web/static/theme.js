// Before anything is drawn: the theme that was chosen, else the system's. No module, so that the page doesn't flash.
"use strict";
(() => {
  const root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("stair-es-theme");
  } catch {
    // Storage may be forbidden: the system's theme it is.
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "dark" : "light";
})();
