//! Interpretation of a tree of class folders.
//!
//! `folder:` and `tar:` store the tree in different ways, which a [`Store`]
//! abstracts. Which folders are entered, which file is an image of which class,
//! and what is left out is decided here for both.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;

use crate::error::DataError;
use crate::folder::is_image;
use crate::left_out::LeftOut;
use crate::split::Split;

/// The most levels of folders.
const MAX_DEPTH: usize = 100;

/// Folders that programs create among images, besides those that start with a
/// dot: thumbnails and indices of Synology and QNAP, resource forks in archives
/// of macOS, recycle bins of Windows and network shares.
const HIDDEN: [&str; 7] = [
    "@eaDir",
    "@__thumb",
    "__MACOSX",
    "#recycle",
    "@Recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
];

/// A place where folders and files are.
pub(crate) trait Store {
    /// A folder.
    type Folder: Clone;
    /// A file.
    type File;
    /// The identity of a folder, for finding cycles.
    type Id: Eq + Hash;

    /// The entries of a folder, sorted by name.
    fn entries(&self, folder: &Self::Folder) -> Result<Vec<EntryOf<Self>>, DataError>;

    fn id(&self, folder: &Self::Folder) -> Self::Id;

    /// Whether `folder` is `outer` or lies in it.
    fn is_within(&self, folder: &Self::Folder, outer: &Self::Folder) -> bool;
}

/// A [`Store`]'s entry.
pub(crate) type EntryOf<S> = Entry<<S as Store>::Folder, <S as Store>::File>;

/// The kind of an entry; of a link, that of its target.
pub(crate) struct Entry<D, F> {
    pub name: String,
    pub linked: bool,
    pub kind: Kind<D, F>,
}

pub(crate) enum Kind<D, F> {
    Folder(D),
    File(F),
    /// A pipe, a socket or a device.
    Special,
    /// A link without a target, or a cycle of links.
    Broken,
    /// A link out of an archive.
    Outside,
}

/// Whether a file or folder is hidden.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
        || HIDDEN
            .iter()
            .any(|hidden| hidden.eq_ignore_ascii_case(name))
}

/// The name of a split that a folder's name is, in any case.
pub(crate) fn split_name(name: &str) -> Option<&'static str> {
    [Split::Train, Split::Test]
        .iter()
        .flat_map(|split| split.names())
        .copied()
        .find(|split| split.eq_ignore_ascii_case(name))
}

/// A step of a walk: a folder, or a file with its handle.
pub(crate) enum Met<F> {
    Folder,
    File(F),
}

/// Walks through everything below `root` in the order of names, and passes
/// folders and files to a function with their paths relative to it. Hidden
/// entries and special files are only counted. Links to folders are followed,
/// but each folder is entered at most once per top-level folder, so that cycles
/// end.
pub(crate) fn walk<S: Store>(
    store: &S,
    root: &S::Folder,
    left_out: &mut LeftOut,
    visit: &mut dyn FnMut(&str, Met<S::File>),
) -> Result<(), DataError> {
    Walk {
        store,
        left_out,
        visit,
        seen: HashSet::new(),
        path: String::new(),
    }
    .folder(root, 0)
}

struct Walk<'a, S: Store> {
    store: &'a S,
    left_out: &'a mut LeftOut,
    visit: &'a mut dyn FnMut(&str, Met<S::File>),
    /// Folders below the same folder of the root.
    seen: HashSet<S::Id>,
    path: String,
}

