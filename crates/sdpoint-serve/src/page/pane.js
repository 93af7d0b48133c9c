// A pane: a choice of cost or a deadline, and the answer to the image at it.

import { PREDICTION, Problem, get } from "./api.js";
import { breakable, html, macs, ms, percent } from "./draw.js";

const TOP = 5;
/** How long a request may take after a newer choice, in milliseconds. */
const PATIENCE = 100;

/** Deadlines that a link may have, in milliseconds. */
const DEADLINES = [0.01, 60_000];

/** The milliseconds of a choice that is a deadline, such as `8ms`; otherwise it is the name of an
 *  instance. */
export function deadlineOf(choice) {
  const time = Number(/^(\d+(?:\.\d+)?)ms$/.exec(choice ?? "")?.[1] ?? NaN);
  return time >= DEADLINES[0] && time <= DEADLINES[1] ? time : null;
}

/** What the slider stops at: the frontier, `full`, all combinations, and what is chosen. */
export function stopsOf(points, chosen) {
  const measured = points.some((point) => typeof point.top1 === "number");
  return points.filter((point) => !measured || point.best || point.kind !== "instance"
    || point.name === chosen);
}

/** The parameter of a request that runs a point. */
function parameter(point) {
  return [typeof point.combination === "number" ? "combination" : "instance", point.asked];
}

export class Pane {
  /** `changed(choice)` is called when the user changes it, `close()` to hide the pane, and
   *  `answered()` after each answer. */
  constructor(root, name, { changed, answered, say, close }) {
    this.root = root;
    this.name = name;
    this.changed = changed;
    this.answered = answered;
    this.say = say;
    this.points = [];
    this.build(close);
    this.state("loading");
  }

  build(close) {
    const id = this.name.toLowerCase();
    const part = (tag, className, ...children) => html(tag, { class: className }, ...children);
    const mode = (value, text) => html("button", {
      type: "button", "data-value": value, "aria-pressed": "false", disabled: true, onclick: () => this.setMode(value),
    }, text);
    this.badge = part("span", "badge", this.name);
    this.modes = html("div", { class: "choice", role: "group", "aria-label": `Pane ${this.name}: what is limited` },
      mode("cost", "Cost"), mode("deadline", "Deadline"));
    this.closing = close && html("button", {
      type: "button", class: "quiet", onclick: close, "aria-label": "Close pane B",
    }, "Close");
    this.chosen = part("p", "chosen");
    this.kind = part("span", "muted");
    this.details = part("p", "muted details");
    this.slider = html("input", {
      type: "range", id: `slider-${id}`, min: 0, max: 1, value: 0, step: 1, disabled: true, "aria-label": `Pane ${this.name}: cost`,
      oninput: () => this.slide(),
    });
    this.marks = part("div", "marks");
    this.marks.setAttribute("aria-hidden", "true");
    this.list = html("ol", { class: "answers", "aria-label": `Pane ${this.name}: classes` });
    this.message = part("div", "message");
    this.tiles = html("dl", { class: "tiles small" });
    this.root.replaceChildren(
      part("div", "head tight", part("div", "row", this.badge, this.modes), this.closing),
      part("div", "what", this.chosen, this.kind), this.details,
      part("div", "slider", this.slider, this.marks),
      part("div", "result", this.list, this.message),
      this.tiles,
    );
    this.showTiles(null);
  }

  /** Sets the model: its name, and the number of its classes; [`setPoints`] must follow. */
  setModel(model, classes) {
    if (model !== this.model) this.forget();
    this.model = model;
    this.rows = Math.min(TOP, classes);
    this.enable(true);
  }

  enable(usable) {
    this.slider.disabled = !usable;
    for (const button of this.modes.children) button.disabled = !usable;
  }

  /** Sets the points of the model, in the order of a unit of cost. */
  setPoints(points, unit) {
    this.points = points;
    this.unit = unit;
    const times = points.map((point) => point.ms).filter(Number.isFinite);
    // The image must be read, too, so that the time of the quickest alone is not enough.
    const least = Math.min(...times, 1e3);
    this.times = [Number(Math.max(1, 2 * least).toPrecision(2)), Math.max(50, 20 * Math.max(...times, 0))];
    if (this.choice && deadlineOf(this.choice) === null) this.showCost();
  }

  /** Forgets the answers of another model. */
  forget() {
    this.answer = null;
    this.running?.abort();
    this.showTiles(null);
    this.state("loading");
  }

  /** Asks again after a failure. */
  recover() {
    if (this.root.dataset.state === "failed") this.ask();
  }

  /** Says why the model does not answer, if that is more than a matter of time. */
  withoutModel(text, failed) {
    this.model = null;
    this.running?.abort();
    clearTimeout(this.retry);
    this.answer = null;
    this.enable(false);
    if (failed) this.complain("Not available", text);
    else this.state("loading");
  }

