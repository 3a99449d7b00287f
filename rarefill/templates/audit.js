// The page of an audit: one object at a time, an answer for each. Every name goes into the page as text, never as markup.
"use strict";

(() => {
  const audit = JSON.parse(document.getElementById("audit").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const key = `rarefill-audit:${audit.run}:${audit.seed}:${audit.n}`;
  const byId = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  const kept = () => {
    try {
      const held = JSON.parse(localStorage.getItem(key) || "{}");
      const known = new Set(audit.items.map((item) => item.id));
      return Object.fromEntries(Object.entries(held).filter(([id, a]) => known.has(id) && audit.choices.includes(a)));
    } catch {
      return {}; // a browser may keep nothing for pages from disk
    }
  };
  const answers = kept();
  let saved = true;
  const keep = () => {
    saved = false;
    try {
      localStorage.setItem(key, JSON.stringify(answers));
    } catch {
      // the download still has them
    }
  };

  // ---- one object ----

  const drawn = (item) => {
    const shapes = [];
    for (const kind of ["halo", "line"]) {
      if (item.path) shapes.push(make("svg:path", { class: kind, d: item.path }));
    }
    const [x, y, width, height] = item.box;
    for (const kind of ["halo", "line"]) {
      shapes.push(make("svg:rect", { class: `${kind} box`, x, y, width, height }));
    }
    const svg = make("svg:svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(...shapes);
    return svg;
  };

  const figures = audit.items.map((item, index) => {
    const words = `${item.category}, object ${index + 1} of ${audit.items.length}`;
    const stage = make("div", { class: "stage" }, make("img", { src: item.picture, alt: words, loading: "lazy" }), drawn(item));
    const answer = make("span", { class: "answer" });
    const figure = make(
      "figure",
      {},
      stage,
      make("figcaption", {}, make("b", {}, item.category), make("span", { class: "faint" }, item.note), answer),
    );
    figure.addEventListener("click", () => {
      if (document.body.dataset.view !== "all") return;
      go(index);
      byId("all").checked = false;
      view();
    });
    byId("items").append(figure);
    return figure;
  });

  // ---- moving about ----

  let current = 0;
  const wanted = (index) => {
    const { category, id } = audit.items[index];
    const how = byId("filter").value;
    return how === "all" || (how === "open" ? !answers[id] : how === `c:${category}` || how === `a:${answers[id]}`);
  };
  const go = (index) => {
    if (index === null) return;
    current = index;
    show();
  };
  const step = (way) => {
    for (let i = current + way; i >= 0 && i < figures.length; i += way) if (wanted(i)) return i;
    return null;
  };

  const show = () => {
    figures.forEach((figure, i) => {
      figure.hidden = !wanted(i);
      figure.classList.toggle("current", i === current);
      figure.querySelector(".answer").textContent = answers[audit.items[i].id] || "";
    });
    byId("none").hidden = figures.some((_, i) => wanted(i));
    const mine = audit.items.length ? answers[audit.items[current].id] : undefined;
    for (const button of byId("choices").children) {
      button.setAttribute("aria-pressed", String(button.dataset.answer === mine));
    }
    const n = Object.keys(answers).length;
    byId("done").textContent = `${current + 1} of ${figures.length}, ${n} answered`;
  };

  const view = () => {
    document.body.dataset.view = byId("all").checked ? "all" : "one";
    document.body.dataset.label = byId("label").checked ? "on" : "off";
  };

  const answer = (words) => {
    if (!audit.items.length) return;
    const { id } = audit.items[current];
    if (words === null || answers[id] === words) delete answers[id];
    else answers[id] = words;
    keep();
    if (answers[id] && document.body.dataset.view === "one") go(step(1) ?? current);
    show();
  };

  // ---- the page ----

  audit.choices.forEach((words, i) => {
    const button = make("button", { type: "button", "data-answer": words, "aria-pressed": "false" }, make("kbd", {}, `${i + 1}`), words);
    button.addEventListener("click", () => answer(words));
    byId("choices").append(button);
  });
  const option = (value, words) => byId("filter").append(make("option", { value }, words));
  option("all", "All objects");
  option("open", "Not yet answered");
  for (const name of [...new Set(audit.items.map((item) => item.category))].sort()) option(`c:${name}`, name);
  for (const words of audit.choices) option(`a:${words}`, `answered: ${words}`);

  byId("filter").addEventListener("change", () => {
    if (!audit.items.length) return;
    if (!wanted(current)) current = figures.findIndex((_, i) => wanted(i));
    if (current < 0) current = 0;
    show();
  });
  byId("all").addEventListener("change", view);
  byId("label").addEventListener("change", view);
  byId("back").addEventListener("click", () => go(step(-1)));
  byId("next").addEventListener("click", () => go(step(1)));
  byId("download").addEventListener("click", () => {
    const { run, name, seed, n } = audit;
    const text = JSON.stringify({ rarefill_audit: 1, run, name, seed, n, of: audit.items.length, answers }, null, 1);
    const link = make("a", { href: URL.createObjectURL(new Blob([text + "\n"], { type: "application/json" })), download: "audit.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    saved = true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const choice = audit.choices[Number(event.key) - 1];
    if (choice) answer(choice);
    else if (event.key === "0" || event.key === "Backspace") answer(null);
    else if (event.key === "ArrowRight") go(step(1));
    else if (event.key === "ArrowLeft") go(step(-1));
    else if (event.key === "l" || event.key === "L") byId("label").click();
    else if (event.key === "g" || event.key === "G") byId("all").click();
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });

  const open = audit.items.findIndex((item) => !answers[item.id]);
  current = Math.max(0, open);
  view();
  show();
})();
