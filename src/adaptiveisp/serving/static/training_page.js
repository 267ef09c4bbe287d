// The training page: the curves of one or several runs, read again while they grow.

import { failed, post, postJson } from "./api.js";
import { chart, LINES } from "./charts.js";
import { h, number, replace, say } from "./dom.js";

const EVERY = 2500;
const ORDER = ["detector_loss", "loss/", "reward/", "entropy", "worth/", "best_loss", "gradient_norm/", ""];

export async function trainingPage(main, catalogue, where) {
  const shown = new Set(where.query.get("runs") ? where.query.get("runs").split(",") : catalogue.runs.slice(0, 4).map((run) => run.id));
  const data = new Map();
  let smooth = 0.9, timer = 0, closed = false;
  const picker = h("ul", { class: "run-list" });
  const slider = h("input", { type: "range", min: "0", max: "98", value: "90", "aria-label": "Smoothing of curves", oninput: () => { smooth = Number(slider.value) / 100; draw(); } });
  const states = h("div", { class: "block run-states" }), charts = h("div", { class: "charts" }), modules = h("div", { class: "block" }), pictures = h("div", {});
  replace(main, h("div", { class: "training-page", tabindex: "0", role: "region", "aria-label": "Training runs" },
    h("div", { class: "toolbar" }, h("h2", {}, "Runs"), picker, h("span", { class: "space" }), h("label", { class: "field" }, "Smooth", slider)),
    states, charts, modules, pictures));

  const runs = () => catalogue.runs.filter((run) => shown.has(run.id) && data.has(run.id)).map((run) => ({ id: run.id, ...data.get(run.id) }));

  function showPicker() {
    replace(picker, catalogue.runs.map((run) => h("li", {}, h("label", {}, h("input", {
      type: "checkbox", checked: shown.has(run.id), onchange: (event) => {
        if (event.target.checked) shown.add(run.id); else shown.delete(run.id);
        history.replaceState(null, "", `#/training?runs=${[...shown].join(",")}`);
        read().catch(failed);
      } }), run.name))));
  }

  async function read() {
    let changed = false;
    for (const id of shown) {
      const known = data.get(id);
      const found = await postJson("/api/training/read", { run: id, version: known ? known.version : -1 });
      if (found.unchanged) { if (known.state.state !== found.state.state) { known.state = found.state; changed = true; } continue; }
      data.set(id, found);
      changed = true;
    }
    if (closed) return;
    if (changed || !charts.childElementCount) draw();
    main.dataset.settled = String(Number(main.dataset.settled || 0) + 1);
  }

  async function follow() {
    try { await read(); } catch (error) { failed(error); }
    if (!closed) timer = setTimeout(follow, EVERY);
  }

  function smoothed(points) {
    let mean = 0, weight = 0;
    return points.map(([x, y]) => {
      mean = smooth * mean + (1 - smooth) * y;
      weight = smooth * weight + (1 - smooth);
      return [x, mean / weight];
    });
  }

  function draw() {
    const list = runs();
    replace(states, h("table", {}, h("thead", {}, h("tr", {}, ["run", "state", "passes", "iteration", "time", "method", "best AP50 on dev"].map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, list.map((run) => {
        const best = Math.max(...run.dev.map((line) => line.ap50).filter((value) => value !== undefined && value !== null));
        return h("tr", {}, h("th", { scope: "row" }, run.name), h("td", {}, h("span", { class: `chip ${run.state.state === "running" ? "good" : run.state.state === "stopped" ? "bad" : ""}` }, run.state.state)),
          h("td", { class: "num" }, `${run.state.passes ?? 0} of ${run.state.budget ?? "?"}`), h("td", { class: "num" }, String(run.state.iteration ?? 0)),
          h("td", { class: "num" }, `${number(run.seconds / 60)} min`), h("td", {}, [run.config.method, run.config.preset].filter(Boolean).join(", ")), h("td", { class: "num" }, Number.isFinite(best) ? (100 * best).toFixed(1) : "–"));
      }))));
    const made = [devChart(list), ...groups(list)].filter(Boolean);
    replace(charts, made.length ? made : h("p", { class: "muted" }, "no lines yet; the page reads the logs again every few seconds"));
    replace(modules, moduleCharts(list));
    modules.classList.toggle("hidden", !modules.childElementCount);
    showPictures(list).catch(failed);
  }

  function devChart(list) {
    const scored = list.filter((run) => run.dev.length);
    if (!scored.length) return null;
    const series = scored.map((run) => ({ name: run.name, marks: true, colour: LINES[list.indexOf(run) % LINES.length], points: run.dev.filter((line) => line.ap50 !== undefined).map((line) => [line.iteration, 100 * line.ap50]) }));
    for (const run of scored) {
      const base = run.dev.map((line) => line["auto-exposure/ap50"]).find((value) => value !== undefined);
      const last = run.dev[run.dev.length - 1].iteration || 1;
      if (base !== undefined) { series.push({ name: "auto-exposure", colour: "var(--c6)", points: [[0, 100 * base], [last, 100 * base]] }); break; }
    }
    return chart(series, { title: "AP50 on dev", x: "iteration", legend: true });
  }

  function groups(list) {
    const names = [...new Set(list.flatMap((run) => Object.keys(run.curves)))].filter((name) => name !== "passes" && name !== "dropped");
    const rank = (name) => ORDER.findIndex((begin) => name.startsWith(begin));
    names.sort((a, b) => rank(a) - rank(b));
    const kept = names.filter((name) => !name.startsWith("parameters/") && !name.startsWith("kept/")).slice(0, 18);
    return kept.map((name) => {
      const having = list.filter((run) => run.curves[name]);
      if (having.every((run) => run.curves[name].every((point) => point[1] === 0))) return null;
      const series = having.map((run) => ({ name: run.name, colour: LINES[list.indexOf(run) % LINES.length], points: smoothed(run.curves[name]) }));
      const faint = having.map((run) => ({ name: "", faint: true, colour: LINES[list.indexOf(run) % LINES.length], points: run.curves[name] }));
      return chart([...series, ...(smooth > 0 ? faint : [])], { title: name, x: "iteration", legend: list.length > 1 });
    });
  }

  function moduleCharts(list) {
    const having = list.filter((run) => Object.keys(run.modules).length);
    if (!having.length) return [];
    return having.map((run) => {
      const last = Object.entries(run.modules).map(([name, points]) => [name, points[points.length - 1][1]]).sort((a, b) => b[1] - a[1]);
      return h("section", {}, h("h3", {}, `Modules that ${run.name} chose, share of the last 100 iterations`),
        h("ul", { class: "bars shares" }, last.filter(([, share]) => share > 0).map(([name, share]) => h("li", { class: "bar-row" }, h("span", { class: "bar-name" }, name),
          h("meter", { min: "0", max: "1", value: share, "aria-label": `share of ${name}` }), h("span", { class: "num bar-value" }, `${(100 * share).toFixed(1)} %`)))));
    });
  }

  const held = new Map();
  async function showPictures(list) {
    for (const run of list) for (const name of run.pictures) {
      const key = `${run.id}/${name}`, version = run.state.state === "finished" ? "end" : run.dev.length;
      if (held.get(key) && held.get(key).version === version) continue;
      const blob = await (await post("/api/training/picture", { run: run.id, name })).blob();
      if (held.get(key)) URL.revokeObjectURL(held.get(key).address);
      held.set(key, { version, address: URL.createObjectURL(blob) });
    }
    const title = { "trajectories.png": "sample trajectories", "dev.png": "score on dev" };
    replace(pictures, list.flatMap((run) => run.pictures.filter((name) => name === "trajectories.png" && held.has(`${run.id}/${name}`)).map((name) => h("figure", { class: "block" },
      h("figcaption", {}, h("h3", {}, `${run.name}: ${title[name]}`)), h("img", { src: held.get(`${run.id}/${name}`).address, alt: `${title[name]} of ${run.name}: images after each module` })))));
  }

  showPicker();
  await follow();
  say("");
  return { close: () => { closed = true; clearTimeout(timer); for (const one of held.values()) URL.revokeObjectURL(one.address); } };
}
