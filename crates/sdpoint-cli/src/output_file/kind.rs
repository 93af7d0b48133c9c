//! The kind of a file, by its first bytes.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::path::Path;

use sdpoint::core::file;
use sdpoint::core::seal::is_sealed;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The kind of a file. In formats that other programs write too, files written
/// by `sdpoint` are distinguished, because they can be reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model that was trained or calibrated.
    Model,
    /// A model as `import` writes it.
    ImportedModel,
    /// The checkpoint of a run.
    Checkpoint,
    /// The metrics of a run.
    Metrics,
    /// The metrics of a run for TensorBoard.
    Events,
    /// A state dict that `export` wrote.
    StateDict,
    /// An ONNX file that `export` wrote.
    Onnx,
    /// A PyTorch module that `export` wrote.
    Module,
    /// The list of the files that `export --instances` wrote.
    Manifest,
    /// Accuracy over cost as a table.
    Table,
    /// A confusion matrix as a table.
    Confusion,
    /// The logits of test images.
    Logits,
    /// Accuracy over cost, or a confusion matrix, as a picture.
    Picture,
    /// Accuracy over cost as an HTML file.
    Report,
    /// The latency profile of a model.
    Profile,
    /// One of these that was edited since it was written.
    Edited(&'static str),
    /// An empty file.
    Empty,
    /// A safetensors file that `sdpoint` did not write.
    Safetensors,
    /// A file written by `torch.save`.
    Torch,
    /// An ONNX file that `sdpoint` did not write.
    ForeignOnnx,
    /// An image in this format.
    Image(&'static str),
    /// An archive in this format.
    Archive(&'static str),
    /// Text.
    Text,
    /// Anything else.
    Other,
}

/// The number of bytes that are read, except for safetensors headers.
const START: u64 = 1 << 16;

/// The headers of tables of accuracies, by instance, also with those on held-out
/// images, and by deadline.
const TABLES: [&str; 3] = [
    "instance,point,ratio,macs,share,top1,top5,loss",
    "instance,point,ratio,macs,share,top1,top5,loss,val_top1,val_top5,val_loss",
    "instance,macs,share,top1,loss,deadline_ms,in_time,top1_if_late",
];

/// The longest header that the safetensors format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

impl Kind {
    /// The kind of the file at a path.
    ///
    /// # Errors
    /// If it cannot be read, or is not a regular file: a pipe would block.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut start = Vec::new();
        let (file, _) = file::open(path)?;
        file.take(START).read_to_end(&mut start)?;
        let kind = match safetensors_header(&start) {
            Some(length) => safetensors(path, length).unwrap_or(Self::Other),
            None => of_start(&start),
        };
        Ok(match kind.edited() {
            Some(edited) if !is_sealed(&file::read(path, u64::MAX)?) => edited,
            _ if kind == Self::Table && !is_table(&file::read(path, u64::MAX)?) => {
                Self::Edited("table")
            }
            _ => kind,
        })
    }

    /// For files with a seal: the kind if the seal is broken.
    fn edited(self) -> Option<Self> {
        let what = match self {
            Self::StateDict => "file of weights",
            Self::Onnx => "ONNX file",
            Self::Module => "Python module",
            Self::Manifest => "list of files",
            Self::Picture => "picture",
            Self::Report => "page",
            _ => return None,
        };
        Some(Self::Edited(what))
    }

    /// Whether a file of this kind may be replaced by one of kind `new`: it is
    /// empty, or can be made again. A trained model cannot.
    pub fn may_become(self, new: Self) -> bool {
        match self {
            Self::Empty => true,
            Self::Model => false,
            Self::ImportedModel => matches!(new, Self::Model | Self::ImportedModel),
            _ => self == new,
        }
    }

    /// Whether `sdpoint` wrote it.
    pub fn is_ours(self) -> bool {
        match self {
            Self::Model
            | Self::ImportedModel
            | Self::Checkpoint
            | Self::Metrics
            | Self::Events
            | Self::StateDict
            | Self::Onnx
            | Self::Module
            | Self::Manifest
            | Self::Table
            | Self::Confusion
            | Self::Logits
            | Self::Picture
            | Self::Report
            | Self::Profile
            | Self::Edited(_) => true,
            Self::Empty
            | Self::Safetensors
            | Self::Torch
            | Self::ForeignOnnx
            | Self::Image(_)
            | Self::Archive(_)
            | Self::Text
            | Self::Other => false,
        }
    }
}

impl fmt::Display for Kind {
    /// With an article: `a model file`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "a trained model",
            Self::ImportedModel => "an imported model",
            Self::Checkpoint => "the checkpoint of a training run",
            Self::Metrics => "the metrics of a training run",
            Self::Events => "the events of a training run",
            Self::StateDict => "exported weights",
            Self::Onnx => "an exported ONNX file",
            Self::Module => "an exported Python module",
            Self::Manifest => "a list of exported files",
            Self::Table => "a table of accuracies",
            Self::Confusion => "a table of confusions",
            Self::Logits => "a file of logits",
            Self::Picture => "a picture of results",
            Self::Report => "a page with a curve",
            Self::Profile => "a latency profile",
            Self::Edited(what) => {
                return write!(
                    f,
                    "{} {what} that was edited since sdpoint wrote it",
                    article(what)
                );
            }
            Self::Empty => "an empty file",
            Self::Safetensors => "a safetensors file that sdpoint did not write",
            Self::Torch => "a PyTorch file",
            Self::ForeignOnnx => "an ONNX file that sdpoint did not write",
            Self::Image(format) => {
                return write!(f, "{} {format} image", article(format));
            }
            Self::Archive(format) => {
                return write!(f, "{} {format} archive", article(format));
            }
            Self::Text => "a text file that sdpoint did not write",
            Self::Other => "a file that sdpoint did not write",
        })
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['A', 'E', 'I', 'O', 'U']) {
        "an"
    } else {
        "a"
    }
}