  /** Sets the choice, as in links: the name of an instance, or `8ms`. */
  set(choice) {
    this.choice = choice;
    const deadline = deadlineOf(choice);
    if (deadline === null) this.showCost();
    else this.showDeadline(deadline);
    this.ask();
  }

  /** Whether an image is on its way, so that there is no need to ask for one. */
  expect(image) {
    this.expected = image;
    if (!this.image && !image) this.state("empty");
  }

  setImage(image) {
    this.image = image;
    this.ask();
  }

  setMode(mode) {
    const is = deadlineOf(this.choice) === null ? "cost" : "deadline";
    if (mode === is) return;
    if (mode === "cost") {
      this.changed(this.lastCost ?? "full");
    } else {
      const full = this.points.find((point) => point.name === "full");
      // Time for what the last answer took, which is more than computing on a busy machine.
      const enough = 2 * Math.max(2.5, full?.ms ?? 0, this.answer?.trip ?? 0);
      this.changed(this.lastDeadline ?? this.deadlineAt(this.positionOf(enough)));
    }
  }

  pressMode(mode) {
    for (const button of this.modes.children) {
      button.setAttribute("aria-pressed", String(button.dataset.value === mode));
    }
    this.slider.setAttribute("aria-label", `Pane ${this.name}: ${mode}`);
  }

  showCost() {
    this.pressMode("cost");
    this.lastCost = this.choice;
    this.stops = stopsOf(this.points, this.choice);
    const at = Math.max(0, this.stops.findIndex((stop) => stop.name === this.choice));
    const point = this.stops[at];
    this.slider.max = this.stops.length - 1;
    this.slider.value = at;
    if (!point) return;
    const about = point.kind === "instance" || point.name === "full" ? "" : point.kind;
    const cost = this.unit === "ms" ? ms(point.ms) : `${macs(point.macs)} MACs`;
    const facts = [cost, `${percent(point.share, 0)} of full`];
    if (typeof point.top1 === "number") facts.push(`${percent(point.top1)} accurate`);
    this.chosen.replaceChildren(...breakable(point.name));
    this.kind.textContent = about;
    // Lines break between facts only.
    this.details.replaceChildren(...facts.flatMap((fact, index) => [index ? " · " : "", html("span", {}, fact)]));
    this.slider.setAttribute("aria-valuetext", [point.name, about, ...facts].filter(Boolean).join(", "));
    const full = this.stops.findIndex((stop) => stop.name === "full");
    const last = this.stops.length - 1;
    const beyond = this.stops[last].share > 1;
    this.showMarks([[0, this.unit === "ms" ? "fastest" : "cheapest"], [full / Math.max(1, last), "full"],
      ...(beyond && full < last ? [[1, "beyond"]] : [])]);
    this.fillSlider(at / Math.max(1, last));
  }

  showDeadline(deadline) {
    this.pressMode("deadline");
    this.lastDeadline = this.choice;
    const [low, high] = this.times;
    this.slider.max = 100;
    this.slider.value = this.positionOf(deadline);
    this.chosen.textContent = `within ${ms(deadline)}`;
    this.kind.textContent = "";
    this.details.textContent = "the server chooses the instance";
    this.slider.setAttribute("aria-valuetext", `within ${ms(deadline)}`);
    this.showMarks([[0, ms(low)], [1, ms(high)]]);
    this.fillSlider(this.positionOf(deadline) / 100);
  }

  fillSlider(share) {
    this.slider.style.setProperty("--at", share.toFixed(4));
  }

  positionOf(deadline) {
    const [low, high] = this.times;
    return Math.max(0, Math.min(100, Math.round((100 * Math.log(deadline / low)) / Math.log(high / low))));
  }

  deadlineAt(position) {
    const [low, high] = this.times;
    return `${Number((low * (high / low) ** (position / 100)).toPrecision(2))}ms`;
  }

  showMarks(marks) {
    this.marks.replaceChildren(...marks.map(([at, text]) => {
      const mark = html("span", { class: at === 0 ? "first" : at === 1 ? (text === "beyond" ? "last beyond" : "last") : undefined }, text);
      mark.style.setProperty("--at", at.toFixed(4));
      return mark;
    }));
  }

  slide() {
    const at = Number(this.slider.value);
    const deadline = deadlineOf(this.choice) !== null;
    this.changed(deadline ? this.deadlineAt(at) : this.stops[at].name);
  }

  /** Asks the server. A newer choice ends a request that is not answered soon. */
  async ask() {
    clearTimeout(this.retry);
    if (!this.image || !this.choice || !this.model || this.root.hidden) {
      if (!this.image && !this.expected) this.state("empty");
      return;
    }
    this.again = true;
    if (this.busy) {
      this.ending ??= setTimeout(() => this.running.abort(), PATIENCE);
      return;
    }
    this.busy = true;
    const waiting = setTimeout(() => this.state("waiting"), 250);
    try {
      while (this.again) {
        this.again = false;
        await this.askOnce();
      }
    } finally {
      clearTimeout(waiting);
      this.busy = false;
    }
  }

