// Starts the page: the model, the link that keeps the state, and what the parts have in common.

import { MODEL, MODELS, Problem, get, modelPath, onToken } from "./api.js";
import { Curve, curveLegend, curvePoints, curveTable } from "./curve.js";
import { counted, html } from "./draw.js";
import { Load } from "./load.js";
import { Pane, deadlineOf } from "./pane.js";
import { Picture, forgetSamples } from "./picture.js";

const byId = (id) => document.getElementById(id);
const state = readLink();
let models = null;
let description = null;
/** The description as the server gave it, and the model whose images and answers are shown. */
let described = null;
let current = null;
/** The number of the opening of a model that is under way; 0 if none is. */
let opening = 0;
let openings = 0;

/** The state in the link: `#model=shapes&a=full&b=8ms&unit=ms&sample=3`. */
function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  return {
    model: link.get("model"), a: link.get("a"), b: link.get("b"),
    unit: link.get("unit") === "ms" ? "ms" : "macs",
    sample: /^\d{1,3}$/.test(link.get("sample") ?? "") ? Number(link.get("sample")) : undefined,
  };
}

function writeLink() {
  const link = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (value !== null && value !== undefined && !(key === "unit" && value === "macs")) link.set(key, value);
  }
  history.replaceState(null, "", `#${link}`);
}

let saying = null;
const unsaid = new Map();
/** Tells screen readers the last of each speaker, once changes have come to rest. */
function say(text, speaker = "") {
  unsaid.delete(speaker);
  unsaid.set(speaker, text);
  clearTimeout(saying);
  saying = setTimeout(() => {
    const sentences = [...unsaid.values()].map((text) => (/[.!?…]$/.test(text) ? text : `${text}.`));
    byId("said").textContent = sentences.join(" ");
    unsaid.clear();
  }, 800);
}

const picture = new Picture({
  say,
  failed: () => panes.forEach((pane) => pane.expect(false)),
  changed(image) {
    state.sample = image?.sample;
    writeLink();
    for (const pane of panes) pane.setImage(image);
    load.setImage(image);
  },
});
const pane = (id, close) => new Pane(byId(`pane-${id}`), id.toUpperCase(), {
  say: (text) => say(text, id), changed: (choice) => choose(id, choice), answered: () => mark(), close,
});
const paneA = pane("a");
const paneB = pane("b", () => compare(null));
const panes = [paneA, paneB];
const curve = new Curve(byId("plot"), {
  label: "Instances by cost; arrow keys choose",
  choose: (name) => choose(target, name),
});
const load = new Load({ say, connected });
let target = "a";

/** Sets what a pane runs. */
function choose(pane, choice) {
  state[pane] = choice;
  target = pane;
  writeLink();
  (pane === "a" ? paneA : paneB).set(choice);
  mark();
}

function mark() {
  const marks = {};
  for (const { name, choice, answer, root } of panes) {
    // Of a deadline, the instance that answered.
    const by = deadlineOf(choice) === null ? choice : answer?.choice === choice && answer.instance;
    if (by && !root.hidden) marks[name] = by;
  }
  curve.mark(marks, target.toUpperCase());
  press(byId("target"), target.toUpperCase());
}

/** Opens the second pane, or closes it. */
function compare(choice) {
  state.b = choice;
  if (!choice) target = "a";
  showSecond();
  writeLink();
  mark();
  if (choice) {
    paneB.set(choice);
    byId("slider-b").focus();
  } else {
    byId("compare").focus();
  }
}

function showSecond() {
  byId("pane-b").hidden = !state.b;
  byId("compare").hidden = Boolean(state.b);
  byId("target").hidden = !state.b;
  document.body.classList.toggle("two", Boolean(state.b));
}

function press(group, value) {
  for (const button of group.children) {
    button.setAttribute("aria-pressed", String(button.dataset.value === value));
  }
}

/** Sets the unit of cost, of which the picture, the table and the sliders have the frontier. */
function setUnit(unit) {
  state.unit = unit;
  press(byId("unit"), unit);
  const points = curvePoints(description.instances, unit);
  description.points = points;
  for (const pane of panes) pane.setPoints(points, unit);
  curve.show(points, unit);
  byId("table").replaceChildren(curveTable(points, (name) => choose(target, name), unit));
}

