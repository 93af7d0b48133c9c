//! Finds the dictionaries of tensors in a pickle, at any level.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::module;
use super::pickle::{Id, Object, Value, Values};
use super::set::without_averaged;
use super::storage::TensorFinder;
use super::{Entry, Fault, TensorSet, Whole};

// Limits that no checkpoint of a network comes near, against hostile files.

/// The most tensors, those of optimisers included.
const MAX_TENSORS: usize = 1 << 16;

/// The most bytes of all names together.
const MAX_NAMES: usize = 8 << 20;

/// The longest name, in bytes; longer ones are cut and numbered.
const MAX_NAME: usize = 1024;

/// The most levels of nesting.
const MAX_DEPTH: usize = 32;

/// The most members of all modules.
const MAX_MEMBERS: usize = 1 << 20;

/// The most parts of one network in a list.
const MAX_LISTED: usize = 8;

/// The most visits of values that are in several places, beyond the first of each.
const MAX_REVISITS: usize = 256;

/// The most visits of one value.
const MAX_VISITS: u8 = 4;

/// The number of items of a list that are searched, and of numbered items of a
/// dictionary.
const MAX_ITEMS: usize = 64;

/// All dictionaries of tensors, those at the outermost levels first.
pub(super) fn sets<'f>(
    values: &Values<'f>,
    top: Id,
    tensors: &mut TensorFinder<'f, '_>,
) -> Result<Vec<TensorSet>, Fault> {
    let mut finder = Finder {
        values,
        tensors,
        places: Vec::new(),
        queue: VecDeque::new(),
        visits: vec![0; values.len()],
        revisits: 0,
        sets: Vec::new(),
        count: 0,
        names: 0,
        looked: 0,
    };
    finder.enter(top, None, Step::Within);
    while let Some(place) = finder.queue.pop_front() {
        finder.visit(place)?;
    }
    finder.join()?;
    let sets: Vec<TensorSet> = finder.sets.into_iter().map(|(_, set)| set).collect();
    if sets.is_empty() {
        return Err(Fault::NoStateDict);
    }
    Ok(sets)
}

/// How a value is reached from the one that contains it.
#[derive(Clone, Copy)]
enum Step {
    Key(Id),
    Index(usize),
    /// As an unnamed part, such as an object's attributes.
    Within,
}

/// A value that may contain dictionaries of tensors.
struct Place {
    value: Id,
    parent: Option<usize>,
    step: Step,
    depth: usize,
}

struct Finder<'v, 't, 'f, 'p> {
    values: &'v Values<'f>,
    tensors: &'t mut TensorFinder<'f, 'p>,
    places: Vec<Place>,
    /// Indices into `places`.
    queue: VecDeque<usize>,
    /// How often each value was entered. Values may be in several places, such as a
    /// dictionary of averages that shares parts with that of the plain weights.
    visits: Vec<u8>,
    /// The number of visits beyond the first of each value.
    revisits: usize,
    /// The dictionaries found, each with the index of its place.
    sets: Vec<(usize, TensorSet)>,
    /// The number of tensors of all sets.
    count: usize,
    /// Bytes of their names.
    names: usize,
    /// The number of members of modules visited.
    looked: usize,
}

impl Finder<'_, '_, '_, '_> {
    /// Queues a value for a visit, if it can contain others.
    fn enter(&mut self, value: Id, parent: Option<usize>, step: Step) {
        let holds = match self.values.get(value) {
            Value::Dict(_) | Value::List(_) | Value::Tuple(_) => true,
            // A module has the paths of its tensors; once is enough.
            Value::Object(object) => {
                self.visits[value.index()] == 0 || !module::is_module(self.values, object)
            }
            _ => false,
        };
        let depth = parent.map_or(0, |parent| self.places[parent].depth + 1);
        if !holds || depth > MAX_DEPTH {
            return;
        }
        if self.visits[value.index()] > 0 {
            let is_allowed = self.revisits < MAX_REVISITS
                && self.visits[value.index()] < MAX_VISITS
                && !self.is_within(parent, value);
            if !is_allowed {
                return;
            }
            self.revisits += 1;
        }
        self.visits[value.index()] += 1;
        self.queue.push_back(self.places.len());
        self.places.push(Place {
            value,
            parent,
            step,
            depth,
        });
    }

    /// Whether a place is in a value, at any depth.
    fn is_within(&self, mut place: Option<usize>, value: Id) -> bool {
        while let Some(index) = place {
            if self.places[index].value == value {
                return true;
            }
            place = self.places[index].parent;
        }
        false
    }

