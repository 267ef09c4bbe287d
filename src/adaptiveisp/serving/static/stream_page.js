// The stream page: the last frames of a stream while it runs, its latency, boxes and parameters over time.

import { failed, post, postJson } from "./api.js";
import { chart } from "./charts.js";
import { h, number, replace, say } from "./dom.js";

const EVERY = 1000, SHOWN = 6;

export async function streamPage(main, catalogue, where) {
  const stream = catalogue.streams.find((one) => one.id === where.rest[0]) || catalogue.streams[0];
  let closed = false, timer = 0, seen = 0, watching = false, chosen = "";
  const canvas = h("canvas", { class: "stream-canvas", role: "img", "aria-label": "The latest frame with its boxes" });
  const note = h("p", { class: "empty" });
  const facts = h("div", { class: "block" }), charts = h("div", { class: "stream-charts" });
  const stages = h("select", { id: "stream-stage", onchange: () => { chosen = stages.value; } });
  const picker = catalogue.streams.length > 1 ? h("ul", { class: "run-list" }, catalogue.streams.map((one) => h("li", {}, h("a", { href: `#/stream/${one.id}`, "aria-current": one === stream ? "page" : null }, one.name)))) : h("h2", {}, stream.name);
  replace(main, h("div", { class: "stream-page" },
    h("section", { class: "stream-left", "aria-label": "Latest frame" }, h("div", { class: "toolbar" }, picker), h("div", { class: "pane" }, canvas, note)),
    h("section", { class: "report-side", "aria-label": "Numbers", tabindex: "0" }, facts, h("label", { class: "field" }, "Stage", stages), charts)));

  async function read() {
    const found = await postJson("/api/stream/read", { stream: stream.id });
    if (closed) return;
    const total = found.milliseconds ? found.milliseconds.total : null;
    const row = (name, value) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "num" }, value));
    replace(facts, h("table", {}, h("tbody", {}, row("frames read", String(found.frames)), row("frames a second, now", found.rate === null ? "–" : number(found.rate)),
      row(`missing of the last ${found.shown}`, h("span", { class: found.missing ? "bad" : "" }, String(found.missing))), row("latency of the last frame", found.latency.length ? `${number(found.latency[found.latency.length - 1][1])} ms` : "–"),
      row("work on the last frame", total === null ? "–" : `${number(total)} ms`), row("last frame", found.last.name || "–"))),
      h("p", { class: "muted small" }, "Missing numbers are frames that were dropped or failed."));
    showCharts(found);
    if (found.has_frames) watch(); else showBoxes(found.last);
    main.dataset.settled = String(Number(main.dataset.settled || 0) + 1);
  }

  function showCharts(found) {
    const names = [...new Set(Object.keys(found.parameters).map((name) => name.split(" · ")[0]))];
    if ([...stages.options].map((option) => option.value).join() !== names.join()) replace(stages, names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
    if (!names.includes(chosen)) chosen = names[0] || "";
    const own = Object.entries(found.parameters).filter(([name]) => name.startsWith(`${chosen} · `)).slice(0, SHOWN);
    const parts = [];
    if (own.length) parts.push(chart(own.map(([name, points]) => ({ name: name.split(" · ")[1], points })), { title: `Parameters of ${chosen}`, x: "frame", high: 190, legend: true }));
    if (found.latency.length) parts.push(chart([{ name: "latency", points: found.latency }], { title: "Latency in milliseconds", x: "frame", high: 160 }), chart([{ name: "boxes", points: found.boxes }], { title: "Boxes", x: "frame", high: 140 }));
    replace(charts, parts.length ? parts : h("p", { class: "muted" }, "no frames yet; the file is read again every second"));
  }

  function showBoxes(last) {
    canvas.classList.add("hidden");
    const boxes = last.boxes || [];
    replace(note, "Frames are shown while the stream serves them: stream … --mjpeg 8000, and view … --mjpeg 8000.",
      h("span", { class: "stream-boxes" }, boxes.length ? `The last frame has ${boxes.map((box) => `${box.class} ${Math.round(100 * box.score)} %`).slice(0, 12).join(", ")}.` : "The last frame has no boxes."));
  }

  async function watch() {
    if (watching) return;
    watching = true;
    try {
      while (!closed) {
        const response = await post("/api/stream/frame", { seen });
        if (response.status === 204) {
          if (!seen) note.textContent = "No picture comes; is stream --mjpeg running on the port that --mjpeg names?";
          await new Promise((done) => setTimeout(done, 1000));
          continue;
        }
        seen = Number(response.headers.get("X-Number"));
        const bitmap = await createImageBitmap(await response.blob());
        if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) { canvas.width = bitmap.width; canvas.height = bitmap.height; }
        canvas.getContext("2d").drawImage(bitmap, 0, 0);
        canvas.classList.remove("hidden");
        note.textContent = "";
        main.dataset.frames = String(seen);
      }
    } catch (error) { if (!closed) note.textContent = error.message; } finally { watching = false; }
  }

  async function follow() {
    try { await read(); } catch (error) { failed(error); }
    if (!closed) timer = setTimeout(follow, EVERY);
  }
  await follow();
  say("");
  return { close: () => { closed = true; clearTimeout(timer); } };
}