let polls = 0;
/** Shows whether the server can be reached. */
function connected(problem) {
  const bar = byId("trouble");
  if (!problem) {
    if (++polls % 3 === 0) refresh();
    if (!bar.hidden) {
      bar.hidden = true;
      say("The server is back.");
      if (!opening) returned();
    }
    return;
  }
  if (problem.kind === "missing") {
    refresh();
    return;
  }
  if (!bar.hidden && bar.dataset.text === problem.message) return;
  bar.dataset.text = problem.message;
  const now = html("button", { type: "button", onclick: () => load.pollNow() }, "Try now");
  bar.replaceChildren(html("span", {}, `${problem.message} Trying again every few seconds.`), now);
  bar.hidden = false;
}

/** Looks whether the server was started again with another model. */
async function returned() {
  try {
    const now = description && await get(modelPath(description.name), MODEL);
    if (opening) return;
    if (JSON.stringify(now) === described) {
      panes.forEach((pane) => pane.recover());
      picture.recover();
      return;
    }
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
  }
  forgetSamples();
  await openModel();
}

const wait = (time) => new Promise((done) => setTimeout(done, time));

/** Repeats an attempt until it has a result, and says why it fails. */
async function insist(attempt) {
  for (let pause = 1000; ; pause = Math.min(8000, 2 * pause)) {
    try {
      const result = await attempt();
      byId("trouble").hidden = true;
      if (result !== undefined) return result;
      pause = 500;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      connected(problem);
    }
    await wait(pause);
  }
}

/** Lists the models to choose from, if they are not what is listed. */
function showModels(list) {
  const same = JSON.stringify(models?.models) === JSON.stringify(list.models);
  models = list;
  const names = list.models.map((model) => model.name);
  if (!names.includes(state.model)) state.model = names[0] ?? null;
  byId("models").hidden = names.length < 2;
  if (!same) {
    byId("model").replaceChildren(...list.models.map(({ name, state }) =>
      html("option", { value: name }, state === "ready" ? name : `${name} (${state})`)));
  }
  byId("model").value = state.model;
  byId("model").title = state.model ?? "";
}

/** Turns on what needs a model, or off. */
function enable(usable) {
  const controls = [...byId("unit").children, ...byId("target").children, byId("compare")];
  for (const control of controls) control.disabled = !usable;
}

/** Says everywhere why no model answers; `failed` is whether that will stay so. */
function withoutModel(text, failed) {
  const about = byId("about");
  if (!description && about.textContent === text) return;
  about.textContent = text;
  description = null;
  enable(false);
  panes.forEach((pane) => pane.withoutModel(text, failed));
  load.withoutModel(text);
  byId("plot").hidden = true;
  byId("legend").replaceChildren(html("p", { class: "note" }, text));
  byId("table").closest("details").hidden = true;
  byId("times").textContent = "";
}

/** Opens the chosen model, once it is loaded. */
async function openModel() {
  const turn = ++openings;
  opening = turn;
  try {
    await open(turn);
  } finally {
    if (turn === opening) opening = 0;
  }
}

async function open(turn) {
  const opened = await insist(async () => {
    if (turn !== opening) return null;
    const list = await get("/models", MODELS);
    if (turn !== opening) return null;
    showModels(list);
    const name = state.model;
    if (current !== null && current !== name) {
      picture.leave();
      panes.forEach((pane) => pane.forget());
      current = null;
    }
    const one = list.models.find((model) => model.name === name);
    if (one?.state === "ready") return get(modelPath(name), MODEL);
    if (!one) withoutModel("The server has no models.", true);
    else if (one.reason) withoutModel(`${name} is not available: ${one.reason}.`, true);
    else withoutModel(`Loading ${name}…`, false);
    return undefined;
  });
  if (turn !== opening) return;
  const name = state.model;
  const about = byId("about");
  current = name;
  described = JSON.stringify(opened);
  description = { ...opened, name };
  const points = curvePoints(description.instances);
  const [height, width] = description.input;
  enable(true);
  about.textContent = `${name} is a ${description.network} for ${counted(description.classes, "class", "classes")} and images of `
    + `${width} × ${height}: one file of weights, ${counted(points.length, "way")} to run it.`;
  document.title = `${name} · sdpoint`;
  const known = (choice) => deadlineOf(choice) !== null || points.some((point) => point.name === choice);
  if (!known(state.a)) state.a = "full";
  if (state.b && !known(state.b)) state.b = points[0].name;
  const samples = description.samples ?? [];
  for (const pane of panes) {
    pane.setModel(name, description.classes);
    pane.expect(samples.length > 0);
  }
  showSecond();
  showCurve(points);
  load.setModel(name, points, description.input, models);
  picture.setReading(description.exif_orientation === "apply", models.max_pixels);
  paneA.set(state.a);
  if (state.b) paneB.set(state.b);
  mark();
  writeLink();
  await picture.showSamples(name, samples, state.sample);
}

