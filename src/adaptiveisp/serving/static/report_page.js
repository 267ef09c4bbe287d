// The report page: the images of an `eval`, sorted and filtered, and its curves. The address holds the selection.

import { bitmapOf, failed, latest, postJson } from "./api.js";
import { chart } from "./charts.js";
import { h, number, replace, say, signed } from "./dom.js";

const SORTS = {
  a: "A better than B first", b: "B better than A first", lossa: "highest loss of A first", found: "fewest objects found by A first", photo: "order of the data set",
};
const LIGHTS = [0, 0.01, 0.03, 0.1, 0.3, 1.01];
const STEP = 60;

export async function reportPage(main, catalogue, where) {
  const choice = { report: where.rest[0] || catalogue.reports[0].id, set: "", detector: "", a: "", b: "", sort: "b", light: "", class: "", size: "", worse: "", shown: "images" };
  for (const [name, value] of where.query) if (name in choice) choice[name] = value;
  let report = null, rows = [], given = false, many = STEP;
  const bar = h("div", { class: "toolbar", role: "toolbar", "aria-label": "Report" });
  const filters = h("div", { class: "filters" });
  const body = h("div", { class: "report-body" });
  const scores = h("section", { class: "report-side", "aria-label": "Scores", tabindex: "0" });
  replace(main, h("div", { class: "report-page" }, h("section", { class: "report-main", "aria-label": "Images of the report" }, bar, filters, body), scores));

  const observer = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    observer.unobserve(entry.target);
    paint(entry.target).catch(() => {});
  }));
  let queue = Promise.resolve();
  function paint(canvas) {
    queue = queue.then(async () => {
      if (!canvas.isConnected) return;
      const found = await postJson("/api/report/thumb", { image: canvas.dataset.image, detector: catalogue.detectors[0] });
      const bitmap = await bitmapOf(found.thumb, "image/jpeg");
      const scale = Math.max(canvas.width / bitmap.width, canvas.height / bitmap.height);
      canvas.getContext("2d").drawImage(bitmap, (canvas.width - bitmap.width * scale) / 2, (canvas.height - bitmap.height * scale) / 2, bitmap.width * scale, bitmap.height * scale);
    }).catch(() => {});
    return queue;
  }

  function keep() {
    const query = new URLSearchParams(Object.entries(choice).filter(([name, value]) => value && name !== "report")).toString();
    history.replaceState(null, "", `#/report/${encodeURIComponent(choice.report)}?${query}`);
  }

  async function load() {
    report = await postJson("/api/report/open", { report: choice.report, set: choice.set });
    choice.set = report.set;
    if (!report.detectors.includes(choice.detector)) choice.detector = report.detectors[0];
    if (!report.policies.includes(choice.a)) choice.a = report.policies[report.policies.length - 1];
    if (!report.policies.includes(choice.b)) choice.b = report.policies.find((name) => name !== choice.a) || choice.a;
    showBar();
    await loadRows();
  }

  const loadRows = latest(async () => {
    say("reading the report …");
    const asked = { report: choice.report, set: choice.set, detector: choice.detector };
    const found = await postJson("/api/report/images", { ...asked, a: choice.a, b: choice.b });
    rows = found.rows;
    given = found.given;
    say(given ? "" : "to open its images, give the viewer the data too: adaptiveisp view REPORT DATA");
    showFilters();
    show();
    showScores([]);
    const curves = await postJson("/api/report/curves", { ...asked, policies: [...new Set([choice.a, choice.b])] });
    showScores(curves.curves, curves.resamples);
    main.dataset.settled = String(Number(main.dataset.settled || 0) + 1);
  });

  function select(name, label, options, work) {
    return h("label", { class: "field" }, label, h("select", { id: `report-${name}`, onchange: (event) => { choice[name] = event.target.value; work(); } },
      options.map(([value, text]) => h("option", { value, selected: choice[name] === value }, text))));
  }

  function showBar() {
    const same = (list) => list.map((one) => [one, one]);
    replace(bar,
      catalogue.reports.length > 1 ? select("report", "Report", catalogue.reports.map((one) => [one.id, one.name]), () => { choice.set = ""; load().catch(failed); }) : null,
      report.sets.length > 1 ? select("set", "Data set", same(report.sets), () => load().catch(failed)) : null,
      report.detectors.length > 1 ? select("detector", "Detector", same(report.detectors), loadRows) : null,
      select("a", "A", same(report.policies), loadRows), select("b", "B", same(report.policies), loadRows),
      select("sort", "Sort", Object.entries(SORTS), show));
  }

  function showFilters() {
    const classes = [...new Set(rows.flatMap((row) => row.classes))].sort();
    const lights = LIGHTS.slice(0, -1).map((low, i) => [String(i), `${low} to ${Math.min(1, LIGHTS[i + 1])}`]).filter(([i]) => rows.some((row) => inLight(row, i)));
    replace(filters,
      lights.length > 1 ? select("light", "Light", [["", "any"], ...lights], show) : null,
      select("class", "Class", [["", "any"], ...classes.map((one) => [one, one])], show),
      select("size", "Objects", [["", "any size"], ...["small", "medium", "large"].map((one) => [one, one])], show),
      hasLoss() ? select("worse", "Worse than raw", [["", "all images"], ["a", "by A"], ["b", "by B"]], show) : null,
      h("span", { class: "muted small", id: "report-count", role: "status" }));
  }

  // Losses are optional in a report; without them their columns and choices would be empty.
  const hasLoss = () => rows.some((row) => row.loss.some((value) => value !== null));

  function inLight(row, index) {
    return row.light !== null && row.light >= LIGHTS[index] && row.light < LIGHTS[Number(index) + 1];
  }

  function chosenRows() {
    const kept = rows.filter((row) => (!choice.light || inLight(row, choice.light)) && (!choice.class || row.classes.includes(choice.class))
      && (!choice.size || row.sizes.includes(choice.size)) && (!choice.worse || row.worse_than_raw[choice.worse === "a" ? 0 : 1]));
    const gain = (row) => (row.loss[0] !== null && row.loss[1] !== null ? row.loss[1] - row.loss[0] : row.found[0][0] - row.found[1][0]);
    const sorts = { a: (x, y) => gain(y) - gain(x), b: (x, y) => gain(x) - gain(y), lossa: (x, y) => (y.loss[0] ?? -1) - (x.loss[0] ?? -1),
      found: (x, y) => (x.found[0][0] - x.objects) - (y.found[0][0] - y.objects), photo: () => 0 };
    return kept.sort(sorts[choice.sort] || sorts.photo);
  }

  function show() {
    keep();
    const list = chosenRows();
    document.getElementById("report-count").textContent = `${list.length} of ${rows.length} images`;
    many = STEP;
    replace(body, h("ol", { class: "rows" }, list.slice(0, many).map(rowOf)), more(list));
  }

  function more(list) {
    if (list.length <= many) return null;
    const button = h("button", { type: "button", class: "wide", onclick: () => {
      const nodes = list.slice(many, many + STEP).map(rowOf);
      many += STEP;
      body.firstChild.append(...nodes);
      if (list.length <= many) button.remove();
    } }, "More images");
    return button;
  }

  function rowOf(row) {
    const canvas = row.image ? h("canvas", { width: 132, height: 88, "data-image": row.image, "aria-hidden": "true" }) : null;
    if (canvas) observer.observe(canvas);
    const difference = row.loss[0] !== null && row.loss[1] !== null ? row.loss[0] - row.loss[1] : null;
    const side = (i, name) => h("td", {}, `${row.found[i][0]} of ${row.objects}`), wrong = (i) => h("td", {}, String(row.found[i][1]));
    const cells = (name, i) => h("tr", {}, h("th", { scope: "row" }, name), side(i), wrong(i), hasLoss() ? h("td", { class: "num" }, number(row.loss[i])) : null,
      h("td", {}, row.worse_than_raw[i] ? h("span", { class: "chip bad" }, "worse than raw") : null));
    const title = row.name || `photo ${row.photo}${row.draw ? `, draw ${row.draw}` : ""}`;
    const query = new URLSearchParams({ report: choice.report, set: choice.set, detector: choice.detector, photo: row.photo, draw: row.draw, run: choice.a, against: choice.b });
    return h("li", { class: "row" }, canvas || h("div", { class: "no-thumb muted small" }, "not given"),
      h("div", { class: "row-body" },
        h("h3", {}, row.image ? h("a", { href: `#/image/${row.image}?${query}` }, title) : title,
          row.light !== null ? h("span", { class: "chip" }, `light ${number(row.light, 2)}`) : null,
          difference !== null ? h("span", { class: `chip ${difference < 0 ? "good" : difference > 0 ? "bad" : ""}` }, `A − B ${signed(difference)}`) : null),
        h("table", { class: hasLoss() ? "row-table" : "row-table roomy" }, h("thead", {}, h("tr", {}, ["policy", "found", "false", ...(hasLoss() ? ["loss"] : []), ""].map((one) => (one ? h("th", { scope: "col" }, one) : h("td", {}))))),
          h("tbody", {}, cells(`A ${choice.a}`, 0), choice.b === choice.a ? null : cells(`B ${choice.b}`, 1))),
        row.classes.length ? h("p", { class: "muted small classes" }, row.classes.join(", ")) : null));
  }

  function showScores(curves, resamples) {
    const rank = Object.entries(report.scores).map(([name, by]) => [name, by[choice.detector]]).filter(([, one]) => one);
    const known = (one) => one.worse_than_raw !== null && one.worse_than_raw !== undefined, worse = rank.some(([, one]) => known(one));
    const points = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1));
    const pair = report.differences.find((one) => one.detector === choice.detector && ((one.a === choice.a && one.b === choice.b) || (one.a === choice.b && one.b === choice.a)));
    const sign = pair && pair.a === choice.b ? -1 : 1;
    const parts = [h("h2", {}, "Scores"), h("table", {}, h("thead", {}, h("tr", {}, ["policy", "AP50", "AP", ...(worse ? ["worse than raw"] : [])].map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, rank.map(([name, one]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "num" }, points(one.ap50)), h("td", { class: "num" }, points(one.ap)),
        worse ? h("td", { class: "num" }, known(one) ? `${Math.round(100 * one.worse_than_raw)} %` : "–") : null))))];
    if (pair) {
      const ends = [sign * pair.low, sign * pair.high].sort((x, y) => x - y);
      parts.push(h("p", { class: "small" }, `A − B: ${signed(100 * sign * pair.mean)} points of ${pair.metric.toUpperCase()}, ${Math.round(100 * pair.level)} % interval ${signed(100 * ends[0])} to ${signed(100 * ends[1])}`));
    }
    if (curves.length) {
      parts.push(chart(curves.map((one) => ({ name: one.policy, points: one.precision.map((value, i) => [i / 100, value]) })), { title: "Precision over recall, mean of classes, overlap 0.5", x: "recall", xRange: [0, 1], yRange: [0, 1], legend: true }));
      const lights = curves.filter((one) => one.lights.length);
      if (lights.length) {
        const edges = [...new Map(lights.flatMap((one) => one.lights).map((bin) => [bin.edges[0], bin.edges])).values()].sort((x, y) => x[0] - y[0]);
        const at = (bin) => edges.findIndex((one) => one[0] === bin.edges[0]);
        const series = lights.map((one) => ({ name: one.policy, marks: true, points: one.lights.map((bin) => [at(bin), 100 * bin.ap50]),
          low: one.lights.map((bin) => (bin.low === null ? null : 100 * bin.low)), high: one.lights.map((bin) => (bin.high === null ? null : 100 * bin.high)) }));
        parts.push(chart(series, { title: `AP50 by light, bars: 95 % intervals, ${resamples} resamples`, x: "light", names: edges.map((one, i) => [i, `${one[0]}–${one[1]}`]), xRange: [-0.4, edges.length - 0.6], legend: true }));
      }
    }
    const front = report.front[choice.detector];
    if (front && front.points.length > 1) {
      const unit = { table_ms: "milliseconds by this machine's table", cost_ms: "milliseconds by the cost table", clock_ms: "milliseconds measured" }[front.cost];
      const sorted = front.points.filter((point) => front.front.includes(point[0])).sort((x, y) => x[1] - y[1]);
      parts.push(chart([{ name: "Pareto front", points: sorted.map((point) => [point[1], 100 * point[2]]), colour: "var(--c6)" },
        { name: "policies", dots: true, colour: "var(--c0)", points: front.points.map((point) => [point[1], 100 * point[2]]), labels: front.points.map((point) => point[0]), hollow: front.points.map((point) => !front.front.includes(point[0])) }],
      { title: "AP50 against time", x: unit }));
    }
    parts.push(h("details", {}, h("summary", {}, "Notes of the report"), report.notes.map((note) => h("p", { class: "small" }, note))));
    replace(scores, parts);
  }

  await load();
  return {
    close: () => observer.disconnect(),
    go: async (to) => {
      if (to.rest[0] && to.rest[0] !== choice.report) { choice.report = to.rest[0]; await load(); }
    },
  };
}
