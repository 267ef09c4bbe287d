// Line charts and scatter plots as SVG, with axes in round numbers and a legend that names each line.

import { h, number, svg } from "./dom.js";

export const LINES = ["var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2"];
const BOX = { left: 46, right: 12, top: 10, bottom: 30 };

function ticks(low, high, count = 5) {
  const span = high - low || 1, raw = span / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((one) => span / one <= count) || 10 * power;
  // Counted from the first tick, as adding a small step to a large value may not change it.
  const first = Math.ceil(low / step - 1e-9), many = Math.min(2 * count, Math.floor(high / step + 1e-9) - first + 1);
  return Array.from({ length: Math.max(0, many) }, (_, i) => (first + i) * step);
}

function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low > high) return [0, 1];
  const size = Math.max(Math.abs(low), Math.abs(high)), flat = high - low <= 1e-6 * size;  // no more than float32 rounds
  const room = (flat ? size || 1 : high - low) * 0.06;
  return [low - room, high + room];
}

// Series: {name, points: [[x, y], …], low?, high?: arrays of y, marks?: true}. Options: title, x, y, wide, high, xRange, yRange, names.
export function chart(series, options) {
  const wide = options.wide || 420, high = options.high || 220;
  const xs = series.flatMap((one) => one.points.map((point) => point[0]));
  const ys = series.flatMap((one) => [...one.points.map((point) => point[1]), ...(one.low || []), ...(one.high || [])]);
  const [x0, x1] = options.xRange || range(xs), [y0, y1] = options.yRange || range(ys);
  const px = (x) => BOX.left + ((x - x0) / (x1 - x0)) * (wide - BOX.left - BOX.right);
  const py = (y) => high - BOX.bottom - ((y - y0) / (y1 - y0)) * (high - BOX.top - BOX.bottom);
  const marks = ticks(y0, y1, Math.max(3, Math.round(high / 48)));
  const digits = marks.length > 1 ? Math.max(3, Math.ceil(Math.log10(Math.max(...marks.map(Math.abs)) / (marks[1] - marks[0]))) + 1) : 3;
  const grid = marks.flatMap((y) => [svg("line", { x1: BOX.left, x2: wide - BOX.right, y1: py(y), y2: py(y), class: "grid" }),
    svg("text", { x: BOX.left - 6, y: py(y) + 4, "text-anchor": "end" }, number(y, digits))]);
  const names = options.names || ticks(x0, x1, Math.max(3, Math.round(wide / 90))).map((x) => [x, number(x)]);
  const foot = names.map(([x, text]) => svg("text", { x: px(x), y: high - 12, "text-anchor": "middle" }, text));
  const drawn = series.map((one, index) => {
    const stroke = one.colour || LINES[index % LINES.length], parts = [];
    const points = one.points.map(([x, y], i) => [px(x), y === null ? null : py(y), i]).filter((point) => point[1] !== null && Number.isFinite(point[1]));
    if (!one.dots && points.length) {
      parts.push(svg("polyline", { points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "), fill: "none", stroke, "stroke-width": one.faint ? 1 : 2, "stroke-opacity": one.faint ? 0.4 : 1, "stroke-dasharray": one.faint ? "" : DASHES[index % DASHES.length] }));
    }
    if (one.low) points.forEach(([x, , i]) => {
      if (one.low[i] !== null) parts.push(svg("line", { x1: x + index * 3, x2: x + index * 3, y1: py(one.low[i]), y2: py(one.high[i]), stroke, "stroke-width": 1.5 }));
    });
    if (one.dots || one.marks || points.length === 1) points.forEach(([x, y, i]) => {
      parts.push(svg("circle", { cx: one.low ? x + index * 3 : x, cy: y, r: one.big && one.big[i] ? 6 : 4, fill: one.hollow && one.hollow[i] ? "var(--panel)" : stroke, stroke, "stroke-width": 2 }));
      if (one.labels) parts.push(svg("text", { x: x + 8, y: y - 6, class: "point" }, one.labels[i]));
    });
    return svg("g", {}, parts);
  });
  const text = `${options.title}: ${series.map((one) => one.name).filter(Boolean).join(", ")}`;
  const picture = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": text, class: "chart" }, grid, foot,
    svg("line", { x1: BOX.left, x2: wide - BOX.right, y1: high - BOX.bottom, y2: high - BOX.bottom, class: "axis" }), drawn);
  const legend = series.length > 1 || options.legend ? h("ul", { class: "legend" }, series.map((one, index) => one.faint ? null : h("li", {},
    svg("svg", { viewBox: "0 0 26 8", width: 26, height: 8, "aria-hidden": "true" }, svg("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: one.colour || LINES[index % LINES.length], "stroke-width": 2.5, "stroke-dasharray": DASHES[index % DASHES.length] })), one.name))) : null;
  const labels = options.x ? h("p", { class: "axes muted small" }, `across: ${options.x}`) : null;
  return h("figure", { class: "figure" }, h("figcaption", {}, options.title), picture, labels, legend);
}
