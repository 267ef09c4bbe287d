// The image page: one raw, its pipeline as cards, and what a detector finds.

import { bitmapOfPixels, failed, later, latest, post, postJson } from "./api.js";
import { judged } from "./boxes.js";
import { makeCards, worthOf, worthText } from "./cards.js";
import { h, number, replace, say, signed } from "./dom.js";
import { makeExport } from "./exporting.js";
import { makeList } from "./images.js";
import { bindKeys } from "./image_keys.js";
import { makePane } from "./pane.js";
import { boxesPanel, stagePanel } from "./panels.js";
import { makeStore, pipelineOf, placeOf, stageOf } from "./state.js";
import { makeWhy } from "./why.js";

const COMPARED = { raw: "the developed raw", without: "without the selected stage", policy: "the policy's own choice" };
const OTHER = "policy: ";

export async function imagePage(main, catalogue, where) {
  const store = makeStore({
    image: "", detector: catalogue.detectors[0], policy: catalogue.policies[0], compare: "raw", stages: [], moduleSet: "extended",
    modules: new Map(), chosen: [], selected: "result", mode: "split", lift: true, showBoxes: true, least: 0.25, facts: null, full: null,
    boxes: [], beforeBoxes: [], after: null, before: null, views: [], worth: null, slopes: null, highlight: null, editable: true, undo: [],
    beforeName: "", afterName: "", tab: "stage", keep: false,
  });
  const pane = makePane(store);
  const list = makeList(catalogue, (id) => open(id));
  const cards = makeCards({ select, toggle, place });
  const stageRoot = h("div", { class: "panel-body" }), boxesRoot = h("div", { class: "panel-body" });
  const whyRoot = h("div", { class: "panel-body" }), exportRoot = h("div", { class: "panel-body" });
  const why = makeWhy(whyRoot, store, adopt);
  makeExport(exportRoot, store, adopt);
  const panels = { stage: ["Stage", stageRoot], boxes: ["Boxes", boxesRoot], why: ["Why", whyRoot], export: ["Export", exportRoot] };
  const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Details" });
  const score = h("output", { class: "num score" });
  const controls = toolbar();
  const adder = h("select", { "aria-label": "Add a stage", onchange: addStage });
  const strip = h("section", { class: "strip", "aria-label": "Pipeline" },
    h("div", { class: "strip-head" }, h("h2", {}, "Pipeline"), h("span", { class: "muted small", id: "pipeline-note" }),
      h("span", { class: "space" }), h("button", { type: "button", id: "keep", "aria-pressed": "false", title: "keeps this pipeline when another image is opened, instead of what the policy chooses for it", onclick: keepPipeline }, "Keep for all images"),
      h("button", { type: "button", id: "worth", onclick: () => findWorth().catch(failed), title: "renders the pipeline without each stage, one after the other" }, "What is each stage worth?"),
      adder, h("button", { type: "button", id: "reset", onclick: () => choose().catch(failed) }, "Reset to the policy")),
    cards.row);
  const side = h("aside", { class: "side-panel", "aria-label": "Details" }, tabs,
    Object.entries(panels).map(([name, [, root]]) => h("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, class: "panel", tabindex: "0" }, root)));
  replace(main, h("div", { class: "image-page" }, list.root, h("section", { class: "middle", "aria-label": "Picture" }, controls, pane.root, strip), side));

  const asked = () => ({ image: store.get("image"), detector: store.get("detector") });

  function toolbar() {
    const choice = (name, options, label) => h("label", { class: "field" }, label, h("select", { id: `choose-${name}`, onchange: (event) => changeChoice(name, event.target.value).catch(failed) },
      options.map(([value, text]) => h("option", { value, selected: store.get(name) === value }, text))));
    const compared = [...Object.entries(COMPARED), ...catalogue.policies.map((name) => [OTHER + name, name])];
    const least = h("input", { type: "range", min: "5", max: "95", step: "1", value: "25", "aria-label": "Least score of the boxes that are shown", oninput: () => { store.set("least", Number(least.value) / 100); if (!store.get("facts")?.has_loss) forgetWorth(); showBoxes(); } });
    const button = (id, text, title, work, pressed) => h("button", { type: "button", id, title, onclick: work, "aria-pressed": pressed === undefined ? null : String(pressed) }, text);
    return h("div", { class: "toolbar", role: "toolbar", "aria-label": "Picture" },
      choice("policy", catalogue.policies.map((name) => [name, name]), "Policy"),
      choice("detector", catalogue.detectors.map((name) => [name, name]), "Detector"),
      choice("compare", compared, "Compare with"),
      h("label", { class: "field" }, "Score", least, score),
      h("span", { class: "space" }),
      button("side-by-side", "Side by side", "two pictures with one zoom (s)", () => setMode(store.get("mode") === "side" ? "split" : "side"), false),
      button("lift", "Brighten", "brightens dark linear pictures for viewing only (l)", flip("lift"), true),
      button("boxes-on", "Boxes", "shows boxes (b)", flip("showBoxes"), true),
      h("span", { class: "zoom" }, button("zoom-out", "−", "zoom out", pane.zoomOut), button("fit", "Fit", "fit (f)", pane.fit), button("zoom-in", "+", "zoom in", pane.zoomIn)));
  }

  function flip(name) {
    return () => {
      store.set(name, !store.get(name));
      document.getElementById(name === "lift" ? "lift" : "boxes-on").setAttribute("aria-pressed", String(store.get(name)));
      if (name === "lift") redraw(); else pane.redraw();
    };
  }

  function setMode(mode) {
    store.set("mode", mode);
    document.getElementById("side-by-side").setAttribute("aria-pressed", String(mode === "side"));
    pane.redraw();
  }

  async function changeChoice(name, value) {
    store.set(name, value);
    if (name === "compare") return redraw();
    forgetWorth();
    if (name === "detector") await open(store.get("image"), store.get("stages"));
    else await choose();
  }

  async function open(id, kept = null) {
    if (!id) return;
    store.set("image", id);
    forgetWorth();
    list.select(id);
    say("developing …");
    const facts = await postJson("/api/image/open", asked());
    if (store.get("image") !== id) return;
    store.set("facts", facts);
    store.set("full", facts.full);
    pane.fit();
    say(facts.remarks[0] || "");
    history.replaceState(null, "", `#/image/${encodeURIComponent(id)}`);
    if ((kept && kept.length) || (store.get("keep") && store.get("stages").length)) { store.set("slopes", null); redraw(); } else await choose();
  }

  function keepPipeline() {
    store.set("keep", !store.get("keep"));
    document.getElementById("keep").setAttribute("aria-pressed", String(store.get("keep")));
  }

  async function choose() {
    if (store.get("keep")) keepPipeline();
    const given = { ...asked(), policy: store.get("policy") };
    const answer = await postJson("/api/image/choose", given);
    if (store.get("image") !== given.image || store.get("policy") !== given.policy) return;  // another one was chosen meanwhile
    store.set("editable", answer.editable);
    const note = answer.editable ? answer.note : answer.described.length ? `${answer.described.join("; ")}: depends on this image alone and cannot be changed here` : `${store.get("policy")} develops by itself, without a pipeline to change`;
    document.getElementById("pipeline-note").textContent = note;
    const pipeline = answer.pipeline || { module_set: "extended", stages: [] };
    await adopt(pipeline, "", true);
    store.set("chosen", store.get("stages").map((stage) => ({ module: stage.module, params: { ...stage.params } })));
    showStage();
  }

  async function adopt(pipeline, what = "", fresh = false) {
    if (!fresh) remember();
    store.set("moduleSet", pipeline.module_set);
    const found = await postJson("/api/image/modules", { module_set: pipeline.module_set });
    store.set("modules", new Map(found.modules.map((module) => [module.name, module])));
    replace(adder, h("option", { value: "" }, "Add a stage …"), found.modules.map((module) => h("option", { value: module.name, title: module.effect }, module.name)));
    store.set("stages", pipeline.stages.map((stage) => stageOf(stage.module, stage.params)));
    forgetWorth();
    store.set("selected", "result");
    if (what) say(what);
    changed();
    if (store.get("tab") === "why" && fresh) why.load();
  }

  // A link of the report page: the pipeline that a policy had there, beside another policy.
  async function fromReport(query) {
    if (!query.get("report") || !query.get("run")) return;
    const detector = query.get("detector");
    if (catalogue.detectors.includes(detector) && detector !== store.get("detector")) {
      document.getElementById("choose-detector").value = detector;
      store.set("detector", detector);
      await open(store.get("image"));
    }
    const asked = { report: query.get("report"), set: query.get("set") || "", image: store.get("image"), detector: store.get("detector"), photo: Number(query.get("photo")), draw: Number(query.get("draw")) };
    const against = query.get("against");
    if (catalogue.policies.includes(against)) {
      store.set("compare", OTHER + against);
      document.getElementById("choose-compare").value = OTHER + against;
    }
    const found = await postJson("/api/report/pipeline", { ...asked, policy: query.get("run") });
    store.set("editable", true);
    await adopt(found.pipeline, "", true);
    document.getElementById("pipeline-note").textContent = `${query.get("run")} in the report${found.note ? `: ${found.note}` : ""}`;
  }

  function remember() {
    const copy = store.get("stages").map((stage) => ({ ...stage, params: { ...stage.params } }));
    store.set("undo", [...store.get("undo").slice(-49), copy]);
  }

  function undo() {
    const undos = store.get("undo");
    if (!undos.length) return;
    store.set("stages", undos[undos.length - 1]);
    store.set("undo", undos.slice(0, -1));
    changed();
  }

  // What the stages are worth holds for one pipeline, image and detector; after a change of these it is no longer shown.
  function forgetWorth() {
    if (store.get("worth")) say("");
    store.set("worth", null);
    cards.showWorth(null);
  }

  function changed() {
    store.set("slopes", null);
    forgetWorth();
    cards.show(store.get("stages"), store.get("selected"));
    if (!store.get("stages").some((stage) => stage.key === store.get("selected")) && store.get("selected") !== "raw") store.set("selected", "result");
    cards.select(store.get("selected"));
    showStage();
    redraw();
  }

  function select(key) {
    store.set("selected", key);
    cards.select(key);
    if (store.get("tab") !== "stage") tab("stage");
    showStage();
    redraw();
  }

  function toggle(key) {
    remember();
    const stage = store.get("stages").find((one) => one.key === key);
    stage.on = !stage.on;
    changed();
  }

  function place(key, before) {
    remember();
    const stages = [...store.get("stages")], from = stages.findIndex((one) => one.key === key), to = stages.findIndex((one) => one.key === before);
    const [moved] = stages.splice(from, 1);
    stages.splice(to, 0, moved);
    store.set("stages", stages);
    changed();
  }

  function move(by) {
    const stages = store.get("stages"), from = stages.findIndex((one) => one.key === store.get("selected"));
    if (from >= 0 && stages[from + by]) place(store.get("selected"), stages[from + by].key);
  }

  function removeStage() {
    const key = store.get("selected");
    if (!store.get("stages").some((one) => one.key === key)) return;
    remember();
    store.set("stages", store.get("stages").filter((one) => one.key !== key));
    changed();
  }

  function addStage() {
    const module = store.get("modules").get(adder.value);
    adder.value = "";
    if (!module) return;
    remember();
    if (!store.get("editable")) {
      store.set("editable", true);
      document.getElementById("pipeline-note").textContent = "from the developed raw";
    }
    const stage = stageOf(module.name, Object.fromEntries(module.params.map((param) => [param.name, param.neutral])));
    const stages = [...store.get("stages")], at = stages.findIndex((one) => one.key === store.get("selected"));
    stages.splice(at < 0 ? (store.get("selected") === "raw" ? 0 : stages.length) : at + 1, 0, stage);
    store.set("stages", stages);
    store.set("selected", stage.key);
    changed();
  }

  function moved(stage, final) {
    if (!final && !store.get("moving")) { remember(); store.set("moving", true); }
    if (final) store.set("moving", false);
    store.set("slopes", final ? null : store.get("slopes"));
    forgetWorth();
    drawAfter();
    settle();
  }

  const drawAfter = latest(async () => { await picture("after"); });
  const drawBefore = latest(async () => { await picture("before"); });
  const settle = later(() => analyse(), 220);
  const analyse = latest(async () => {
    const pipeline = pipelineOf(store), given = asked();
    const stale = () => store.get("image") !== given.image;
    const views = await postJson("/api/image/stages", { ...given, pipeline, ...(store.get("editable") ? {} : { policy: store.get("policy") }) });
    if (stale()) return;
    store.set("views", views.stages);
    await cards.fill(store.get("stages"), views.stages);
    if (stale()) return;
    showStage(true);
    const own = store.get("editable") ? { pipeline } : { policy: store.get("policy") };
    const after = await postJson("/api/image/detect", { ...given, ...own });
    if (stale()) return;
    const before = await postJson("/api/image/detect", { ...given, ...beforeOf().detect });
    if (stale()) return;
    store.set("after", after);
    store.set("before", before);
    showBoxes();
  });

  function redraw() { drawAfter(); drawBefore(); settle(); }

  // What the picture before the divider is: how to ask for it, and its name.
  function beforeOf() {
    const compare = store.get("compare"), set = store.get("moduleSet"), stages = store.get("stages");
    if (compare === "without") {
      const kept = pipelineOf(store, stages.filter((stage) => stage.key !== store.get("selected")));
      const named = stages.find((stage) => stage.key === store.get("selected"));
      return { picture: { pipeline: kept, stage: -1 }, detect: { pipeline: kept }, name: named ? `without ${named.module}` : "the same pipeline; select a stage" };
    }
    if (compare === "policy") return { picture: { policy: store.get("policy"), stage: -1 }, detect: { policy: store.get("policy") }, name: `${store.get("policy")}, unchanged` };
    if (compare.startsWith(OTHER)) {
      const policy = compare.slice(OTHER.length);
      return { picture: { policy, stage: -1 }, detect: { policy }, name: policy };
    }
    const empty = { version: 1, module_set: set, stages: [] };
    return { picture: { pipeline: empty, stage: 0 }, detect: { pipeline: empty }, name: "developed raw" };
  }

  async function picture(which) {
    const selected = store.get("selected"), pipeline = pipelineOf(store), before = beforeOf();
    let content = which === "before" ? before.picture : { pipeline, stage: placeOf(store, selected) };
    if (which === "after" && !store.get("editable") && selected === "result") content = { policy: store.get("policy"), stage: -1 };
    const given = asked();
    const response = await post("/api/image/picture", { ...given, ...content, lift: store.get("lift"), pixels: true });
    const lift = Number(response.headers.get("X-Lift"));
    const bitmap = await bitmapOfPixels(await response.arrayBuffer(), Number(response.headers.get("X-Width")), Number(response.headers.get("X-Height")));
    if (store.get("image") !== given.image) return;
    const shown = lift > 1 ? `, shown ${number(lift, 2)}× brighter` : "";
    const stage = store.get("stages").find((one) => one.key === selected);
    const name = which === "before" ? before.name : selected === "raw" ? "developed raw" : stage ? `after ${stage.module}${stage.on ? "" : " (off)"}, boxes of the result` : "result";
    store.set(`${which}Name`, name + shown);
    pane.set(which, bitmap);
    main.dataset[which] = String(Number(main.dataset[which] || 0) + 1);
  }

  function showBoxes() {
    score.textContent = `≥ ${Math.round(100 * store.get("least"))} %`;
    const after = store.get("after"), before = store.get("before"), facts = store.get("facts");
    if (!after || !before || !facts) return;
    const verdict = judged(after.boxes, before.boxes, facts.labels, store.get("least"));
    store.set("verdict", verdict);
    store.set("boxes", [...verdict.missed, ...verdict.list]);
    store.set("beforeBoxes", before.boxes.filter((box) => box.score >= store.get("least")));
    boxesPanel(boxesRoot, store, pane, beforeOf().name);
    showStage(true);
    pane.redraw();
    main.dataset.settled = String(Number(main.dataset.settled || 0) + 1);
  }

  function showStage(keepSliders = false) {
    stagePanel(stageRoot, store, { moved, toggle, move, removeStage, select, findSlopes }, keepSliders);
  }

  async function findSlopes() {
    say("computing the gradient …");
    const pipeline = pipelineOf(store);
    const found = await postJson("/api/image/slopes", { ...asked(), pipeline });
    const on = store.get("stages").filter((stage) => stage.on), slopes = {};
    found.slopes.forEach((slope) => { (slopes[on[slope.stage].key] = slopes[on[slope.stage].key] || {})[slope.param] = slope.change; });
    store.set("slopes", slopes);
    say("");
    showStage();
  }

  async function findWorth() {
    say("rendering the pipeline without each stage …");
    const on = store.get("stages").filter((stage) => stage.on);
    const now = () => JSON.stringify([asked(), pipelineOf(store), store.get("least")]), given = now();
    const found = await postJson("/api/image/worth", { ...asked(), pipeline: pipelineOf(store) });
    if (now() !== given) return say("the pipeline or the image was changed meanwhile; ask again what each stage is worth");
    const worth = {};
    on.forEach((stage, i) => { worth[stage.key] = worthOf(found.whole, found.without[i], store.get("least")); });
    store.set("worth", worth);
    cards.showWorth(worth);
    const stages = on.map((stage) => ({ name: `${store.get("stages").indexOf(stage) + 1} ${stage.module}`, key: stage.key, worth: worth[stage.key] }));
    say(worthText(stages, store.get("least")));
    const worst = stages.reduce((one, other) => (other.worth.change < one.worth.change ? other : one), stages[0]);
    if (worst && worst.worth.kind === "bad") cards.reveal(worst.key);
  }

  function tab(name) {
    store.set("tab", name);
    for (const button of tabs.children) {
      const on = button.id === `tab-${name}`;
      button.setAttribute("aria-selected", String(on));
      button.tabIndex = on ? 0 : -1;
    }
    for (const key of Object.keys(panels)) document.getElementById(`panel-${key}`).classList.toggle("hidden", key !== name);
    if (name === "why") why.load();
  }

  replace(tabs, Object.entries(panels).map(([name, [title]]) => h("button", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, "aria-selected": "false", onclick: () => tab(name),
    onkeydown: (event) => {
      const names = Object.keys(panels), to = names[names.indexOf(name) + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || NaN)];
      if (to) { event.stopPropagation(); event.preventDefault(); tab(to); document.getElementById(`tab-${to}`).focus(); }
    },
  }, title)));
  tab("stage");
  const unbind = bindKeys({ store, pane, list, select, toggle, move, removeStage, undo, setMode, flip });
  const first = where.rest[0] && catalogue.images.some((image) => image.id === where.rest[0]) ? where.rest[0] : catalogue.images.length ? catalogue.images[0].id : "";
  if (where.query.get("policy") && catalogue.policies.includes(where.query.get("policy"))) store.set("policy", where.query.get("policy"));
  document.getElementById("choose-policy").value = store.get("policy");
  if (first) await open(first);
  await fromReport(where.query);
  if (!first) say("drop a raw into the list to begin");
  showBoxes();
  return {
    close: unbind,
    go: async (to) => {
      const policy = to.query.get("policy");
      if (policy && catalogue.policies.includes(policy)) { store.set("policy", policy); document.getElementById("choose-policy").value = policy; }
      if (to.rest[0] && (to.rest[0] !== store.get("image") || policy)) await open(to.rest[0]);
      await fromReport(to.query);
    },
  };
}
