// The page: pictures, lists and tools over the model. Every name goes into the page as text, never as markup.
"use strict";

(() => {
  const plan = JSON.parse(document.getElementById("plan").textContent);
  const colours = new Map(plan.categories.map((c) => [c.name, c.colour]));
  const shown = plan.layouts.filter((layout) => layout.items);
  const state = { tool: "move", hidden: new Set(), sort: "plan", past: [], saved: true, selected: null };
  const SVG = "http://www.w3.org/2000/svg";

  const make = (tag, attributes = {}, ...children) => {
    const node = tag.startsWith("svg:")
      ? document.createElementNS(SVG, tag.slice(4))
      : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  };
  const byId = (id) => document.getElementById(id);
  const size = (box) => `${Math.round(box[2] - box[0])} × ${Math.round(box[3] - box[1])}`;
  const score = (item) => (item.score === null ? "no score" : `score ${item.score.toFixed(2)}`);
  const visible = (item) => !state.hidden.has(item.category);
  const described = (item) =>
    [
      item.category,
      `${size(item.box)} px`,
      item.added ? "added" : score(item),
      item.deleted ? "deleted" : item.moved && !item.added ? "moved" : "",
      item.fixed ? "redrawn where it stands, so it cannot be moved" : "",
      item.part ? "shows a part of its object, cut by what stands here" : "",
    ]
      .filter(Boolean)
      .join(", ");

  // ---- edits ----

  const edit = (layout, change, { repeats = null } = {}) => {
    const last = state.past.at(-1);
    const same = repeats !== null && last && last.repeats === repeats && last.layout === layout;
    if (!same) state.past.push({ layout, items: layout.items.map((item) => ({ ...item })), repeats });
    change();
    state.saved = false;
    draw(layout);
    report();
  };

  const undo = () => {
    const last = state.past.pop();
    if (!last) return;
    last.layout.items = last.items;
    state.selected = null;
    state.saved = false;
    draw(last.layout);
    report();
  };

  const toggle = (layout, index) =>
    edit(layout, () => {
      const item = layout.items[index];
      item.deleted = !item.deleted;
    });

  const place = (layout, index, box, repeats = null) => {
    const item = layout.items[index];
    if (item.fixed || item.deleted || box.every((v, i) => v === item.box[i])) return;
    edit(
      layout,
      () => {
        item.box = box;
        item.moved = true;
      },
      { repeats },
    );
  };

  const add = (layout, box) => {
    const category = byId("category").value;
    edit(layout, () => {
      layout.items.push({ category, box, score: null, path: null, fixed: false, part: false, added: true, moved: true });
    });
    select(layout, layout.items.length - 1, { focus: true });
  };

  const addInTheMiddle = (layout) => {
    const [width, height] = plan.categories.find((c) => c.name === byId("category").value).size;
    const [w, h] = [Math.min(width, layout.w), Math.min(height, layout.h)];
    const corner = [(layout.w - w) / 2, (layout.h - h) / 2];
    add(layout, planModel.spanned(corner, [corner[0] + w, corner[1] + h], layout) || [0, 0, layout.w, layout.h]);
  };

  const report = () => {
    const { deleted, moved, added } = planModel.edits(plan.layouts);
    const words = [[deleted, "deleted"], [moved, "moved"], [added, "added"]].filter(([n]) => n);
    byId("edits").textContent = words.map(([n, word]) => `${n} ${word}`).join(", ") || "no edits";
    byId("undo").disabled = !state.past.length;
  };

  // ---- one layout ----

  const select = (layout, index, { focus = false } = {}) => {
    const before = state.selected;
    state.selected = { layout, index };
    if (before && before.layout !== layout) mark(before.layout);
    mark(layout);
    if (focus) layout.figure.querySelector(`[data-index="${index}"] .name`)?.focus({ preventScroll: true });
  };

  const mark = (layout) => {
    const chosen = state.selected && state.selected.layout === layout ? String(state.selected.index) : null;
    for (const node of layout.figure.querySelectorAll("[data-index]"))
      node.classList.toggle("selected", node.dataset.index === chosen);
  };

  const outline = (layout, item, index) => {
    const [x1, y1, x2, y2] = item.box;
    const [w, h] = [x2 - x1, y2 - y1];
    const at = `translate(${x1} ${y1}) scale(${w / 1000} ${h / 1000})`;
    const path = item.path || "M0 0H1000V1000H0Z";
    const group = make("svg:g", {
      class: `item ${item.deleted ? "deleted" : ""} ${item.fixed ? "fixed" : ""}`,
      "data-index": index,
      style: `--colour: ${colours.get(item.category)}`,
    });
    const title = make("svg:title");
    title.textContent = described(item);
    group.append(title);
    const frame = { x: x1, y: y1, width: w, height: h };
    group.append(make("svg:path", { d: path, transform: at, class: "halo" }));
    group.append(make("svg:path", { d: path, transform: at, class: "line" }));
    if (item.path) group.append(make("svg:rect", { ...frame, class: "frame" }));
    if (item.deleted) {
      const cross = `M${x1} ${y1}L${x2} ${y2}M${x2} ${y1}L${x1} ${y2}`;
      group.append(make("svg:path", { d: cross, class: "halo" }), make("svg:path", { d: cross, class: "line" }));
    }
    group.append(make("svg:rect", { ...frame, class: "hit" }));
    return group;
  };

  const row = (layout, item, index) => {
    const dot = make("span", { class: "dot", style: `--colour: ${colours.get(item.category)}` });
    const name = make(
      "button",
      { type: "button", class: "name", title: described(item), "aria-label": described(item) },
      dot,
      make("span", { class: "words" }, item.category),
      make("span", { class: "figures" }, `${size(item.box)}`),
      make("span", { class: "figures" }, item.added ? "new" : item.score === null ? "–" : item.score.toFixed(2)),
    );
    name.addEventListener("focus", () => select(layout, index));
    name.addEventListener("keydown", (event) => key(event, layout, index));
    const remove = make(
      "button",
      { type: "button", class: "remove", "aria-label": `${item.deleted ? "Restore" : "Delete"} ${described(item)}` },
      item.deleted ? "↺" : "×",
    );
    remove.addEventListener("click", () => {
      toggle(layout, index);
      layout.list.querySelector(`[data-index="${index}"] .remove`)?.focus({ preventScroll: true });
    });
    return make("li", { "data-index": index, class: item.deleted ? "deleted" : "" }, name, remove);
  };

  const key = (event, layout, index) => {
    const item = layout.items[index];
    const step = event.shiftKey ? 10 : 1;
    const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (ways[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey)
      place(layout, index, planModel.moved(item.box, ...ways[event.key], layout), `${index} ${event.key}`);
    else if (event.key === "+" || event.key === "=") place(layout, index, planModel.scaled(item.box, 1.1, layout));
    else if (event.key === "-") place(layout, index, planModel.scaled(item.box, 1 / 1.1, layout));
    else if (event.key === "Delete" || event.key === "Backspace") toggle(layout, index);
    else return;
    event.preventDefault();
    select(layout, index, { focus: true });
  };

  const draw = (layout) => {
    if (!layout.figure) return;
    const { svg, list } = layout;
    const numbered = layout.items.map((item, index) => [item, index]).filter(([item]) => visible(item));
    svg.replaceChildren(...numbered.map(([item, index]) => outline(layout, item, index)));
    const way = { low: 1, high: -1, plan: 0 }[state.sort];
    const rank = (item) => (item.score === null ? Infinity : item.score * way);
    const sorted = way ? [...numbered].sort((a, b) => rank(a[0]) - rank(b[0])) : numbered;
    list.replaceChildren(...sorted.map(([item, index]) => row(layout, item, index)));
    layout.figure.hidden = state.hidden.size > 0 && !numbered.length;
    mark(layout);
  };

  const figure = (layout) => {
    layout.svg = make("svg:svg", {
      viewBox: `0 0 ${layout.w} ${layout.h}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `${layout.items.length} placements on ${layout.file}; the list below has them all`,
    });
    layout.list = make("ul", {});
    pointers(layout);
    const large = make("button", { type: "button", "aria-pressed": "false" }, "Enlarge");
    large.addEventListener("click", () => {
      const on = layout.figure.classList.toggle("large");
      large.textContent = on ? "Reduce" : "Enlarge";
      large.setAttribute("aria-pressed", String(on));
    });
    const middle = make("button", { type: "button" }, "Add here");
    middle.addEventListener("click", () => addInTheMiddle(layout));
    const picture = make("img", {
      src: plan.thumbs[layout.thumb],
      alt: layout.file,
      width: layout.w,
      height: layout.h,
      draggable: "false",
    });
    // Tall pictures end where the screen does.
    const frame = `aspect-ratio: ${layout.w} / ${layout.h}; max-width: calc(80vh * ${layout.w / layout.h})`;
    layout.figure = make(
      "figure",
      {},
      make("div", { class: "stage", style: frame }, picture, layout.svg),
      make(
        "figcaption",
        {},
        make("span", { class: "file" }, layout.file),
        make("span", { class: "copy" }, `line ${layout.line}, copy ${layout.copy}, ${layout.w} × ${layout.h}`),
        make("span", { class: "tools" }, large, middle),
      ),
      layout.list,
    );
    return layout.figure;
  };

  // ---- pointing ----

  const pointers = (layout) => {
    const { svg } = layout;
    let drag = null;
    const at = (event) => {
      const frame = svg.getBoundingClientRect();
      return [
        ((event.clientX - frame.left) / frame.width) * layout.w,
        ((event.clientY - frame.top) / frame.height) * layout.h,
      ];
    };
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || drag) return;
      const node = event.target.closest("[data-index]");
      if (state.tool === "add") {
        const rubber = make("svg:rect", { class: "rubber", style: `--colour: ${colours.get(byId("category").value)}` });
        svg.append(rubber);
        drag = { from: at(event), rubber };
      } else if (node && state.tool === "delete") {
        toggle(layout, Number(node.dataset.index));
      } else if (node) {
        const index = Number(node.dataset.index);
        select(layout, index, { focus: true });
        if (!layout.items[index].fixed && !layout.items[index].deleted) drag = { from: at(event), index, node };
      }
      if (!drag) return;
      drag.pointer = event.pointerId;
      event.preventDefault();
      try {
        svg.setPointerCapture(event.pointerId);
      } catch {
        // a pointer that is gone already; its end ends the drag all the same
      }
    });
    svg.addEventListener("pointermove", (event) => {
      if (!drag || event.pointerId !== drag.pointer) return;
      const to = at(event);
      if (drag.rubber) {
        const box = planModel.spanned(drag.from, to, layout) || [0, 0, 0, 0];
        const [x, y] = box;
        for (const [k, v] of Object.entries({ x, y, width: box[2] - x, height: box[3] - y }))
          drag.rubber.setAttribute(k, v);
      } else {
        const { box } = layout.items[drag.index];
        const [x, y] = planModel.moved(box, to[0] - drag.from[0], to[1] - drag.from[1], layout);
        drag.node.setAttribute("transform", `translate(${x - box[0]} ${y - box[1]})`);
      }
    });
    const end = (event) => {
      if (!drag || event.pointerId !== drag.pointer) return;
      const { from, index, rubber, node } = drag;
      const to = at(event);
      drag = null;
      rubber?.remove();
      node?.removeAttribute("transform");
      if (event.type === "pointercancel") return;
      if (rubber) {
        const box = planModel.spanned(from, to, layout);
        if (box) add(layout, box);
      } else {
        const { box } = layout.items[index];
        const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
        if (Math.round(dx) || Math.round(dy)) {
          place(layout, index, planModel.moved(box, dx, dy, layout));
          select(layout, index, { focus: true });
        }
      }
    };
    svg.addEventListener("pointerup", end);
    svg.addEventListener("pointercancel", end);
  };

  // ---- the whole page ----

  const arrange = () => {
    for (const layout of shown) draw(layout);
    const way = { low: 1, high: -1, plan: 0 }[state.sort];
    const value = (layout) => {
      const scores = layout.items.filter((i) => visible(i) && i.score !== null).map((i) => i.score * way);
      return scores.length ? Math.min(...scores) : Infinity;
    };
    const order = [...shown];
    if (way) {
      const values = new Map(shown.map((layout) => [layout, value(layout)]));
      order.sort((a, b) => (values.get(a) === values.get(b) ? 0 : values.get(a) - values.get(b)));
    }
    byId("layouts").append(...order.map((layout) => layout.figure));
    byId("none").hidden = shown.some((layout) => !layout.figure.hidden);
  };

  const download = () => {
    const url = URL.createObjectURL(new Blob([planModel.planText(plan.layouts)], { type: "application/jsonl" }));
    const link = make("a", { href: url, download: "layouts.jsonl" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    state.saved = true;
  };

  const filters = () => {
    const counts = new Map();
    for (const layout of shown)
      for (const { category } of layout.items) counts.set(category, (counts.get(category) || 0) + 1);
    for (const { name, colour } of plan.categories) {
      if (counts.has(name)) {
        const check = make("input", { type: "checkbox", checked: true });
        check.addEventListener("change", () => {
          if (check.checked) state.hidden.delete(name);
          else state.hidden.add(name);
          arrange();
        });
        const dot = make("span", { class: "dot", style: `--colour: ${colour}` });
        byId("chips").append(make("label", { class: "chip" }, check, dot, `${name} (${counts.get(name)})`));
      }
      byId("category").append(make("option", { value: name }, name));
    }
    const first = plan.categories.find(({ name }) => counts.has(name));
    if (first) byId("category").value = first.name;
  };

  const tool = (name) => {
    state.tool = name;
    document.body.dataset.tool = name;
    for (const input of document.querySelectorAll('input[name="tool"]')) input.checked = input.value === name;
  };

  for (const input of document.querySelectorAll('input[name="tool"]'))
    input.addEventListener("change", () => tool(input.value));
  byId("category").addEventListener("change", () => tool("add"));
  byId("sort").addEventListener("change", (event) => {
    state.sort = event.target.value;
    arrange();
  });
  byId("undo").addEventListener("click", undo);
  byId("download").addEventListener("click", download);
  document.addEventListener("keydown", (event) => {
    const typed = event.target.closest?.("select");
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !event.shiftKey) {
      event.preventDefault();
      undo();
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey && !typed) {
      const name = { m: "move", d: "delete", a: "add" }[event.key.toLowerCase()];
      if (name) tool(name);
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (!state.saved) event.preventDefault();
  });

  filters();
  for (const layout of shown) figure(layout);
  tool("move");
  arrange();
  report();
})();