/// The length of the header if this is the start of a safetensors file.
fn safetensors_header(start: &[u8]) -> Option<u64> {
    let (length, rest) = start.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    (rest.first() == Some(&b'{') && (2..=MAX_HEADER).contains(&length)).then_some(length)
}

fn safetensors(path: &Path, header: u64) -> Option<Kind> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__", default)]
        metadata: HashMap<String, String>,
    }
    let (mut file, _) = file::open(path).ok()?;
    file.read_exact(&mut [0; 8]).ok()?;
    let header: Header = serde_json::from_reader(BufReader::new(file.take(header))).ok()?;
    let has = |key: &str| header.metadata.contains_key(key);
    Some(if let Some(document) = header.metadata.get("sdpoint") {
        of_model(document)
    } else if has("sdpoint_checkpoint") {
        Kind::Checkpoint
    } else if has("sdpoint_logits") {
        Kind::Logits
    } else if ["network", "instances", "preprocessing"]
        .into_iter()
        .all(has)
    {
        Kind::StateDict
    } else {
        Kind::Safetensors
    })
}

/// The kind of a model, by the document in its header.
fn of_model(document: &str) -> Kind {
    #[derive(Deserialize)]
    struct Document {
        instances: Vec<IgnoredAny>,
        training: HashMap<String, IgnoredAny>,
    }
    match serde_json::from_str::<Document>(document) {
        Ok(document)
            if document.instances.len() == 1 && document.training.contains_key("imported") =>
        {
            Kind::ImportedModel
        }
        _ => Kind::Model,
    }
}

/// Whether text has the form of a table of accuracies: a known header, and as
/// many numbers in each row. Edited numbers cannot be recognised.
fn is_table(content: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(content) else {
        return false;
    };
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let columns = header.split(',').count();
    TABLES.contains(&header)
        && lines.all(|line| {
            let mut fields = line.split(',');
            let named = fields.next().is_some_and(|name| !name.is_empty());
            named && line.split(',').count() == columns
        })
}

