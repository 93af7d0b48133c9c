// The image: dropped, pasted, chosen, taken by the camera, or a test image of the model.

import { html } from "./draw.js";
import { getImage, modelPath } from "./api.js";
import { turned, unmarked } from "./orientation.js";

/** Larger files, in bytes, are reduced before they are sent, so that the slider stays quick. */
const LARGE = 1 << 20;
/** The longer side of a reduced image, in pixels. */
const SIDE = 1280;
/** The longest side of an image that the server reads, in pixels. */
const LONGEST = 1 << 15;
/** Files from here on are not opened. */
const TOO_LARGE = 100 << 20;

const byId = (id) => document.getElementById(id);

export class Picture {
  /** `changed(image)` is called with each new image, or null: `{blob, seen, name, label, sample}`,
   *  where `blob` is what is sent, and `seen` what a model sees of it. `failed()` is called if a
   *  test image cannot be fetched. */
  constructor({ changed, failed, say }) {
    this.changed = changed;
    this.failed = failed;
    this.say = say;
    this.image = null;
    this.turn = 0;
    this.shown = byId("shown");
    this.caption = byId("image-name");
    this.listenToFiles();
    this.listenToDrops();
    byId("camera").addEventListener("click", () => this.openCamera());
    byId("camera-close").addEventListener("click", () => byId("camera-dialog").close());
    byId("camera-dialog").addEventListener("close", () => this.closeCamera());
    byId("shoot").addEventListener("click", () => this.shoot());
    this.shown.addEventListener("error", () => this.hideImage());
  }

  listenToFiles() {
    for (const id of ["file", "capture"]) {
      byId(id).addEventListener("change", (event) => {
        const [file] = event.target.files;
        if (file) this.open(file);
        // The same file can be chosen again.
        event.target.value = "";
      });
    }
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      const file = files.find((one) => one.type.startsWith("image/")) ?? files[0];
      if (file) {
        event.preventDefault();
        this.open(file, file.name === "image.png" ? "pasted image" : file.name);
      }
    });
  }

  listenToDrops() {
    const drop = byId("drop");
    let depth = 0;
    const over = (inside) => {
      depth = Math.max(0, depth + (inside ? 1 : -1));
      drop.classList.toggle("over", depth > 0);
    };
    const files = (event) => event.dataTransfer?.types?.includes("Files");
    addEventListener("dragenter", (event) => files(event) && over(true));
    addEventListener("dragleave", (event) => files(event) && over(false));
    addEventListener("dragover", (event) => files(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      depth = 1;
      over(false);
      const [file] = event.dataTransfer.files;
      if (file) this.open(file);
    });
  }

  /** Sets whether the model turns images as their EXIF data says, and the most pixels that the
   *  server reads. */
  setReading(upright, most) {
    const changed = upright !== this.upright || most !== this.most;
    Object.assign(this, { upright, most });
    if (changed && this.image?.file) this.open(this.image.file, this.image.name);
  }

  /** Forgets the test images of a model, also if one is shown. */
  leave() {
    byId("samples").hidden = true;
    if (!this.image || this.image.sample === undefined) return;
    this.turn++;
    this.image = null;
    this.hideImage();
    this.caption.textContent = "No image yet";
    this.changed(null);
  }

  /** Opens a file of the user. */
  async open(file, name = file.name) {
    const turn = ++this.turn;
    this.reading = turn;
    this.caption.textContent = "Reading…";
    try {
      const image = await prepared(file, this.upright, this.most);
      if (turn === this.turn) this.set({ ...image, name, file });
    } catch (error) {
      if (turn === this.turn) this.refuse(`${isolated(name)} ${error.message}`);
    } finally {
      if (turn === this.reading) this.reading = null;
    }
  }

  /** Shows the test images of a model, and opens one of them. */
  async showSamples(model, samples, chosen) {
    const list = byId("sample-list");
    this.model = model;
    this.samples = samples;
    byId("samples").hidden = samples.length === 0;
    this.buttons = samples.map((sample, index) => {
      const label = `Test image ${index + 1}, labelled ${sample.class}`;
      return html("button", {
        type: "button", class: "sample", "aria-pressed": "false", "aria-label": label,
        title: sample.class, onclick: () => this.openSample(index),
      });
    });
    list.replaceChildren(...this.buttons);
    if (samples.length === 0) return;
    // What the user has chosen meanwhile comes first.
    if (this.reading !== this.turn && (!this.image || this.image.sample !== undefined)) {
      await this.openSample(Math.min(chosen ?? 0, samples.length - 1));
    }
    await Promise.all(samples.map((_, index) => this.thumbnail(model, index)));
  }

  /** Fetches the test images that could not be fetched. */
  recover() {
    const failed = this.buttons?.some((button) => button.disabled) || (this.samples?.length && !this.image);
    if (failed) this.showSamples(this.model, this.samples);
  }

  async thumbnail(model, index) {
    const button = this.buttons[index];
    try {
      const blob = await sampleFile(model, index);
      if (button.isConnected) button.append(html("img", { src: URL.createObjectURL(blob), alt: "" }));
    } catch {
      button.disabled = true;
    }
  }

  /** Opens a test image. */
  async openSample(index) {
    const turn = ++this.turn;
    const sample = this.samples[index];
    try {
      const blob = await sampleFile(this.model, index);
      if (turn !== this.turn) return;
      this.set({ blob, seen: blob, name: `test image ${index + 1}`, label: sample.class, sample: index });
    } catch (error) {
      if (turn === this.turn) this.refuse(error.message);
      this.failed();
    }
  }

  set(image) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(image.seen);
    this.image = image;
    this.shown.src = this.url;
    this.shown.hidden = false;
    this.shown.alt = image.label ? `Test image, labelled ${image.label}` : "The chosen image";
    this.shown.classList.toggle("small", image.sample !== undefined);
    byId("no-image").hidden = true;
    const parts = [isolated(image.name)];
    if (image.label) parts.push(`labelled ${isolated(image.label)}`);
    if (image.note) parts.push(image.note);
    this.caption.textContent = parts.join(" · ");
    this.caption.classList.remove("wrong");
    this.buttons?.forEach((button, index) =>
      button.setAttribute("aria-pressed", String(index === image.sample)));
    this.changed(image);
  }

  refuse(text) {
    this.caption.textContent = text;
    this.caption.classList.add("wrong");
    this.say(text);
  }

  /** For files that the browser cannot show; the server may still read them. */
  hideImage() {
    this.shown.hidden = true;
    byId("no-image").hidden = false;
  }

  async openCamera() {
    if (!navigator.mediaDevices?.getUserMedia) {
      // Pages without encryption get no stream, but phones can take a picture as a file.
      if (matchMedia("(pointer: coarse)").matches) byId("capture").click();
      else this.refuse("Browsers give the camera only to pages on this machine or over HTTPS.");
      return;
    }
    const wrong = byId("camera-wrong");
    wrong.textContent = "";
    byId("shoot").disabled = true;
    byId("camera-dialog").showModal();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1280 } },
      });
      if (!byId("camera-dialog").open) {
        stop(stream);
        return;
      }
      this.stream = stream;
      const video = byId("video");
      video.srcObject = stream;
      await video.play();
      byId("shoot").disabled = false;
      byId("shoot").focus();
    } catch (error) {
      wrong.textContent = {
        NotAllowedError: "The browser was not allowed to use the camera.",
        NotFoundError: "There is no camera.",
      }[error.name] ?? "The camera cannot be used.";
    }
  }

  closeCamera() {
    if (this.stream) stop(this.stream);
    this.stream = null;
    byId("video").srcObject = null;
  }

  async shoot() {
    const video = byId("video");
    const [width, height] = [video.videoWidth, video.videoHeight];
    const blob = await drawn(video, 1, width, height);
    byId("camera-dialog").close();
    this.turn++;
    this.set({ blob, seen: blob, name: "camera picture" });
  }
}

