// The picture of accuracy over cost, in which every instance can be chosen, and its table.

import { Tip, around, breakable, frontier, html, macs, macsUnit, ms, onWidth, overlap, percent, svg, ticks } from "./draw.js";

const KINDS = {
  full: "no downsampling",
  instance: "instance",
  cascade: "cascade",
  ensemble: "ensemble",
};

/** What a point costs in a unit: "macs" or "ms". */
const costOf = (point, unit) => (unit === "ms" ? point.ms : point.macs);

/** Rows of a model by cost, with what the picture needs: kind, place on the frontier. */
export function curvePoints(rows, unit = "macs") {
  const full = rows.find((row) => row.name === "full");
  const points = rows.map((row) => ({
    ...row,
    name: nameAmong(rows, row),
    // What a request calls a combination.
    asked: rows.some((other) => other !== row && other.name === row.name) ? row.combination : row.name,
    share: unit === "ms" ? row.ms / full?.ms : row.share,
    kind: row.name === "full" ? "full" : row.kind,
  }));
  const cost = (point) => costOf(point, unit) ?? Infinity;
  const last = (point) => Number(point.kind === "full");
  points.sort((a, b) => (cost(a) === cost(b) ? 0 : cost(a) - cost(b)) || last(a) - last(b) || (a.top1 ?? 0) - (b.top1 ?? 0));
  const best = frontier(points.map((point) => [cost(point), cost(point) < Infinity ? point.top1 : null]));
  points.forEach((point, index) => (point.best = best[index]));
  return points;
}

/** The name of a row that no other has. Cascades of the same instances differ in their threshold, and
 *  with it, in their share of the cost of full; or else, they are numbered. */
function nameAmong(rows, row) {
  const same = rows.filter((other) => other.name === row.name);
  if (same.length === 1) return row.name;
  for (const digits of [1, 2, 3, 4]) {
    const labels = same.map((other) => percent(other.share, digits));
    if (new Set(labels).size === same.length) return `${row.name} (${percent(row.share, digits)})`;
  }
  return `${row.name} (${same.indexOf(row) + 1} of ${same.length})`;
}

/** What is said of a point, by screen readers and in the tip. */
export function facts(point, unit = "macs") {
  const about = point.kind === "cascade" || point.kind === "ensemble" ? "about " : "";
  const cost = ["cost", `${macs(point.macs)} MACs`];
  const time = ["time", about + ms(point.ms)];
  const share = ["of full", percent(point.share, 0)];
  return [
    ["accuracy", percent(point.top1)],
    // The share is that of what it follows.
    ...(unit === "ms" ? [time, share, cost] : [cost, share]),
    ...(unit !== "ms" && typeof point.ms === "number" ? [time] : []),
  ];
}

const NOWHERE = [0, 0, 0, 0];

