// The keyboard of the image page. Keys that a field or a slider needs stay with it.

export function bindKeys({ store, pane, list, select, toggle, move, removeStage, undo, setMode, flip }) {
  const order = () => ["raw", ...store.get("stages").map((stage) => stage.key), "result"];

  function step(by) {
    const keys = order(), at = keys.indexOf(store.get("selected"));
    select(keys[Math.min(keys.length - 1, Math.max(0, at + by))]);
  }

  const actions = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => list.step(-1), ArrowDown: () => list.step(1),
    " ": () => setMode(store.get("mode") === "before" ? "after" : "before"),
    o: () => toggle(store.get("selected")), Delete: removeStage, z: undo, r: () => select("result"), 0: () => select("raw"),
    "+": pane.zoomIn, "=": pane.zoomIn, "-": pane.zoomOut, f: pane.fit, d: () => setMode("split"),
    s: () => setMode(store.get("mode") === "side" ? "split" : "side"), b: () => flip("showBoxes")(), l: () => flip("lift")(),
  };

  function pressed(event) {
    const target = event.target, tag = target.tagName;
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (tag === "TEXTAREA" || tag === "SELECT" || (tag === "INPUT" && target.type !== "checkbox")) return;
    if (event.key === " " && (tag === "BUTTON" || tag === "INPUT" || tag === "A")) return;
    if (event.shiftKey && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      move(event.key === "ArrowLeft" ? -1 : 1);
    } else if (/^[1-9]$/.test(event.key)) {
      const stage = store.get("stages")[Number(event.key) - 1];
      if (!stage) return;
      select(stage.key);
    } else if (event.key in actions) {
      if (event.key === "o" && !store.get("stages").some((stage) => stage.key === store.get("selected"))) return;
      actions[event.key]();
    } else return;
    event.preventDefault();
  }

  document.addEventListener("keydown", pressed);
  return () => document.removeEventListener("keydown", pressed);
}
