// What a plan is and how it is edited: pure functions, no page. Boxes are [x1, y1, x2, y2] in pixels of the image.
//
// A layout of the plan is either {text}, a line that is passed on as it is, or {head, items, w, h, ...}. An item keeps
// the text of its placement, cut around the box: [before, box, after]. So a download has every key and every digit that
// the file had, also those that this page knows nothing of.
"use strict";

const planModel = (() => {
  const boxText = (box) => `[${box.join(", ")}]`;

  const itemText = (item) => {
    if (item.added) return `{"category": ${JSON.stringify(item.category)}, "box": ${boxText(item.box)}}`;
    const [before, box, after] = item.text;
    return before + (item.moved ? boxText(item.box) : box) + after;
  };

  const lineText = (layout) => {
    if (layout.text !== undefined) return layout.text;
    const items = layout.items.filter((item) => !item.deleted).map(itemText);
    return `${layout.head.slice(0, -1)}, "placements": [${items.join(", ")}]}`;
  };

  const planText = (layouts) => layouts.map((layout) => lineText(layout) + "\n").join("");

  const within = (value, most) => Math.min(Math.max(value, 0), Math.max(0, most));

  // The same box elsewhere, wholly inside the image, its corner on a whole pixel.
  const moved = (box, dx, dy, layout) => {
    const [width, height] = [box[2] - box[0], box[3] - box[1]];
    const x = within(Math.round(box[0] + dx), Math.floor(layout.w - width));
    const y = within(Math.round(box[1] + dy), Math.floor(layout.h - height));
    return [x, y, x + width, y + height];
  };

  // A box of whole pixels about the same middle, at least 2 pixels wide and high, inside the image.
  const scaled = (box, factor, layout) => {
    const side = (length, most) => {
      const wanted = Math.round(length * factor);
      const changed = wanted === Math.round(length) ? wanted + Math.sign(factor - 1) : wanted;
      return Math.min(Math.max(changed, 2), most);
    };
    const [width, height] = [side(box[2] - box[0], layout.w), side(box[3] - box[1], layout.h)];
    const x = within(Math.round((box[0] + box[2] - width) / 2), layout.w - width);
    const y = within(Math.round((box[1] + box[3] - height) / 2), layout.h - height);
    return [x, y, x + width, y + height];
  };

  // The box that two corners span, on whole pixels inside the image; null where it is too small to be meant.
  const spanned = (a, b, layout) => {
    const [x1, x2] = [a[0], b[0]].sort((p, q) => p - q).map((v) => Math.round(within(v, layout.w)));
    const [y1, y2] = [a[1], b[1]].sort((p, q) => p - q).map((v) => Math.round(within(v, layout.h)));
    return x2 - x1 >= 2 && y2 - y1 >= 2 ? [x1, y1, x2, y2] : null;
  };

  // Edits against the file, for people. An added item that was deleted again is none.
  const edits = (layouts) => {
    const items = layouts.flatMap((layout) => layout.items || []);
    const count = (test) => items.filter(test).length;
    return {
      deleted: count((item) => item.deleted && !item.added),
      moved: count((item) => item.moved && !item.deleted && !item.added),
      added: count((item) => item.added && !item.deleted),
    };
  };

  return { itemText, lineText, planText, moved, scaled, spanned, edits };
})();

if (typeof module !== "undefined") module.exports = planModel;