function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** A name between marks that keep its direction of writing from changing what follows. */
function isolated(name) {
  return `\u2068${name}\u2069`;
}

const files = new Map();

/** A test image of a model, fetched once. */
async function sampleFile(model, index) {
  const path = modelPath(model, `/samples/${index}`);
  if (!files.has(path)) {
    const file = getImage(path);
    files.set(path, file);
    file.catch(() => files.delete(path));
  }
  return files.get(path);
}

/** Forgets the fetched test images: the model was reloaded. */
export function forgetSamples() {
  files.clear();
}

/** What is sent of a file, itself or a reduced JPEG, and what the model sees of it. */
async function prepared(file, upright, most) {
  if (file.size === 0) throw new Error("is empty.");
  if (file.size > TOO_LARGE) throw new Error("is larger than 100 MB.");
  const { known, turn, plain } = await unmarked(file);
  const light = known && file.size <= LARGE;
  let bitmap;
  try {
    bitmap = await createImageBitmap(plain);
  } catch {
    // The server may still read it, or say what is wrong.
    if (light) return { blob: file, seen: plain };
    throw new Error("is no image that this browser can read. Use JPEG, PNG or WebP.");
  }
  const longest = Math.max(bitmap.width, bitmap.height);
  const kept = light && longest <= LONGEST && bitmap.width * bitmap.height <= most;
  const applied = upright ? turn : 1;
  if (kept && applied === 1) {
    bitmap.close();
    return { blob: file, seen: plain };
  }
  const scale = Math.min(1, SIDE / longest, Math.sqrt((most ?? Infinity) / (bitmap.width * bitmap.height)));
  const size = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(scale * side + 1e-6)));
  const seen = await drawn(bitmap, applied, ...size, kept ? "image/png" : "image/jpeg");
  bitmap.close();
  if (kept) return { blob: file, seen };
  const [width, height] = turned(applied, ...size).size;
  return { blob: seen, seen, note: scale < 1 ? `sent as ${width} × ${height}` : "sent as JPEG" };
}

async function drawn(source, turn, width, height, type = "image/jpeg") {
  const { transform, size } = turned(turn, width, height);
  const canvas = html("canvas", { width: size[0], height: size[1] });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.setTransform(...transform);
  context.drawImage(source, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    const done = (blob) => (blob ? resolve(blob) : reject(new Error("cannot be drawn.")));
    canvas.toBlob(done, type, 0.92);
  });
}

/** The RGB bytes of an image at a size, as the network's `pixels` input expects them. */
export async function pixels(blob, width, height) {
  const canvas = html("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const bitmap = await createImageBitmap(blob);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0, j = 0; j < rgb.length; i += 4, j += 3) rgb.set(data.subarray(i, i + 3), j);
  return rgb;
}
