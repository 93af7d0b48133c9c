// Elements, numbers and axes, for all pictures of the page. Every text is set as text: names of
// classes, files and models never become markup.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an HTML element. Keys of `options` that start with "on" are listeners. */
export function html(tag, options = {}, ...children) {
  return fill(document.createElement(tag), options, children);
}

/** Makes an SVG element. */
export function svg(tag, options = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), options, children);
}

function fill(element, options, children) {
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The name of an instance or combination, which lines may break between its members. */
export function breakable(name) {
  return name.split(/(?<=[+>])/).flatMap((part, index) => (index ? [html("wbr"), part] : [part]));
}

/** Multiply-accumulates with a unit: 23.9M. */
export function macs(count) {
  const [unit, size] = macsUnit(count);
  return `${Number((count / size).toPrecision(3))}${unit}`;
}

/** The unit for counts up to this one. */
export function macsUnit(most) {
  if (most >= 1e9) return ["G", 1e9, "billions"];
  if (most >= 1e6) return ["M", 1e6, "millions"];
  if (most >= 1e3) return ["K", 1e3, "thousands"];
  return ["", 1, ""];
}

/** A share as per cent, with one digit. */
export function percent(share, digits = 1) {
  return Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : "–";
}

/** Milliseconds with as many digits as matter. */
export function ms(time) {
  if (time === null || time === undefined) return "–";
  if (time >= 1000) return `${(time / 1000).toFixed(time < 10000 ? 2 : 1)} s`;
  const digits = time < 1 ? 2 : time < 100 && !Number.isInteger(time) ? 1 : 0;
  return `${time.toFixed(digits)} ms`;
}

/** A count of things: 1 image, 2 images. */
export function counted(number, thing, things = `${thing}s`) {
  return `${count(number)} ${number === 1 ? thing : things}`;
}

/** A count, with thousands separated. */
export function count(number, digits = 0) {
  return number.toLocaleString("en", { maximumFractionDigits: digits });
}

/** Round values from `low` to `high`, about as many as wanted. */
export function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    values.push(Number((i * step).toPrecision(12)));
  }
  return values;
}

/** Where points with `[cost, accuracy]` are not beaten by another: no other is at least as good in
 *  both and better in one. */
export function frontier(points) {
  return points.map(([x, y]) => y !== undefined && y !== null && !points.some(
    ([a, b]) => b !== undefined && b !== null && a <= x && b >= y && (a < x || b > y)));
}

/** Calls `draw(width)` now and whenever the width of an element changes. */
export function onWidth(element, draw) {
  let last = 0;
  const check = () => {
    const width = Math.floor(element.clientWidth);
    if (width > 0 && width !== last) {
      last = width;
      draw(width);
    }
  };
  new ResizeObserver(check).observe(element);
  check();
}

/** The box `[left, top, right, bottom]` around a point. */
export function around(x, y, wide, high) {
  return [x - wide, y - high, x + wide, y + high];
}

/** The area that a box has in common with others. */
export function overlap([a, b, c, d], others) {
  return others.reduce((sum, [e, f, g, h]) =>
    sum + Math.max(0, Math.min(c, g) - Math.max(a, e)) * Math.max(0, Math.min(d, h) - Math.max(b, f)), 0);
}

/** A box beside the pointer or the focused point. */
export class Tip {
  constructor(frame) {
    this.box = html("div", { class: "tip", "aria-hidden": "true" });
    this.box.hidden = true;
    this.frame = frame;
    frame.append(this.box);
  }

  /** Shows a title and rows of label and value beside a place in the frame, and beside other boxes; returns its own. */
  show(x, y, title, rows, others = []) {
    this.box.replaceChildren(
      html("strong", {}, title),
      html("dl", {}, ...rows.flatMap(([label, value, swatch]) => [
        html("dt", {}, swatch ?? null, label), html("dd", {}, value),
      ])),
    );
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const room = this.frame.clientWidth;
    const places = [[x + 14, y - height / 2], [x - 14 - width, y - height / 2],
      [x + 14, y + 16], [x - 14 - width, y + 16], [x + 14, y - 16 - height], [x - 14 - width, y - 16 - height],
      [x - width / 2, y + 16], [x - width / 2, y - 16 - height]];
    let least = Infinity;
    let found = [0, 0];
    for (const [wanted, high] of places) {
      const place = [Math.max(0, Math.min(room - width, wanted)), Math.max(0, high)];
      const box = [...place, place[0] + width, place[1] + height];
      const bad = overlap(box, [around(x, y, 9, 9), ...others]);
      if (bad < least) [least, found] = [bad, box];
    }
    const [left, top] = found;
    this.box.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    return found;
  }

  hide() {
    this.box.hidden = true;
  }
}