function showCurve(points) {
  const measured = points.some((point) => typeof point.top1 === "number");
  setUnit(state.unit);
  byId("legend").replaceChildren(measured
    ? curveLegend(points)
    : html("p", { class: "note" }, "This model records no accuracy, so there is no curve. "
      + "sdpoint calibrate and train measure it; the table has the costs."));
  byId("plot").hidden = !measured;
  byId("table").closest("details").hidden = false;
  const { times } = description;
  byId("times").textContent = `Accuracies are those recorded in the model file. ${times[0].toUpperCase()}${times.slice(1)}.`;
}

/** Looks whether the server has other models now, or another version of this one. */
async function refresh() {
  if (opening) return;
  try {
    const list = await get("/models", MODELS);
    if (opening) return;
    showModels(list);
    const one = list.models.find((model) => model.name === description?.name);
    if (one && one.generation === description.generation) return;
    forgetSamples();
    await openModel();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
  }
}

/** Asks for a token. */
function askToken(wrong) {
  const dialog = byId("token-dialog");
  const input = byId("token");
  byId("token-wrong").textContent = wrong ? "The server does not accept this token." : "";
  input.value = "";
  return new Promise((resolve) => {
    const done = () => {
      // Browsers close dialogs by Escape even where pages object.
      if (dialog.returnValue !== "go") {
        dialog.showModal();
        return;
      }
      dialog.returnValue = "";
      const token = input.value.trim();
      // Headers have visible ASCII only; other tokens cannot be right.
      if (!/^[\x21-\x7e]+$/.test(token)) {
        dialog.showModal();
        byId("token-wrong").textContent = "A token has letters, digits and signs, without spaces.";
        return;
      }
      dialog.removeEventListener("close", done);
      resolve(token);
    };
    dialog.addEventListener("close", done);
    dialog.showModal();
  });
}

function listen() {
  byId("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
  // Links within the page change neither the link that keeps the state nor the history.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    event.preventDefault();
    const to = byId(link.hash.slice(1));
    to.scrollIntoView();
    to.focus({ preventScroll: true });
  });
  byId("model").addEventListener("change", (event) => {
    Object.assign(state, { model: event.target.value, sample: undefined });
    openModel();
  });
  byId("unit").addEventListener("click", (event) => {
    if (!event.target.dataset.value) return;
    setUnit(event.target.dataset.value);
    writeLink();
  });
  byId("target").addEventListener("click", (event) => {
    if (!event.target.dataset.value) return;
    target = event.target.dataset.value.toLowerCase();
    mark();
  });
  byId("compare").addEventListener("click", () => {
    const [cheapest] = description?.points ?? [];
    if (cheapest) compare(state.a === cheapest.name ? "full" : cheapest.name);
  });
  byId("copy").addEventListener("click", async (event) => {
    const button = event.currentTarget;
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy it from the address bar";
    }
    say(button.textContent);
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  });
  addEventListener("hashchange", async () => {
    // Links to sections are no state.
    if (!location.hash.includes("=")) {
      writeLink();
      return;
    }
    const other = readLink();
    const same = other.model === state.model;
    Object.assign(state, other);
    if (same && other.sample !== undefined) picture.openSample(other.sample);
    await openModel();
  });
}

async function start() {
  listen();
  onToken(askToken);
  await openModel();
}

start();