fn of_start(start: &[u8]) -> Kind {
    let at = |place: usize, bytes: &[u8]| start.get(place..).is_some_and(|s| s.starts_with(bytes));
    let contains = |bytes: &[u8]| start.windows(bytes.len()).any(|window| window == bytes);
    match start {
        [] => Kind::Empty,
        // The version of the format, and the producer's name.
        [8, 1..=32, 0x12, ..] if at(3, b"\x07sdpoint") => Kind::Onnx,
        [8, 1..=32, 0x12 | 0x1a | 0x3a | 0x42, ..] => Kind::ForeignOnnx,
        _ if is_events(start) => Kind::Events,
        [b'P', b'K', 3, 4, ..] if contains(b"data.pkl") => Kind::Torch,
        [b'P', b'K', 3, 4, ..] => Kind::Archive("zip"),
        [0x80, 2..=5, ..] => Kind::Torch,
        [0x1f, 0x8b, ..] => Kind::Archive("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Kind::Archive("zstd"),
        _ if at(0, b"\xfd7zXZ") => Kind::Archive("xz"),
        _ if at(257, b"ustar") => Kind::Archive("tar"),
        [0xff, 0xd8, 0xff, ..] => Kind::Image("JPEG"),
        _ if at(0, b"\x89PNG") => Kind::Image("PNG"),
        _ if at(0, b"GIF8") => Kind::Image("GIF"),
        _ if at(0, b"RIFF") && at(8, b"WEBP") => Kind::Image("WebP"),
        _ if at(0, b"II*\0") || at(0, b"MM\0*") => Kind::Image("TIFF"),
        _ if at(4, b"ftypavif") => Kind::Image("AVIF"),
        _ if at(4, b"ftyphei") || at(4, b"ftypmif1") => Kind::Image("HEIC"),
        _ if at(0, b"BM") && at(6, &[0; 4]) => Kind::Image("BMP"),
        _ => text(start).map_or(Kind::Other, of_text),
    }
}

/// Whether these are events that a run wrote, which a crash may have left
/// incomplete: the length, checksum and time of the first event, then the version
/// and the writer of the file.
fn is_events(start: &[u8]) -> bool {
    const FIRST: &[u8] = b"\x1a\x0dbrain.Event:2\x52\x09\x0a\x07sdpoint";
    let length = 9 + FIRST.len() as u64;
    let rest = start.get(21..).unwrap_or_default();
    start.starts_with(&length.to_le_bytes()) && (rest.starts_with(FIRST) || FIRST.starts_with(rest))
}

/// The start of a file as text, if it is UTF-8. The last character may be cut.
fn text(start: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

fn of_text(text: &str) -> Kind {
    let first_line = text.lines().next().unwrap_or_default();
    let has = |names: &[&str]| {
        names
            .iter()
            .all(|name| text.contains(&format!("\"{name}\"")))
    };
    if first_line.starts_with("instance,") && first_line.contains(",macs,share,") {
        Kind::Table
    } else if first_line.starts_with("true class,images,") {
        Kind::Confusion
    } else if text.starts_with("<svg")
        && (text.contains("multiply-accumulates") || text.contains(": confusion matrix, rows"))
    {
        Kind::Picture
    } else if text.starts_with("<!doctype html>") && text.contains("content=\"sdpoint evaluate\"") {
        Kind::Report
    } else if text.starts_with("\"\"\"") && text.contains(", written by sdpoint ") {
        Kind::Module
    } else if text.starts_with("{\"epoch\":") && has(&["step", "train_loss"]) {
        Kind::Metrics
    } else if text.starts_with('{') && has(&["version", "network", "machines"]) {
        Kind::Profile
    } else if text.starts_with('{')
        && has(&["network", "classes"])
        && text.contains("\"classes\": [")
    {
        Kind::Manifest
    } else {
        Kind::Text
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn kind(content: &[u8]) -> Kind {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, content).unwrap();
        Kind::of(&path).unwrap()
    }

    fn safetensors(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
    }

    #[test]
    fn events_are_recognised_however_much_of_them_is_there() {
        let first = b"\x1a\x0dbrain.Event:2\x52\x09\x0a\x07sdpoint";
        let events = [&[35, 0, 0, 0, 0, 0, 0, 0][..], &[7; 13], first, &[1; 99]].concat();
        for len in [8, 12, 21, 30, 45, 60, events.len()] {
            assert_eq!(kind(&events[..len]), Kind::Events, "{len}");
        }
        let mut other = events;
        other[23] = b'B';
        assert_eq!(kind(&other), Kind::Other);
    }

    #[test]
    fn kinds_are_recognised_by_content() {
        for (content, expected) in [
            (&b""[..], Kind::Empty),
            (b"\x08\x08\x12\x07sdpoint\x1a", Kind::Edited("ONNX file")),
            (b"\x08\x0a\x12\x07pytorch\x1a", Kind::ForeignOnnx),
            (b"PK\x03\x04......archive/data.pkl", Kind::Torch),
            (b"PK\x03\x04......word/document.xml", Kind::Archive("zip")),
            (b"\x80\x02\x8a\x0al\xfc\x9cF", Kind::Torch),
            (b"\xff\xd8\xff\xe0", Kind::Image("JPEG")),
            (
                b"instance,point,ratio,macs,share,top1,top5,loss\nfull,,,1,1,0.5,1,0.2\n",
                Kind::Table,
            ),
            (
                b"instance,point,ratio,macs,share,top1,top5,loss,val_top1,val_top5,val_loss\n\
                  full,,,1,1,0.5,1,0.2,0.5,1,0.3\n",
                Kind::Table,
            ),
            (
                b"instance,macs,share,top1,loss,deadline_ms,in_time,top1_if_late\n",
                Kind::Table,
            ),
            (b"instance,macs,share,top1\n", Kind::Edited("table")),
            (
                b"instance,point,ratio,macs,share,top1,top5,loss\nfull,,,1,1,0.5,1,0.2,good\n",
                Kind::Edited("table"),
            ),
            (b"instance,mine\n1,2\n", Kind::Text),
            (b"name,macs,share,top1\n", Kind::Text),
            (b"import os\n", Kind::Text),
            (b"<svg><path/></svg>", Kind::Text),
            (b"{\"name\": \"app\", \"start_url\": \"/\"}", Kind::Text),
            ("é".as_bytes(), Kind::Text),
            (b"\0\0\0\0", Kind::Other),
            (b"\xff\xfe\xff", Kind::Other),
        ] {
            assert_eq!(kind(content), expected, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn safetensors_files_are_distinguished_by_their_metadata() {
        for (header, expected) in [
            (r#"{"__metadata__":{"sdpoint":"{}"}}"#, Kind::Model),
            (
                r#"{"__metadata__":{"sdpoint":"{\"instances\":[{}],\"training\":{\"epochs\":9}}"}}"#,
                Kind::Model,
            ),
            (
                r#"{"__metadata__":{"sdpoint":"{\"instances\":[{}],\"training\":{\"imported\":\"a.pth\"}}"}}"#,
                Kind::ImportedModel,
            ),
            (
                r#"{"__metadata__":{"sdpoint":"{\"instances\":[{},{}],\"training\":{\"imported\":\"a.pth\"}}"}}"#,
                Kind::Model,
            ),
            (
                r#"{"__metadata__":{"sha256":"","sdpoint_checkpoint":"{}"}}"#,
                Kind::Checkpoint,
            ),
            (
                r#"{"__metadata__":{"network":"a","instances":"[]","preprocessing":"{}"}}"#,
                Kind::Edited("file of weights"),
            ),
            (r#"{"__metadata__":{"format":"pt"}}"#, Kind::Safetensors),
            (
                r#"{"sdpoint":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#,
                Kind::Safetensors,
            ),
            (r#"{"__metadata__":"#, Kind::Other),
        ] {
            assert_eq!(kind(&safetensors(header)), expected, "{header}");
        }
    }
}
