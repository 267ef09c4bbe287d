// The large picture: before and after with a divider or side by side, one zoom and pan for both, boxes on top.

import { drawBoxes } from "./boxes.js";
import { h } from "./dom.js";

const LEAST_ZOOM = 1, MOST_ZOOM = 24;

export function makePane(store) {
  const canvas = h("canvas", { class: "pane-canvas", role: "img", "aria-label": "The picture", tabindex: "0" });
  const divider = h("div", {
    class: "divider", role: "slider", tabindex: "0", "aria-label": "Divider between before and after",
    "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "50",
  }, h("span", { "aria-hidden": "true" }, "◂▸"));
  const labels = [h("div", { class: "tag before" }), h("div", { class: "tag after" })];
  const root = h("div", { class: "pane" }, canvas, divider, labels);
  const view = { zoom: 1, x: 0.5, y: 0.5, split: 0.5 };
  const pictures = { before: null, after: null };
  let frame = 0;

  const mode = () => store.get("mode");
  const sides = () => (mode() === "side" && pictures.before ? 2 : 1);

  function geometry(side) {
    const width = canvas.clientWidth / sides(), height = canvas.clientHeight;
    const picture = pictures.after || pictures.before;
    const fit = Math.min((width - 16) / picture.width, (height - 16) / picture.height) * view.zoom;
    const left = width / 2 - view.x * picture.width * fit + side * width;
    const top = height / 2 - view.y * picture.height * fit;
    return { width, height, fit, left, top, wide: picture.width * fit, high: picture.height * fit, start: side * width };
  }

  function paint() {
    frame = 0;
    const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, wide, high);
    const both = pictures.before && pictures.after;
    const split = mode() === "split" && both;
    divider.classList.toggle("hidden", !split);
    if (!pictures.after) return;
    if (sides() === 2) {
      side(context, pictures.before, 0, null);
      side(context, pictures.after, 1, null);
    } else if (split) {
      const at = Math.round(view.split * wide);
      side(context, pictures.before, 0, [0, at]);
      side(context, pictures.after, 0, [at, wide]);
      divider.style.left = `${at}px`;
      divider.setAttribute("aria-valuenow", String(Math.round(100 * view.split)));
    } else {
      side(context, mode() === "before" && pictures.before ? pictures.before : pictures.after, 0, null);
    }
    tag(labels[0], both && mode() !== "after" ? store.get("beforeName") : "", split || sides() === 2 || mode() === "before" ? 0 : null);
    tag(labels[1], mode() === "before" && both ? "" : store.get("afterName"), 1);
  }

  function tag(node, text, on) {
    node.textContent = text || "";
    node.classList.toggle("hidden", !text || on === null);
  }

  function side(context, picture, number, range) {
    const g = geometry(number);
    context.save();
    context.beginPath();
    const [from, to] = range || [g.start, g.start + g.width];
    context.rect(from, 0, to - from, g.height);
    context.clip();
    context.imageSmoothingEnabled = g.fit < 2;
    context.drawImage(picture, g.left, g.top, g.wide, g.high);
    const boxes = picture === pictures.before ? store.get("beforeBoxes") : store.get("boxes");
    if (store.get("showBoxes") && boxes && store.get("full")) {
      drawBoxes(context, boxes, store.get("full"), (x, y) => [g.left + x * g.wide, g.top + y * g.high], store.get("highlight"), [from, to]);
    }
    context.restore();
  }

  function redraw() { if (!frame) frame = requestAnimationFrame(paint); }

  function zoomAt(factor, x = canvas.clientWidth / sides() / 2, y = canvas.clientHeight / 2) {
    if (!pictures.after) return;
    const g = geometry(0), before = view.zoom;
    view.zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, view.zoom * factor));
    const share = [((x % g.width) - g.left) / g.wide, (y - g.top) / g.high];
    const scale = view.zoom / before;
    view.x = share[0] - (share[0] - view.x) / scale;
    view.y = share[1] - (share[1] - view.y) / scale;
    keep();
  }

  function keep() {
    const half = 0.5 / view.zoom;
    view.x = view.zoom === 1 ? 0.5 : Math.min(1 - half * 0.2, Math.max(half * 0.2, view.x));
    view.y = view.zoom === 1 ? 0.5 : Math.min(1 - half * 0.2, Math.max(half * 0.2, view.y));
    redraw();
  }

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const place = canvas.getBoundingClientRect();
    zoomAt(Math.exp(-event.deltaY / 400), event.clientX - place.left, event.clientY - place.top);
  }, { passive: false });
  const touches = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    touches.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = touches.get(event.pointerId);
    if (!last || !pictures.after) return;
    const others = [...touches].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    const now = [event.clientX, event.clientY];
    if (others.length) {
      const [other] = others, place = canvas.getBoundingClientRect();
      const far = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      zoomAt(far(now) / Math.max(far(last), 1), (now[0] + other[0]) / 2 - place.left, (now[1] + other[1]) / 2 - place.top);
    } else {
      const g = geometry(0);
      view.x -= (now[0] - last[0]) / g.wide;
      view.y -= (now[1] - last[1]) / g.high;
      keep();
    }
    touches.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => touches.delete(event.pointerId));

  let dragging = false;
  divider.addEventListener("pointerdown", (event) => { dragging = true; divider.setPointerCapture(event.pointerId); });
  divider.addEventListener("pointermove", (event) => {
    if (!dragging) return;
    const place = canvas.getBoundingClientRect();
    view.split = Math.min(1, Math.max(0, (event.clientX - place.left) / place.width));
    redraw();
  });
  divider.addEventListener("pointerup", () => { dragging = false; });
  divider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    view.split = Math.min(1, Math.max(0, view.split + step));
    redraw();
  });
  new ResizeObserver(redraw).observe(canvas);
  document.addEventListener("themechange", redraw);

  return {
    root,
    redraw,
    set(name, picture) { pictures[name] = picture; redraw(); },
    picture: (name) => pictures[name],
    zoomIn: () => zoomAt(1.4),
    zoomOut: () => zoomAt(1 / 1.4),
    fit() { view.zoom = 1; keep(); },
  };
}
