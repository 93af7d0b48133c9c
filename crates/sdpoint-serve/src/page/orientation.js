// The EXIF orientation of image files. Browsers differ in which kinds of file they turn, so the
// page removes the mark before they decode a file, and turns the picture itself where the model
// does.

/** Kinds of files that the server reads, by their first bytes. */
const KINDS = [
  { type: "image/jpeg", begins: (head) => head.startsWith("\xff\xd8\xff"), marks: marksOfJpeg },
  { type: "image/png", begins: (head) => head.startsWith("\x89PNG\r\n\x1a\n"), marks: marksOfPng },
  { type: "image/webp", begins: (head) => /^RIFF....WEBP/s.test(head), marks: marksOfWebp },
];

const MOST_TEXT = 1 << 20;

/** What a file says of its orientation: `turn`, from 1 to 8 as in EXIF, and `plain`, the file
 *  without it. `known` is whether the server reads files of this kind. */
export async function unmarked(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const head = latin1(bytes, 0, 16);
  const kind = KINDS.find((one) => one.begins(head));
  if (!kind) return { known: false, turn: 1, plain: file };
  const parts = [];
  const found = [];
  let kept = 0;
  for (const { from, to, read } of kind.marks(bytes)) {
    parts.push(bytes.subarray(kept, from));
    kept = to;
    found.push(read);
  }
  parts.push(bytes.subarray(kept));
  return { known: true, turn: await first(found), plain: new Blob(parts, { type: kind.type }) };
}

/** The orientation that counts: the first in EXIF data, or else the first in a text. */
async function first(found) {
  const own = found.find((read) => read instanceof Uint8Array);
  if (own) return orientation(own);
  for (const packed of [false, true]) {
    for (const text of found.filter((read) => read?.packed === packed)) {
      const profile = unhex(packed ? await inflated(text.bytes) : latin1(text.bytes));
      if (profile) return orientation(profile);
    }
  }
  return 1;
}

/** Text of one byte a letter, at most a megabyte. */
function latin1(bytes, from = 0, length = MOST_TEXT) {
  let text = "";
  for (const byte of bytes.subarray(from, from + length)) text += String.fromCharCode(byte);
  return text;
}

function* marksOfJpeg(bytes) {
  let scans = 0;
  for (let at = 2; ;) {
    at = bytes.indexOf(0xff, at);
    const code = bytes[at + 1];
    if (at < 0 || code === undefined || code === 0xd9 || (code === 0xd8 && scans)) return;
    if (code === 0xff) {
      at += 1;
    } else if (code <= 1 || (code >= 0xd0 && code <= 0xd8)) {
      // Data, and markers without content.
      at += 2;
    } else {
      const length = (bytes[at + 2] << 8) + bytes[at + 3];
      const to = at + 2 + length;
      if (!(length >= 2 && to <= bytes.length)) return;
      const name = latin1(bytes, at + 4, 6);
      if (code === 0xe1 && name.startsWith("Exif\0")) {
        yield { from: at, to, read: name === "Exif\0\0" ? bytes.subarray(at + 4, to) : null };
      }
      if (code === 0xda) scans += 1;
      at = to;
    }
  }
}

function* marksOfPng(bytes) {
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length;) {
    const to = at + 12 + view.getUint32(at);
    if (to > bytes.length) return;
    const type = latin1(bytes, at + 4, 4);
    const content = bytes.subarray(at + 8, to - 4);
    if (type === "eXIf") yield { from: at, to, read: content };
    // What older programs write instead.
    const profile = "Raw profile type exif\0";
    if ((type === "tEXt" || type === "zTXt") && latin1(content, 0, profile.length) === profile) {
      const packed = type === "zTXt";
      yield { from: at, to, read: { packed, bytes: content.subarray(profile.length + Number(packed)) } };
    }
    at = to;
  }
}

function* marksOfWebp(bytes) {
  const view = new DataView(bytes.buffer);
  for (let at = 12; at + 8 <= bytes.length;) {
    const length = view.getUint32(at + 4, true);
    if (latin1(bytes, at, 4) === "EXIF") {
      // Chunks of other names are skipped, while the length of the whole file must stay.
      bytes[at] = 0x78;
      yield { from: at, to: at, read: bytes.subarray(at + 8, at + 8 + length) };
    }
    at += 8 + length + (length % 2);
  }
}

/** The bytes that a raw profile has in hexadecimal digits, after a line with its name and one with
 *  its length. */
function unhex(text) {
  const digits = text.trimStart().split("\n").slice(2).join("").replace(/\s/g, "");
  if (/[^\da-f]/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Text that is compressed; of longer ones, the beginning. */
async function inflated(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let text = "";
  try {
    while (text.length < MOST_TEXT) {
      const { done, value } = await reader.read();
      if (done) break;
      text += latin1(value);
    }
  } catch {
    return "";
  }
  reader.cancel();
  return text;
}

/** The orientation in EXIF data; 1, upright, if there is no valid one. */
function orientation(exif) {
  const start = latin1(exif, 0, 6) === "Exif\0\0" ? 6 : 0;
  const order = latin1(exif, start, 4);
  const little = order === "II*\0";
  if (!little && order !== "MM\0*") return 1;
  const view = new DataView(exif.buffer, exif.byteOffset + start, exif.length - start);
  const short = (at) => view.getUint16(at, little);
  try {
    const directory = view.getUint32(4, little);
    for (let entry = 0; entry < short(directory); entry++) {
      const at = directory + 2 + 12 * entry;
      if (short(at) !== 0x112) continue;
      const value = { 3: () => short(at + 8), 4: () => view.getUint32(at + 8, little) }[short(at + 2)]?.();
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch {
    // The data ends before what it says.
  }
  return 1;
}

/** What a canvas must do so that a picture of a width and height is drawn upright, and its size
 *  then. */
export function turned(turn, width, height) {
  const [w, h] = [width, height];
  const transform = [[1, 0, 0, 1, 0, 0], [-1, 0, 0, 1, w, 0], [-1, 0, 0, -1, w, h], [1, 0, 0, -1, 0, h],
    [0, 1, 1, 0, 0, 0], [0, 1, -1, 0, h, 0], [0, -1, -1, 0, h, w], [0, -1, 1, 0, 0, w]][turn - 1];
  return { transform, size: turn > 4 ? [h, w] : [w, h] };
}
