//! The elements of a tensor in JSON: nested like its shape, or flat.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// The limit on nesting.
const DEEPEST: usize = 8;

/// The limit on strings; each is an image.
const MOST_TEXTS: usize = 1 << 16;

/// The elements and their nesting.
#[derive(Debug, Default, PartialEq)]
pub struct JsonData {
    /// The elements, row-major.
    pub elements: Elements,
    /// The lengths of the lists, the outermost first.
    pub nesting: Vec<u64>,
}

/// Elements of one kind.
#[derive(Debug, Default, PartialEq)]
pub enum Elements {
    /// No elements.
    #[default]
    None,
    /// Finite numbers.
    Numbers(Vec<f32>),
    /// Strings.
    Texts(Vec<String>),
}

impl JsonData {
    fn number<E: de::Error>(&mut self, value: f64) -> Result<(), E> {
        let value = value as f32;
        if !value.is_finite() {
            return Err(E::custom("a number is beyond the range of FP32"));
        }
        match &mut self.elements {
            Elements::Numbers(values) => values.push(value),
            Elements::None => self.elements = Elements::Numbers(vec![value]),
            Elements::Texts(_) => return Err(E::custom("'data' mixes numbers and strings")),
        }
        Ok(())
    }

    fn text<E: de::Error>(&mut self, value: &str) -> Result<(), E> {
        match &mut self.elements {
            Elements::Texts(texts) if texts.len() == MOST_TEXTS => {
                return Err(E::custom("'data' has too many strings"));
            }
            Elements::Texts(texts) => texts.push(value.to_owned()),
            Elements::None => self.elements = Elements::Texts(vec![value.to_owned()]),
            Elements::Numbers(_) => return Err(E::custom("'data' mixes numbers and strings")),
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for JsonData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Self::default();
        let mut leaves = None;
        let outermost = Level {
            data: &mut data,
            leaves: &mut leaves,
            depth: 0,
        };
        outermost.deserialize(deserializer)?;
        Ok(data)
    }
}

/// Parses a list or an element at some depth.
struct Level<'a> {
    data: &'a mut JsonData,
    /// The depth of all elements, once one is known.
    leaves: &'a mut Option<usize>,
    depth: usize,
}

impl Level<'_> {
    /// Checks that an element has the same depth as the others.
    fn leaf<E: de::Error>(&mut self) -> Result<(), E> {
        if self.depth == 0 || *self.leaves.get_or_insert(self.depth) != self.depth {
            return Err(E::custom(
                "'data' must be a list whose elements all have the same depth",
            ));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers or strings, in a flat list or nested like the shape")
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        self.leaf()?;
        self.data.number(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<(), E> {
        self.leaf()?;
        self.data.text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self {
            data,
            leaves,
            depth,
        } = self;
        if depth == DEEPEST {
            return Err(de::Error::custom("'data' is nested too deeply"));
        }
        if leaves.is_some_and(|leaves| leaves <= depth) {
            return Err(de::Error::custom(
                "the elements of 'data' must all have the same depth",
            ));
        }
        let mut length = 0;
        loop {
            let inner = Level {
                data: &mut *data,
                leaves: &mut *leaves,
                depth: depth + 1,
            };
            if list.next_element_seed(inner)?.is_none() {
                break;
            }
            length += 1;
        }
        // Inner lists end first, so the lengths of this depth may be known before those
        // of outer ones.
        if data.nesting.len() <= depth {
            data.nesting.resize(depth + 1, u64::MAX);
        }
        match &mut data.nesting[depth] {
            known if *known == u64::MAX => *known = length,
            known if *known == length => {}
            _ => return Err(de::Error::custom("lists of 'data' differ in length")),
        }
        Ok(())
    }
}
