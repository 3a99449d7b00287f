"use strict";
(() => {
  // Without this script the tiles open and close as links do; with it, also by keys, and "back" leaves the page.
  const tiles = [...document.querySelectorAll(".tile[id]")];
  const open = () => tiles.findIndex((tile) => `#${tile.id}` === location.hash);
  const go = (hash) => location.replace(hash);
  const list = (tile) => `#${tile.closest("[data-list]").id}`;
  const close = () => {
    const at = open();
    if (at < 0) return;
    const tile = tiles[at];
    const before = window.scrollY;
    go(list(tile));
    window.scrollTo(0, before);
    tile.querySelector("a.open").focus({ preventScroll: true });
    tile.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.open, a.close");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (link.classList.contains("close")) close();
    else {
      const before = window.scrollY;
      go(link.getAttribute("href"));
      window.scrollTo(0, before);
      link.closest(".tile").querySelector("a.close").focus({ preventScroll: true });
    }
  });
  document.addEventListener("keydown", (event) => {
    const at = open();
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") close();
    else if (step && tiles[at + step]) {
      go(`#${tiles[at + step].id}`);
      tiles[at + step].querySelector("a.close").focus({ preventScroll: true });
    } else return;
    event.preventDefault();
  });
})();
