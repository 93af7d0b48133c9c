// The picture of accuracy over cost, in which every instance can be chosen, and its table.

import { Tip, frontier, html, macs, macsUnit, ms, onWidth, percent, svg, ticks } from "./draw.js";

const KINDS = {
  full: "no downsampling",
  instance: "instance",
  cascade: "cascade",
  ensemble: "ensemble",
};

/** Rows of a model with what the picture needs: kind, place on the frontier. */
export function curvePoints(rows) {
  // Cascades of the same instances differ in their threshold.
  const repeated = (row) => rows.filter((other) => other.name === row.name).length > 1;
  const points = rows.map((row) => ({
    ...row,
    name: repeated(row) ? `${row.name} (${percent(row.share)})` : row.name,
    kind: row.name === "full" ? "full" : row.kind,
  }));
  const last = (point) => Number(point.kind === "full");
  points.sort((a, b) => a.macs - b.macs || last(a) - last(b) || (a.top1 ?? 0) - (b.top1 ?? 0));
  const best = frontier(points.map((point) => [point.macs, point.top1]));
  points.forEach((point, index) => (point.best = best[index]));
  return points;
}

/** What is said of a point, by screen readers and in the tip. */
export function facts(point) {
  const rows = [
    ["accuracy", percent(point.top1)],
    ["cost", `${macs(point.macs)} MACs`],
    ["of full", percent(point.share, 0)],
  ];
  if (point.ms !== undefined) {
    const about = point.kind === "cascade" || point.kind === "ensemble" ? "about " : "";
    rows.push(["time", about + ms(point.ms)]);
  }
  return rows;
}

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
    this.unit = "macs";
    this.canvas = html("div", { class: "canvas" });
    frame.append(this.canvas);
    this.tip = new Tip(frame);
    onWidth(this.canvas, (width) => {
      this.width = width;
      this.draw();
    });
  }

  /** Sets the points, from [`curvePoints`]. */
  show(points) {
    this.points = points;
    this.draw();
  }

  /** Sets what the horizontal axis is: "macs" or "ms". */
  setUnit(unit) {
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
    return this.points.filter((p) => typeof p.top1 === "number" && this.cost(p) !== undefined);
  }

  cost(point) {
    return this.unit === "ms" ? point.ms : point.macs;
  }

  draw() {
    if (!this.width) return;
    const width = this.width;
    const height = Math.round(Math.max(280, Math.min(440, width * 0.55)));
    const points = this.measured();
    this.tip.hide();
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
    const rank = (point) => (point.kind === "full" ? 2 : this.best.has(point.name) ? 1 : 0);
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
    const costs = points.map((point) => [this.cost(point), point.top1]);
    const best = frontier(costs);
    const on = costs.filter((_, index) => best[index]).sort((a, b) => a[0] - b[0]);
    this.best = new Set(points.filter((_, index) => best[index]).map((point) => point.name));
    const path = on.map(([x, y], i) => `${i ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`);
    return svg("path", { class: "frontier", d: path.join("") });
  }

  dot(point) {
    const said = facts(point).map(([label, value]) => `${label} ${value}`).join(", ");
    const group = svg("g", {
      class: `dot ${this.best.has(point.name) ? "best" : ""}`,
      role: "radio", "aria-checked": "false", tabindex: "-1",
      "aria-label": `${point.name}, ${KINDS[point.kind]}, ${said}`,
      transform: `translate(${this.x(this.cost(point)).toFixed(1)} ${this.y(point.top1).toFixed(1)})`,
    });
    group.append(
      svg("circle", { class: "ring", r: 11 }),
      svg("path", { class: "mark", d: symbol(point.kind, 5) }),
    );
    group.addEventListener("focus", () => this.explain(point));
    group.addEventListener("blur", () => this.tip.hide());
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
    this.label1();
  }

  /** Writes the names of the marked points, and of `full`, where they do not overlap. */
  label1() {
    const wanted = new Map();
    for (const [pane, name] of Object.entries(this.marks)) {
      const several = Object.keys(this.marks).length > 1;
      const prefix = wanted.has(name) ? `${wanted.get(name).split(" ")[0]}, ${pane}` : pane;
      wanted.set(name, several ? `${prefix} · ${name}` : name);
    }
    if (!wanted.has("full")) wanted.set("full", "full");
    const taken = [];
    const texts = [];
    for (const [name, text] of wanted) {
      const point = this.points.find((p) => p.name === name);
      if (!point || !this.dots.has(name)) continue;
      const [x, y] = [this.x(this.cost(point)), this.y(point.top1)];
      const half = 3.6 * text.length;
      const middle = Math.min(this.area.right - half, Math.max(this.area.left + half, x));
      const free = (top) => !taken.some(([a, b, w]) => Math.abs(a - middle) < half + w + 6 && Math.abs(b - top) < 16);
      const top = [y - 17, y + 26].find((t) => t > 14 && t < this.area.bottom && free(t));
      if (top === undefined) continue;
      taken.push([middle, top, half]);
      texts.push(svg("text", { x: middle, y: top, "text-anchor": "middle" }, text));
    }
    this.labels.replaceChildren(...texts);
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
    this.tip.show(this.x(this.cost(point)), this.y(point.top1), point.name, facts(point));
  }

  hover(event) {
    const point = this.nearest(event);
    if (point) this.explain(point);
    else this.leave();
  }

  leave() {
    for (const dot of this.dots.values()) dot.classList.remove("near");
    this.tip.hide();
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
export function curveTable(points, choose) {
  const timed = points.some((point) => point.ms !== undefined);
  const number = (text) => html("td", { class: "number" }, text);
  const head = ["instance", "kind", "MACs", "of full", ...(timed ? ["time"] : []), "accuracy"];
  const row = (point) => html("tr", { class: point.best ? "best" : undefined },
    html("th", { scope: "row" }, choose
      ? html("button", { type: "button", class: "plain", onclick: () => choose(point.name) }, point.name)
      : point.name),
    html("td", {}, KINDS[point.kind] + (point.best ? ", on the frontier" : "")),
    number(macs(point.macs)), number(percent(point.share)),
    timed ? number(ms(point.ms)) : null, number(percent(point.top1, 2)));
  return html("table", {},
    html("thead", {}, html("tr", {}, ...head.map((name, index) =>
      html("th", { scope: "col", class: index > 1 ? "number" : undefined }, name)))),
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