/** The outline of a symbol around the origin. */
function symbol(kind, radius) {
  const r = radius;
  switch (kind) {
    case "full": return `M0 ${-1.4 * r}L${1.25 * r} 0 0 ${1.4 * r} ${-1.25 * r} 0z`;
    case "cascade": return `M0 ${-1.3 * r}L${1.25 * r} ${r} ${-1.25 * r} ${r}z`;
    case "ensemble": return `M${-r} ${-r}H${r}V${r}H${-r}z`;
    default: return `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
  }
}

/** The picture. `choose(name)` is called when a point is chosen. */
export class Curve {
  constructor(frame, { choose, label }) {
    this.frame = frame;
    this.choose = choose;
    this.label = label;
    this.points = [];
    this.marks = {};
    this.covered = NOWHERE;
    this.unit = "macs";
    this.canvas = html("div", { class: "canvas" });
    frame.append(this.canvas);
    this.tip = new Tip(frame);
    onWidth(this.canvas, (width) => {
      this.width = width;
      this.draw();
    });
  }

  /** Sets the points, from [`curvePoints`], and the unit of the horizontal axis. */
  show(points, unit = "macs") {
    this.points = points;
    this.unit = unit;
    this.draw();
  }

  /** Sets the marked points: `{A: name, B: name}`; `active` is the one that a choice changes. */
  mark(marks, active) {
    this.marks = marks;
    this.active = active;
    this.refresh();
  }

  measured() {
    return this.points.filter((p) => typeof p.top1 === "number" && typeof this.cost(p) === "number");
  }

  cost(point) {
    return costOf(point, this.unit);
  }

  draw() {
    if (!this.width) return;
    const width = this.width;
    const height = Math.round(Math.max(280, Math.min(440, width * 0.55)));
    const points = this.measured();
    this.tip.hide();
    this.covered = NOWHERE;
    if (points.length === 0) {
      this.canvas.replaceChildren();
      return;
    }
    const focused = this.canvas.contains(document.activeElement);
    this.scale(points, width, height);
    const root = svg("svg", {
      viewBox: `0 0 ${width} ${height}`, width, height, role: "radiogroup", "aria-label": this.label,
    });
    root.append(this.axes(width, height), this.line(points));
    this.dots = new Map();
    for (const point of points) this.dots.set(point.name, this.dot(point));
    // The points of interest lie on top of others.
    const rank = (point) => (point.kind === "full" ? 2 : Number(point.best));
    for (const point of [...points].sort((a, b) => rank(a) - rank(b))) root.append(this.dots.get(point.name));
    this.labels = svg("g", { class: "names", "aria-hidden": "true" });
    root.append(this.labels);
    root.addEventListener("pointermove", (event) => this.hover(event));
    root.addEventListener("pointerleave", () => this.leave());
    root.addEventListener("click", (event) => this.click(event));
    root.addEventListener("keydown", (event) => this.key(event));
    this.canvas.replaceChildren(root);
    this.refresh();
    if (focused) this.dots.get(this.current())?.focus();
  }

  scale(points, width, height) {
    const accuracies = points.map((point) => 100 * point.top1);
    const [low, high] = [Math.min(...accuracies), Math.max(...accuracies)];
    const margin = Math.max(0.12 * (high - low), 0.5);
    const most = Math.max(...points.map((point) => this.cost(point)));
    const [symbolOf, size, word] = this.unit === "ms" ? ["ms", 1, ""] : macsUnit(most);
    this.size = size;
    const narrow = width < 380;
    this.xName = this.unit === "ms"
      ? `time of one image${narrow ? "" : " on an idle machine"} (ms)`
      : `${narrow ? "MACs" : "multiply-accumulates"} per image${word ? ` (${word})` : ""}`;
    this.symbol = symbolOf;
    this.xRange = [0, (1.04 * most) / size];
    this.yRange = [Math.max(0, low - margin), Math.min(100, high + margin)];
    this.area = { left: 50, top: 26, right: width - 14, bottom: height - 46 };
    const { left, top, right, bottom } = this.area;
    const at = ([from, to], value) => (value - from) / (to - from);
    this.x = (cost) => left + at(this.xRange, cost / size) * (right - left);
    this.y = (top1) => bottom - at(this.yRange, 100 * top1) * (bottom - top);
  }

  axes(width, height) {
    const { left, top, right, bottom } = this.area;
    const group = svg("g", { class: "axes", "aria-hidden": "true" });
    for (const value of ticks(...this.yRange, 5)) {
      const y = this.y(value / 100);
      group.append(
        svg("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }),
        svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, `${value}`),
      );
    }
    for (const value of ticks(...this.xRange, Math.max(3, Math.round((right - left) / 90)))) {
      const x = this.x(value * this.size);
      group.append(
        svg("line", { class: "tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 }),
        svg("text", { x, y: bottom + 18, "text-anchor": "middle" }, `${value}`),
      );
    }
    group.append(
      svg("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }),
      svg("text", { class: "name", x: (left + right) / 2, y: height - 8, "text-anchor": "middle" },
        this.xName),
      svg("text", { class: "name", x: 0, y: 13 }, "top-1 accuracy (%)"),
    );
    return group;
  }

  line(points) {
    const path = points.filter((point) => point.best).map((point, index) =>
      `${index ? "L" : "M"}${this.x(this.cost(point)).toFixed(1)} ${this.y(point.top1).toFixed(1)}`);
    return svg("path", { class: "frontier", d: path.join("") });
  }

  dot(point) {
    const said = facts(point, this.unit).map(([label, value]) => `${label} ${value}`).join(", ");
    const group = svg("g", {
      class: `dot ${point.best ? "best" : ""}`,
      role: "radio", "aria-checked": "false", tabindex: "-1",
      "aria-label": `${point.name}, ${KINDS[point.kind]}, ${said}`,
      transform: `translate(${this.x(this.cost(point)).toFixed(1)} ${this.y(point.top1).toFixed(1)})`,
    });
    group.append(
      svg("circle", { class: "ring", r: 11 }),
      svg("path", { class: "mark", d: symbol(point.kind, 5) }),
    );
    group.addEventListener("focus", () => this.explain(point));
    group.addEventListener("blur", () => this.leave());
    return group;
  }

  /** Marks the chosen points, without drawing the rest again. */
  refresh() {
    if (!this.dots) return;
    const names = Object.entries(this.marks);
    for (const [name, dot] of this.dots) {
      const which = names.filter(([, marked]) => marked === name).map(([pane]) => pane);
      dot.classList.toggle("a", which.includes("A"));
      dot.classList.toggle("b", which.includes("B"));
      dot.setAttribute("aria-checked", String(this.marks[this.active] === name));
      dot.setAttribute("tabindex", name === this.current() ? "0" : "-1");
    }
    this.name();
  }

  /** Writes the names of the marked points, and of `full`, beside all points and other names. */
  name() {
    const wanted = new Map();
    for (const [pane, name] of Object.entries(this.marks)) {
      const several = Object.keys(this.marks).length > 1;
      const prefix = wanted.has(name) ? `${wanted.get(name).split(" ")[0]}, ${pane}` : pane;
      wanted.set(name, several ? `${prefix} · ${name}` : name);
    }
    if (!wanted.has("full")) wanted.set("full", "full");
    const dots = this.measured().map((p) => around(this.x(this.cost(p)), this.y(p.top1), 7, 7));
    const { left, right, bottom } = this.area;
    this.taken = [];
    const texts = [];
    for (const [name, text] of wanted) {
      const point = this.points.find((p) => p.name === name);
      if (!point || !this.dots.has(name)) continue;
      const [x, y] = [this.x(this.cost(point)), this.y(point.top1)];
      const half = 3.8 * text.length + 3;
      const own = around(x, y, 12, 12);
      let least = Infinity;
      let box;
      for (const down of [-22, 22, 0, -38, 38]) {
        for (const aside of [0, half + 15, -half - 15, half, -half]) {
          const middle = Math.max(left + half, Math.min(right + 10 - half, x + aside));
          const place = around(middle, y + down, half, 8);
          const out = place[1] < 16 || place[3] > bottom ? 1e5 : 0;
          const bad = out + overlap(place, [own, ...this.taken]) * 9 + overlap(place, dots)
            + Math.hypot(down, middle - x) / 9;
          if (bad < least) [least, box] = [bad, place];
        }
      }
      this.taken.push(box);
      texts.push(svg("text", { x: (box[0] + box[2]) / 2, y: box[1] + 12, "text-anchor": "middle" }, text));
    }
    this.labels.replaceChildren(...texts);
    this.cover(this.covered);
  }

  /** The point that the keyboard is on: the marked one, or the first. */
  current() {
    const marked = this.marks[this.active];
    return this.dots?.has(marked) ? marked : this.measured()[0]?.name;
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let found = null;
    let least = 34;
    for (const point of this.measured()) {
      const distance = Math.hypot(this.x(this.cost(point)) - x, this.y(point.top1) - y);
      if (distance < least) [found, least] = [point, distance];
    }
    return found;
  }

  explain(point) {
    for (const [name, dot] of this.dots) dot.classList.toggle("near", name === point.name);
    this.cover(this.tip.show(this.x(this.cost(point)), this.y(point.top1), point.name, facts(point, this.unit), this.taken));
  }

  /** Hides the names that a box covers in part. */
  cover(box) {
    this.covered = box;
    this.taken.forEach((place, index) => {
      this.labels.children[index].style.visibility = overlap(place, [box]) > 0 ? "hidden" : "visible";
    });
  }

  hover(event) {
    const point = this.nearest(event);
    if (point) this.explain(point);
    else this.leave();
  }

  leave() {
    for (const dot of this.dots.values()) dot.classList.remove("near");
    this.tip.hide();
    this.cover(NOWHERE);
  }

  click(event) {
    const point = this.nearest(event);
    if (point) this.pick(point);
  }

  pick(point) {
    this.choose(point.name);
    this.dots.get(point.name)?.focus({ preventScroll: true });
  }

  key(event) {
    const points = this.measured().sort((a, b) => this.cost(a) - this.cost(b));
    const at = points.findIndex((point) => this.dots.get(point.name) === document.activeElement);
    const to = {
      ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1,
      Home: 0, End: points.length - 1, " ": at, Enter: at,
    }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    this.pick(points[Math.max(0, Math.min(points.length - 1, to))]);
  }
}

/** The same as a table; `choose` adds buttons. */
export function curveTable(points, choose, unit = "macs") {
  const timed = points.some((point) => typeof point.ms === "number");
  const number = (text) => html("td", { class: "number" }, text);
  const columns = [
    ["MACs", (point) => macs(point.macs)],
    ...(timed ? [["time", (point) => ms(point.ms)]] : []),
  ];
  columns.splice(unit === "ms" ? 2 : 1, 0, ["of full", (point) => percent(point.share)]);
  // The accuracy is beside the name, so that narrow windows show it.
  columns.unshift(["accuracy", (point) => percent(point.top1, 2)]);
  const row = (point) => html("tr", { class: point.best ? "best" : undefined },
    html("th", { scope: "row" }, choose
      ? html("button", { type: "button", class: "plain", onclick: () => choose(point.name) }, ...breakable(point.name))
      : point.name),
    ...columns.map(([, value]) => number(value(point))),
    html("td", {}, KINDS[point.kind] + (point.best ? ", on the frontier" : "")));
  const head = (name, style) => html("th", { scope: "col", class: style }, name);
  return html("table", {},
    html("thead", {}, html("tr", {}, head("instance"), ...columns.map(([name]) => head(name, "number")), head("kind"))),
    html("tbody", {}, ...points.map(row)));
}

/** The key to the symbols of the points. */
export function curveLegend(points) {
  const kinds = ["instance", "full", "cascade", "ensemble"].filter(
    (kind) => points.some((point) => point.kind === kind));
  const names = { ...KINDS, full: "full: no downsampling", instance: "an instance" };
  const key = (kind, best, text) => html("li", {},
    svg("svg", { viewBox: "-9 -9 18 18", width: 18, height: 18, "aria-hidden": "true" },
      svg("g", { class: best ? "dot best" : "dot" }, svg("path", { class: "mark", d: symbol(kind, 5) }))),
    text);
  return html("ul", { class: "legend" },
    ...kinds.map((kind) => key(kind, true, names[kind])),
    points.some((point) => !point.best && typeof point.top1 === "number")
      ? key("instance", false, "hollow: another one is better at this cost") : null);
}