    fn visit(&mut self, place: usize) -> Result<(), Fault> {
        let values = self.values;
        let id = self.places[place].value;
        match values.get(id) {
            Value::Dict(items) => {
                self.dictionary(place, items)?;
                let mut numbered = 0;
                for &(key, value) in items {
                    match *values.get(key) {
                        Value::Text(_) => self.enter(value, Some(place), Step::Key(key)),
                        // As in a list: optimisers number their states.
                        Value::Int(index) if numbered < MAX_ITEMS && index >= 0 => {
                            numbered += 1;
                            self.enter(value, Some(place), Step::Index(index as usize));
                        }
                        _ => {}
                    }
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for (index, &item) in items.iter().enumerate().take(MAX_ITEMS) {
                    self.enter(item, Some(place), Step::Index(index));
                }
            }
            Value::Object(object) if module::is_module(values, object) => {
                self.module(place, object)?
            }
            Value::Object(object) => {
                let parts = [object.items, object.state, object.list];
                for part in parts.into_iter().flatten() {
                    self.enter(part, Some(place), Step::Within);
                }
                self.enter(object.arguments, Some(place), Step::Within);
            }
            _ => {}
        }
        Ok(())
    }

    fn dictionary(&mut self, place: usize, items: &[(Id, Id)]) -> Result<(), Fault> {
        if self.visits[self.places[place].value.index()] > 1 {
            // Another place of the same tensors is optional, so exceeding a limit there
            // is no error.
            let names = items.iter().map(|&(name, _)| match *self.values.get(name) {
                Value::Text(name) => name.len().min(MAX_NAME),
                _ => 0,
            });
            if self.count + items.len() > MAX_TENSORS / 2
                || self.names + names.sum::<usize>() > MAX_NAMES / 2
            {
                return Ok(());
            }
        }
        let mut found = BTreeMap::new();
        for &(name, value) in items {
            if let &Value::Text(name) = self.values.get(name) {
                self.add(&mut found, "", name, value)?;
            }
        }
        self.keep(place, found, None);
        Ok(())
    }

    /// Adds a value to a set if it is a tensor or would have become one.
    fn add(
        &mut self,
        set: &mut BTreeMap<String, Entry>,
        prefix: &str,
        name: &str,
        value: Id,
    ) -> Result<(), Fault> {
        if let Some(entry) = self.tensors.tensor(value) {
            let name = self.short(prefix, name);
            self.charge(1, name.len())?;
            set.insert(name, entry);
        }
        Ok(())
    }

    /// A name with a prefix, of bounded length, which differs from all others
    /// that were cut.
    fn short(&self, prefix: &str, name: &str) -> String {
        match MAX_NAME.checked_sub(prefix.len()) {
            Some(left) if name.len() <= left => format!("{prefix}{name}"),
            left => {
                let start = &name[..name.floor_char_boundary(left.unwrap_or(0))];
                format!("{prefix}{start}… ({})", self.count)
            }
        }
    }

    /// Counts tensors and bytes of names.
    fn charge(&mut self, tensors: usize, names: usize) -> Result<(), Fault> {
        self.count += tensors;
        self.names += names;
        if self.count > MAX_TENSORS || self.names > MAX_NAMES {
            return Err(Fault::TooManyTensors);
        }
        Ok(())
    }

    fn keep(&mut self, place: usize, entries: BTreeMap<String, Entry>, module: Option<Whole>) {
        // Options and counters are objects, too, but a dictionary of many unreadable
        // objects is more likely one of tensors.
        const OBJECTS: usize = 8;
        if entries.values().any(Result::is_ok) || entries.len() >= OBJECTS {
            let set = TensorSet {
                key: self.key(place),
                entries,
                module,
                joined: false,
                averaged_parts: false,
            };
            self.sets.push((place, set));
        }
    }

    /// The path to a place, keys joined by dots.
    fn key(&self, place: usize) -> String {
        let mut parts = Vec::new();
        let mut place = Some(place);
        while let Some(index) = place {
            let Place { parent, step, .. } = self.places[index];
            match step {
                Step::Key(key) => {
                    if let Value::Text(text) = self.values.get(key) {
                        parts.push(text.chars().take(80).collect::<String>());
                    }
                }
                Step::Index(index) => parts.push(index.to_string()),
                Step::Within => {}
            }
            place = parent;
        }
        parts.reverse();
        parts.join(".")
    }

    /// The tensors of a whole pickled module, under the names of its state dict.
    fn module(&mut self, place: usize, object: &Object) -> Result<(), Fault> {
        let values = self.values;
        let mut found = BTreeMap::new();
        let mut whole = Whole::default();
        let mut open = vec![(*object, String::new(), 0)];
        while let Some((object, prefix, depth)) = open.pop() {
            let members = module::members(values, &object);
            let part = module::part(values, &object);
            self.charge(1, prefix.len() + part.class.len())?;
            let path = prefix.strip_suffix('.').unwrap_or(&prefix);
            whole.parts.insert(path.to_owned(), part);
            // A few modules that refer to each other have exponentially many paths.
            self.looked += 1 + members.len();
            if self.looked > MAX_MEMBERS {
                return Err(Fault::TooMuch);
            }
            for (name, value) in members {
                match values.get(value) {
                    Value::Object(inner) if module::is_module(values, inner) => {
                        let path = self.short(&prefix, name) + ".";
                        // A module may contain itself.
                        open.extend((depth < MAX_DEPTH).then_some((*inner, path, depth + 1)));
                    }
                    Value::Tensor(_) | Value::Object(_) => {
                        self.add(&mut found, &prefix, name, value)?;
                    }
                    _ => {}
                }
            }
        }
        self.keep(place, found, Some(whole));
        Ok(())
    }

    /// Dictionaries at the same level may be the parts of one network. Adds one
    /// set of all of them, in whose names the key of each part, or its number in a
    /// list, is the prefix.
    fn join(&mut self) -> Result<(), Fault> {
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, (place, _)) in self.sets.iter().enumerate() {
            let Place { parent, step, .. } = self.places[*place];
            let Some(parent) = parent else { continue };
            let may_be_part = match step {
                Step::Key(_) => true,
                Step::Index(_) => self.is_short_list(parent),
                Step::Within => false,
            };
            if may_be_part {
                parts.entry(parent).or_default().push(index);
            }
        }
        for (parent, parts) in parts {
            let named: Vec<(String, usize)> = (parts.into_iter())
                .map(|part| (self.part_name(part), part))
                .collect();
            for (averaged, group) in groups(named) {
                if group.len() < 2 {
                    continue;
                }
                let mut entries = BTreeMap::new();
                for (name, part) in group {
                    let set = &self.sets[part].1;
                    let bytes: usize = set.entries.keys().map(|own| name.len() + own.len()).sum();
                    let renamed: Vec<(String, Entry)> = (set.entries.iter())
                        .map(|(own, entry)| (format!("{name}.{own}"), entry.clone()))
                        .collect();
                    // Joining is optional, so exceeding a limit here is no error.
                    if self.charge(renamed.len(), bytes).is_err() {
                        return Ok(());
                    }
                    entries.extend(renamed);
                }
                let set = TensorSet {
                    key: self.key(parent),
                    entries,
                    module: None,
                    joined: true,
                    averaged_parts: averaged,
                };
                self.sets.push((parent, set));
            }
        }
        Ok(())
    }