  async askOnce() {
    const { choice, image, model } = this;
    const newest = () => !this.again && image === this.image && model === this.model;
    this.running = new AbortController();
    try {
      const answer = await this.request(choice, image);
      if (newest()) this.show(answer);
    } catch (problem) {
      if (newest()) this.fail(problem);
    } finally {
      clearTimeout(this.ending);
      this.ending = null;
    }
  }

  async request(choice, image) {
    const query = new URLSearchParams([["model", this.model], ["top", this.rows]]);
    const deadline = deadlineOf(choice);
    if (deadline !== null) {
      query.set("deadline_ms", deadline);
    } else {
      const point = this.points.find((one) => one.name === choice);
      query.set(...parameter(point));
      // The page's own requests may wait while it makes load.
      query.set("late", "true");
    }
    const start = performance.now();
    const { signal } = this.running;
    const answer = await get(`/predict?${query}`, PREDICTION, { method: "POST", body: image.blob, signal });
    return { ...answer, choice, image, trip: performance.now() - start };
  }

  show(answer) {
    const { top } = answer.images[0];
    this.answer = answer;
    this.list.replaceChildren(...top.map((guess, index) => {
      const right = answer.image.label !== undefined && guess.class === answer.image.label;
      const bar = html("span", { class: "bar", "aria-hidden": "true" });
      bar.style.setProperty("--p", guess.probability.toFixed(4));
      return html("li", { class: index === 0 ? "first" : undefined },
        html("bdi", { class: "class", title: guess.class }, guess.class),
        right ? html("span", { class: "right", title: "the label of this test image" }, "✓") : null,
        right ? html("span", { class: "unseen" }, "correct") : null,
        bar,
        html("span", { class: "number" }, percent(guess.probability)));
    }));
    this.showTiles(answer);
    this.state("answered");
    const [first] = top;
    this.say(`Pane ${this.name}: ${first.class}, ${percent(first.probability, 0)}, by ${answer.instance}`);
    this.answered();
  }

  showTiles(answer) {
    const point = answer && this.points.find((one) => one.name === answer.choice);
    const accuracy = answer?.accuracy ?? point?.top1;
    const rows = answer
      ? [
        ["answered by", breakable(answer.instance)],
        ["computed in", ms(answer.compute_us / 1e3)],
        ["MACs", macs(answer.macs)],
        ["accuracy", percent(accuracy)],
        ["in the queue", ms(answer.queue_us / 1e3)],
        ["round trip", ms(answer.trip)],
      ]
      : ["answered by", "computed in", "MACs", "accuracy", "in the queue", "round trip"].map(
        (label) => [label, "–"]);
    this.tiles.replaceChildren(...rows.map(([label, value]) =>
      html("div", {}, html("dt", {}, label), html("dd", {}, ...[value].flat()))));
  }

  fail(problem) {
    if (problem.kind === "superseded") return;
    const deadline = deadlineOf(this.choice);
    const late = deadline !== null && ["late", "busy"].includes(problem.kind) && problem.message.includes("deadline");
    // On an idle server, the quickest instance would answer within the shortest time of the slider.
    const tight = late && deadline < this.times[0];
    const title = tight ? "Too tight" : late ? "Not in time" : {
      offline: "No connection", slow: "No answer", busy: "Busy", bad: "Not possible", missing: "Not there",
    }[problem.kind] ?? "That failed";
    const text = tight ? "No instance can answer within this time. Give it more."
      : late ? `The server has too much other work to answer within ${ms(deadline)}, or the image takes longer to read.`
        : problem instanceof Problem ? problem.message : "The page has a fault.";
    const again = html("button", { type: "button", onclick: () => this.ask() }, "Try again");
    this.complain(title, text, again);
    // What passes by itself is tried again by itself.
    if (!tight && ["offline", "slow", "busy", "late"].includes(problem.kind)) {
      this.retry = setTimeout(() => this.ask(), 1000 * (problem.retryAfter ?? 3));
    }
    if (!(problem instanceof Problem)) throw problem;
  }

  complain(title, text, ...more) {
    this.message.replaceChildren(html("strong", {}, title), html("p", {}, text), ...more);
    this.showTiles(null);
    this.state("failed");
    this.say(`Pane ${this.name}: ${title}. ${text}`);
  }

  state(state) {
    if (state === "empty") {
      this.message.replaceChildren(html("p", {}, "Choose an image to see what it is taken for."));
      this.showTiles(null);
    }
    // A first answer has nothing to show while it is waited for.
    if (state === "waiting" && !this.answer) state = "loading";
    if (state === "loading") {
      this.message.replaceChildren();
      this.list.replaceChildren(...Array.from({ length: this.rows ?? TOP }, () => html("li", { class: "blank" })));
    }
    this.root.dataset.state = state;
    this.list.setAttribute("aria-busy", String(state === "waiting" || state === "loading"));
  }
}