impl<S: Store> Walk<'_, S> {
    fn folder(&mut self, folder: &S::Folder, depth: usize) -> Result<(), DataError> {
        let parent = self.path.len();
        for entry in self.store.entries(folder)? {
            if depth == 0 {
                self.seen.clear();
            } else {
                self.path.push('/');
            }
            self.path.push_str(&entry.name);
            self.entry(folder, entry, depth)?;
            self.path.truncate(parent);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: &S::Folder,
        entry: EntryOf<S>,
        depth: usize,
    ) -> Result<(), DataError> {
        if is_hidden(&entry.name) {
            self.left_out.hidden.add(&self.path);
            return Ok(());
        }
        match entry.kind {
            Kind::File(file) => (self.visit)(&self.path, Met::File(file)),
            Kind::Special => self.left_out.special.add(&self.path),
            Kind::Broken => self.left_out.broken_links.add(&self.path),
            Kind::Outside => self.left_out.outside.add(&self.path),
            Kind::Folder(_) if depth >= MAX_DEPTH => self.left_out.deep.add(&self.path),
            Kind::Folder(folder) => {
                let circle = entry.linked && self.store.is_within(parent, &folder);
                if circle || !self.seen.insert(self.store.id(&folder)) {
                    self.left_out.repeated_folders.add(&self.path);
                } else {
                    (self.visit)(&self.path, Met::Folder);
                    self.folder(&folder, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

/// The images of a split by class.
pub(crate) struct ClassTree<F> {
    /// Every class folder, also those without images.
    pub classes: BTreeMap<String, Vec<F>>,
    pub left_out: LeftOut,
    /// Names of folders right inside the class folders.
    pub inner: BTreeSet<String>,
    /// Whether some class folder has an image of its own.
    direct: bool,
}

// Not derived: there is no need of `F: Default`.
impl<F> Default for ClassTree<F> {
    fn default() -> Self {
        Self {
            classes: BTreeMap::new(),
            left_out: LeftOut::default(),
            inner: BTreeSet::new(),
            direct: false,
        }
    }
}

impl<F> ClassTree<F> {
    /// The class folders in `root`.
    pub fn read<S: Store<File = F>>(store: &S, root: &S::Folder) -> Result<Self, DataError> {
        let mut tree = Self::default();
        let mut left_out = LeftOut::default();
        walk(store, root, &mut left_out, &mut |path, met| {
            tree.add(path, met);
        })?;
        left_out.merge(std::mem::take(&mut tree.left_out));
        tree.left_out = left_out;
        tree.remark();
        Ok(tree)
    }

    /// Adds an entry at a path relative to the split's folder. The first
    /// component is the class, if there are several.
    pub fn add(&mut self, path: &str, met: Met<F>) {
        let mut parts = path.split('/');
        let first = parts.next().unwrap_or_default();
        let name = parts.next_back();
        let inner = parts.next();
        match (met, name) {
            (Met::Folder, None) => {
                self.classes.entry(first.to_owned()).or_default();
            }
            (Met::Folder, Some(name)) => {
                if inner.is_none() {
                    self.inner.insert(name.to_owned());
                }
            }
            (Met::File(_), name) if !is_image(name.unwrap_or(first)) => {
                self.left_out.other_kind(name.unwrap_or(first));
            }
            (Met::File(_), None) => self.left_out.loose.add(path),
            (Met::File(file), Some(_)) => {
                self.direct |= inner.is_none();
                if inner.is_some() {
                    self.left_out.nested.add(path);
                }
                self.add_image(first, file);
            }
        }
    }

    /// Adds an image of a known class.
    pub fn add_image(&mut self, class: &str, file: F) {
        match self.classes.get_mut(class) {
            Some(files) => files.push(file),
            None => {
                self.classes.insert(class.to_owned(), vec![file]);
            }
        }
    }

    /// Adds the images of another tree of the same split.
    pub fn merge(&mut self, other: Self) {
        for (class, files) in other.classes {
            self.classes.entry(class).or_default().extend(files);
        }
        self.left_out.merge(other.left_out);
        self.inner.extend(other.inner);
        self.direct |= other.direct;
        self.remark();
    }

    /// The same tree of other values for the images.
    pub fn map<G>(self, mut change: impl FnMut(F) -> G) -> ClassTree<G> {
        let classes = self.classes.into_iter();
        ClassTree {
            classes: classes
                .map(|(class, files)| (class, files.into_iter().map(&mut change).collect()))
                .collect(),
            left_out: self.left_out,
            inner: self.inner,
            direct: self.direct,
        }
    }

    /// The number of classes with images.
    pub fn filled(&self) -> usize {
        self.classes.values().filter(|f| !f.is_empty()).count()
    }

    /// Names of the class folders without images.
    pub fn empty(&self) -> Vec<&str> {
        let empty = self.classes.iter().filter(|(_, files)| files.is_empty());
        empty.map(|(class, _)| class.as_str()).collect()
    }

    /// Folders inside class folders are worth a remark only where all images
    /// lie in some.
    fn remark(&mut self) {
        if self.direct {
            self.left_out.nested = Default::default();
        }
    }
}

/// Selects the folder or archive to read among those named like the split, in
/// order of preference: the first with at least two classes, or else the first.
/// The others are recorded as left out.
pub(crate) fn choose<F>(
    names: &[String],
    mut read: impl FnMut(usize) -> Result<ClassTree<F>, DataError>,
) -> Result<Option<(usize, ClassTree<F>)>, DataError> {
    let mut chosen: Option<(usize, ClassTree<F>)> = None;
    for index in 0..names.len() {
        let tree = read(index)?;
        if tree.filled() >= 2 || chosen.is_none() {
            let labelled = tree.filled() >= 2;
            chosen = Some((index, tree));
            if labelled {
                break;
            }
        }
    }
    if let Some((index, tree)) = &mut chosen
        && tree.filled() >= 2
    {
        tree.left_out.unlabelled = names[..*index].to_vec();
        tree.left_out.unused = names[*index + 1..].to_vec();
        names[*index].clone_into(&mut tree.left_out.taken);
    }
    Ok(chosen)
}