    /// Whether a place is a list that may be one of a network's parts.
    fn is_short_list(&self, place: usize) -> bool {
        match self.values.get(self.places[place].value) {
            Value::List(items) | Value::Tuple(items) => items.len() <= MAX_LISTED,
            _ => false,
        }
    }

    /// The key of a part of a network.
    fn part_name(&self, part: usize) -> String {
        let (place, set) = &self.sets[part];
        if let Step::Key(key) = self.places[*place].step
            && let Value::Text(text) = self.values.get(key)
            && text.len() <= MAX_NAME
        {
            return (*text).to_owned();
        }
        set.key.rsplit('.').next().unwrap_or_default().to_owned()
    }
}

/// The parts of one network by their keys: all, or, if some are averages of others
/// (`features_ema` beside `features`), those and the others apart, the averages under the
/// names of the others and marked as such.
fn groups(parts: Vec<(String, usize)>) -> Vec<(bool, Vec<(String, usize)>)> {
    let names: BTreeSet<&str> = parts.iter().map(|part| &part.0[..]).collect();
    let twin = |name: &str| without_averaged(name).filter(|other| names.contains(&other[..]));
    let (averaged, plain): (Vec<_>, Vec<_>) =
        parts.iter().partition(|part| twin(&part.0).is_some());
    if averaged.is_empty() {
        return vec![(false, parts)];
    }
    let averaged = averaged
        .into_iter()
        .filter_map(|(name, part)| Some((twin(name)?, *part)));
    let averaged = averaged.collect();
    vec![
        (false, plain.into_iter().cloned().collect()),
        (true, averaged),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_of_parts_are_joined_with_each_other() {
        let parts = |names: &[&str]| {
            let numbered = names.iter().enumerate();
            groups(
                numbered
                    .map(|(part, name)| (name.to_string(), part))
                    .collect(),
            )
        };
        let named = |name: &str, part| (name.to_owned(), part);
        assert_eq!(
            parts(&["features", "classifier", "features_ema", "ema_classifier"]),
            [
                (false, vec![named("features", 0), named("classifier", 1)]),
                (true, vec![named("features", 2), named("classifier", 3)]),
            ]
        );
        // An average beside a part that is none of its kind belongs to the same network.
        for names in [&["model_ema", "head"][..], &["features", "classifier"]] {
            let all = names
                .iter()
                .enumerate()
                .map(|(part, name)| named(name, part));
            assert_eq!(parts(names), [(false, all.collect())]);
        }
    }
}
