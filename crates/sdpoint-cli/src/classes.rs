//! Class names from a file: one per line, a table, or JSON.

mod json;
mod lines;
mod numbers;
mod quotes;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use sdpoint::core::file::{self, FileError};

use crate::failure::{Class, Failure};
use crate::output::{name, note};
use crate::text;

/// The maximum size of a file of names, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// The names in a file.
struct Named {
    /// In the order of the logits.
    names: Vec<String>,
    /// The first of the identifiers that were before the names.
    identified: Option<String>,
}

/// Reads the names in a file, in the order of the logits.
///
/// # Errors
/// If the file cannot be read or has none of these forms.
pub fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read '{}': {error}", path.display());
        Failure::io(message, error.kind())
    };
    let refuse = |problem: &str| {
        let message = format!(
            "'{}' cannot be used for class names: {problem}",
            path.display()
        );
        Failure::new(Class::Usage, message)
    };
    let bytes = file::read(path, MAX_FILE).map_err(|error| match error {
        FileError::TooLarge(_) => refuse("it is too large"),
        error => unreadable(error.into()),
    })?;
    let named = text::decode(&bytes).and_then(|text| parse(&text));
    let Named { names, identified } = named.map_err(|problem| refuse(&problem))?;
    if let (Some(id), Some(first)) = (identified, names.first()) {
        note(&format!(
            "Classes are named by the words behind the identifiers: '{}', not {id}. For data in \
             folders named by identifiers, give these as names: --classes folder:DIR.",
            name(first)
        ));
    }
    Ok(names)
}

/// A hint for a file that has other names than the `count` classes need: those of all
/// classes in one line, or a line more, the first of which is probably no name.
pub fn hint(names: &[String], count: usize) -> Option<String> {
    if let [line] = names
        && line.split(',').count() == count
    {
        return Some("write each name in a line of its own, or a JSON list".into());
    }
    let first = names.first().filter(|first| table::is_above_names(first))?;
    (names.len() == count + 1).then(|| {
        format!(
            "remove its first line, '{}', if it is not a name",
            name(first)
        )
    })
}

/// Reports names that several classes have: mostly mistakes, but ImageNet has two
/// cranes.
pub fn note_repeated(names: &[String]) {
    let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (class, name) in names.iter().enumerate() {
        classes.entry(name).or_default().push(class);
    }
    let mut repeated = classes.iter().filter(|(_, classes)| classes.len() > 1);
    let Some((first, same)) = repeated.next() else {
        return;
    };
    let others = match repeated.count() {
        0 => String::new(),
        1 => "; 1 more name is repeated".to_owned(),
        others => format!("; {others} more names are repeated"),
    };
    note(&format!(
        "Classes {} and {} have the same name, '{}'{others}.",
        same[0],
        same[1],
        name(first)
    ));
}

fn parse(text: &str) -> Result<Named, String> {
    let text = text.trim();
    if text.starts_with(['[', '{']) || json::is_python_tuple(text) {
        let names = json::parse(text)?;
        return Ok(Named {
            names,
            identified: None,
        });
    }
    lines::parse(text)
}

/// The message about a line with several columns.
fn several_columns(line: &str) -> String {
    format!(
        "'{}' has several columns: keep that of the names, or numbers and names, or name them \
         in a first line, as in 'number,name'",
        name(line)
    )
}

