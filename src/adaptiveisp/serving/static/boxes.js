// Detections: which are right, which two pipelines share, and how they are drawn.

const OVERLAP = 0.5;

function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

// Pairs of the same class that overlap by at least a half: for each of the first, in its order, the best one left.
export function matches(first, second) {
  const taken = new Set();
  return first.map((one) => {
    let best = -1, most = OVERLAP;
    second.forEach((other, index) => {
      if (taken.has(index) || other.class !== one.class) return;
      const overlap = iou(one.box, other.box);
      if (overlap >= most) { best = index; most = overlap; }
    });
    if (best >= 0) taken.add(best);
    return best;
  });
}

// The boxes to draw and list, each with what it is: kept, gained, lost; found or false where labels are known; missed labels.
export function judged(after, before, labels, least) {
  const ours = after.filter((box) => box.score >= least);
  const theirs = before ? before.filter((box) => box.score >= least) : null;
  const pairs = theirs ? matches(ours, theirs) : null;
  const objects = labels ? labels.filter((label) => !label.crowd) : null;
  const truth = objects ? matches(ours, objects) : null;
  const list = ours.map((box, i) => ({
    ...box,
    change: !pairs ? "" : pairs[i] >= 0 ? "kept" : "gained",
    verdict: !truth ? "" : truth[i] >= 0 ? "found" : "false",
  }));
  if (theirs) {
    const kept = new Set(pairs);
    const right = objects ? matches(theirs, objects) : null;
    theirs.forEach((box, i) => {
      if (!kept.has(i)) list.push({ ...box, change: "lost", verdict: right ? (right[i] >= 0 ? "found" : "false") : "" });
    });
  }
  const missed = objects ? objects.filter((_, i) => !truth.includes(i)).map((label) => ({ ...label, change: "missed", verdict: "missed" })) : [];
  return { list, missed, found: truth ? truth.filter((i) => i >= 0).length : null, objects: objects ? objects.length : null };
}

export const STYLES = {
  gained: { colour: "#2fd39f", dash: [], width: 3, mark: "+" },
  lost: { colour: "#ff9a4d", dash: [7, 5], width: 2.5, mark: "−" },
  kept: { colour: "#56b4e9", dash: [], width: 2, mark: "" },
  missed: { colour: "#f0e442", dash: [2, 4], width: 2.5, mark: "" },
  false: { colour: "#e58fbd", dash: [], width: 2, mark: "" },
};

export function styleOf(box) {
  if (!box.change || box.change === "kept") return box.verdict === "false" ? STYLES.false : STYLES.kept;
  return STYLES[box.change];
}

// Draws boxes on a canvas whose place of a picture is given by `place(x, y)` in shares of the picture. Labels stay in `range`.
export function drawBoxes(context, boxes, full, place, highlighted, range = [0, Infinity]) {
  const taken = [], labels = [];
  for (const box of boxes) {
    const style = styleOf(box);
    const [left, top] = place(box.box[0] / full[0], box.box[1] / full[1]);
    const [right, bottom] = place(box.box[2] / full[0], box.box[3] / full[1]);
    context.setLineDash(style.dash);
    context.lineWidth = style.width + 2.5;
    context.strokeStyle = "rgba(0,0,0,.65)";
    context.strokeRect(left, top, right - left, bottom - top);
    context.lineWidth = style.width + (box === highlighted ? 2 : 0);
    context.strokeStyle = style.colour;
    context.strokeRect(left, top, right - left, bottom - top);
    context.setLineDash([]);
    const score = box.score === undefined ? "missed" : `${Math.round(100 * box.score)} %`;
    const text = `${style.mark}${box.class} ${score}`;
    context.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
    const width = context.measureText(text).width + 8;
    if (right < range[0] || left > range[1]) continue;
    const from = Math.max(left, Math.min(range[0] + 2, right - width));
    let y = top - 17;
    if (y < 0) y = top + 1;
    while (taken.some((o) => from < o[2] && o[0] < from + width && y < o[3] && o[1] < y + 17) && y < bottom) y += 17;
    taken.push([from, y, from + width, y + 17]);
    labels.push([style.colour, from, y, width, text]);
  }
  for (const [colour, left, y, width, text] of labels) {  // on top of all boxes
    context.fillStyle = colour;
    context.fillRect(left - 1, y, width, 17);
    context.fillStyle = "#10151b";
    context.fillText(text, left + 3, y + 13);
  }
}