/// The names of the classes 0, 1, 2 and so on, none of which may be missing.
fn in_order<T>(mut names: BTreeMap<usize, T>) -> Result<Vec<T>, String> {
    (0..names.len())
        .map(|id| {
            let name = names.remove(&id);
            name.ok_or_else(|| format!("it has no name for class {id}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Vec<String>, String> {
        Ok(parse(&text::decode(bytes)?)?.names)
    }

    #[test]
    fn names_are_read_in_every_common_form() {
        let utf16: Vec<u8> = "\u{feff}cat\r\ndog, big"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in [
            &b"cat\ndog, big"[..],
            b"cat\ndog, big\n",
            b"cat\r\ndog, big\r\n\r\n\n",
            b"cat\rdog, big\r",
            b"\xef\xbb\xbfcat\n dog, big \n",
            &utf16,
            b"[\"cat\", \"dog, big\"]\n",
            b"\xef\xbb\xbf[\n\"cat\",\n\"dog, big\"\n]",
            b"{\"1\": \"dog, big\", \"0\": \"cat\"}",
            b"0 cat\n1 dog, big",
            b"1: dog, big\n0: cat\n",
            b"0,cat\r\n1,dog, big",
            b"0\tcat\n1\tdog, big",
            b"0. cat\n1. dog, big",
            b"00 cat\n01 dog, big",
            b"0 - cat\n1 - dog, big",
            b"n02123045 cat\nn02084071 dog, big",
            b"n02123045\tcat\nn02084071\tdog, big",
            b"0 n02123045 cat\n1 n02084071 dog, big",
            b"n02123045 0 cat\nn02084071 1 dog, big",
            b"{\"model_type\": \"resnet\", \"id2label\": {\"0\": \"cat\", \"1\": \"dog, big\"}, \"label2id\": {}}",
            b"{\"0\": [\"n0144\", \"cat\"], \"1\": [\"n01443537\", \"dog, big\"]}",
            b"[[\"n0144\", \"cat\"], [\"n01443537\", \"dog, big\"]]",
            b"{\"label_names\": [\"cat\", \"dog, big\"]}",
            b"{\"names\": {\"0\": \"cat\", \"1\": \"dog, big\"}}",
            b"{\"dog, big\": 1, \"cat\": 0}",
            b"{\"class_to_idx\": {\"dog, big\": 1, \"cat\": 0}}",
            b"cat 0\ndog, big 1",
            b"dog, big,1\ncat,0",
            b"cat, 0\ndog, big, 1",
            b"dog, big;1\ncat;0",
            b"cat\t0\ndog, big\t1",
            b"cat: 0\ndog, big: 1",
            b"cat = 0\ndog, big = 1",
            b"cat - 0\ndog, big - 1",
            b"0 : cat\n1 : dog, big",
            b"\"cat\"\n\"dog, big\"",
            b"cat\n\"dog, big\"",
            b"\"cat\",\n\"dog, big\"",
            b"'cat'\n'dog, big'",
            b"0,cat\n1,\"dog, big\"",
            b"\"1\",\"dog, big\"\n\"0\",\"cat\"",
            b"\"dog, big\",1\n\"cat\",0",
            b"\"dog, big\",\"1\"\n\"cat\",\"0\"",
            b"n02123045,\"cat\"\nn02084071,\"dog, big\"",
            b"n02123045 cat 0\nn02084071 dog, big 1",
            b"index,name\n1,\"dog, big\"\n0,cat",
            b"id,label\r\n0,cat\r\n1,\"dog, big\"\r\n",
            b"label,name\n0,cat\n1,\"dog, big\"",
            b"- cat\n- dog, big",
            b"- \"cat\"\n- \"dog, big\"",
            b"name;class_id;images\ncat;0;12\ndog, big;1;34",
            b"Class Name\tImages\ncat\t12\ndog, big\t34",
            b",class\n0,cat\n1,\"dog, big\"",
            b"id,class_id,class_name\n7,1,\"dog, big\"\n8,0,cat",
        ] {
            let names = of(bytes).unwrap_or_else(|e| panic!("{}: {e}", bytes.escape_ascii()));
            assert_eq!(names, ["cat", "dog, big"], "{}", bytes.escape_ascii());
        }
        assert_eq!(of(b"\n\n").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn numbers_that_are_parts_of_names_stay() {
        for names in [
            &["0", "1", "2"][..],
            &["3D", "2D"],
            &["0 to 5", "more"],
            &["0.5 litres", "1.5 litres"],
            &["n01440764", "n01443537"],
            &["n01440764 tench", "cat"],
            &["nose 1", "nose 2"],
            &["type 0", "type 1", "type 2"],
            &["type 0"],
            &["Formula 1", "Boeing 747"],
            &["model 2011", "other 2012"],
            &["cat", "dog1", "dog2"],
            &["\"Weird Al\" Yankovic", "5\" disk", "rock 'n' roll"],
            &["'Ohi", "dog"],
            &["- cat", "dog"],
            &["a;b", "c"],
            &["tab\tin it", "two words"],
            &["0 1 2", "1 2 3"],
            &["7 0", "7 1"],
        ] {
            assert_eq!(of(names.join("\n").as_bytes()).unwrap(), names);
        }
    }

    #[test]
    fn names_may_be_numbers() {
        for text in ["0 3\n1 5\n2 7", "0,3\n1,5\n2,7", "0: 3\n2: 7\n1: 5"] {
            assert_eq!(of(text.as_bytes()).unwrap(), ["3", "5", "7"], "{text}");
        }
        assert_eq!(of(b"0 0\n1 1\n2 2").unwrap(), ["0", "1", "2"]);
    }

    #[test]
    fn other_content_is_refused() {
        for (bytes, words) in [
            (&b"cat\n\ndog"[..], "line 2 is empty"),
            (b"[\"cat\", 1]", "list of names"),
            (b"{cat}", "list of names"),
            (b"['cat', 'dog']", "a Python list, not JSON"),
            (b"[ 'cat',\n 'dog' ]", "double quotes"),
            (b"('cat', 'dog')", "a Python tuple"),
            (b"{'cat': 0}", "a Python dictionary"),
            (b"cat 1\ndog 2", "numbered from 1 to 2, not from 0"),
            (b"cat,1\ndog,2", "numbered from 1 to 2, not from 0"),
            (b"cat,500\ndog,300", "no name for class 0"),
            (b"cat,0\ndog,0", "0 comes twice"),
            (
                b"cat\tfeline\ndog\tcanine",
                "'cat\\tfeline' has several columns",
            ),
            (
                b"cat;feline\ndog;canine",
                "'cat;feline' has several columns",
            ),
            (b"cat | feline\ndog | canine", "several columns"),
            (b"0\tcat\tfeline\n1\tdog\tcanine", "several columns"),
            (b"0,cat,500\n1,dog,300", "several columns"),
            (b"cat,0,500\ndog,1,300", "several columns"),
            (b"\"cat\",\"feline\"\n\"dog\",\"canine\"", "several columns"),
            (b"\"cat\ndog\"", "not closed"),
            (b"\"\"\ndog", "is empty"),
            (
                b"number of class\n0 cat\n1 dog",
                "remove it if it is a header",
            ),
            (
                b"classes;numbers\ncat,0\ndog,1",
                "remove it if it is a header",
            ),
            (b"index,name\n1,cat\n2,dog", "numbered from 1 to 2"),
            (
                b"index,name\n0,cat\n1,dog, big",
                "names 2 columns, but line 3 has 3",
            ),
            (b"index,name\n0,cat\n1,\"dog", "line 3 has a quotation mark"),
            (b"index,name\n0,cat\n1,", "line 3 has no name"),
            (b"number,class\nx,0\ny,1", "none of the columns"),
            (b"{0: 'cat'}", "a Python dictionary"),
            (b"1 cat\n2 dog", "numbered from 1 to 2, not from 0"),
            (b"0 cat\n2 dog", "numbered, but it has no name for class 1"),
            (b"0 cat\n0 dog", "0 comes twice, for 'cat' and 'dog'"),
            (b"n02123045 1 cat\nn02084071 2 dog", "numbered from 1 to 2"),
            (b"{\"id2label\": {\"1\": \"cat\"}}", "no name for class 0"),
            (b"{\"id2label\": \"cat\"}", "another form"),
            (b"{\"01\": \"cat\"}", "another form"),
            (b"{\"0\": {\"a\": \"b\"}}", "another form"),
            (b"{\"n01440764\": \"tench\"}", "another form"),
            (b"{\"cat\": 1, \"dog\": 2}", "no name for class 0"),
            (b"{\"cat\": 0, \"dog\": 0}", "0 twice, for 'cat' and 'dog'"),
            (b"[[\"a\", \"b\", \"c\"]]", "another form"),
            (b"{\"1\": \"cat\"}", "no name for class 0"),
            (
                b"{\"0\": \"cat\", \"0\": \"dog\"}",
                "the key '0' twice, first for 'cat'",
            ),
            (b"\xff\xfea", "not UTF-16"),
            (b"caf\xe9", "not UTF-8"),
            (b"c\0a\0t\0\n\0", "UTF-16 without"),
        ] {
            let result = of(bytes);
            let error = result.expect_err(&bytes.escape_ascii().to_string());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_line_above_the_names_is_suspected() {
        for (first, is_header) in [
            ("name", true),
            ("Class name", true),
            ("# classes", true),
            ("names:", true),
            ("cat", false),
        ] {
            let names = [first, "a", "b"].map(str::to_owned);
            let hint = hint(&names, 2);
            assert_eq!(hint.is_some_and(|hint| hint.contains(first)), is_header);
            assert_eq!(super::hint(&names, 3), None);
        }
        let line = ["cat, dog, bird".to_owned()];
        assert!(hint(&line, 3).unwrap().contains("a line of its own"));
        assert_eq!(hint(&line, 2), None);
    }
}
