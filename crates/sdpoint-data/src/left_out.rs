//! Report of what a data set contains besides images of classes.

use std::collections::BTreeMap;

use crate::names::quoted;

/// What was left out when a data set was opened, and why. None of it is an
/// error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Files that are not supported images, by lower-case extension; the empty
    /// string for none.
    pub other_kinds: BTreeMap<String, u64>,
    /// Members of WebDataset samples besides the image and the class, by what
    /// their names have after the key.
    pub in_samples: BTreeMap<String, u64>,
    /// Hidden files and folders. Of a folder, what it holds is not counted.
    pub hidden: Count,
    /// Images beside the class folders instead of in one.
    pub loose: Count,
    /// Pipes, sockets and devices.
    pub special: Count,
    /// Links whose target is missing, and cycles of links.
    pub broken_links: Count,
    /// Members of an archive that lead out of it: links, and paths with `..`.
    pub outside: Count,
    /// Members of an archive that unpacking would not create: those in a folder
    /// in place of which there is a file, and files in place of which there is a
    /// folder that is not empty.
    pub obstructed: Count,
    /// Links to a folder that contains them, or that was read already.
    pub repeated_folders: Count,
    /// Folders more than a hundred levels deep.
    pub deep: Count,
    /// Members of an archive in place of which a later one of the same path
    /// is read.
    pub replaced: Count,
    /// WebDataset samples that have a class but no image.
    pub without_image: Count,
    /// Folders of the split whose images are in no class folders, so that
    /// another of its names was taken.
    pub unlabelled: Vec<String>,
    /// Folders of the split that are not read because a preferred one is.
    pub unused: Vec<String>,
    /// The name that the split goes by, where there was a choice.
    pub taken: String,
    /// Not left out, but reported: images in subfolders of the class folders, if
    /// no class folder contains an image directly.
    pub nested: Count,
}

/// A number of files, and the name of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub number: u64,
    /// The first of them.
    pub example: String,
}

impl Count {
    pub(crate) fn add(&mut self, name: &str) {
        if self.number == 0 {
            name.clone_into(&mut self.example);
        }
        self.number += 1;
    }

    fn merge(&mut self, other: Count) {
        if self.number == 0 {
            self.example = other.example;
        }
        self.number += other.number;
    }
}

impl LeftOut {
    /// Counts a file that is not an image, by extension.
    pub(crate) fn other_kind(&mut self, name: &str) {
        let extension = name.rsplit_once('.').map_or("", |(_, end)| end);
        count(&mut self.other_kinds, &extension.to_lowercase());
    }

    /// Counts a member of a sample, by what its name has after the key.
    pub(crate) fn in_sample(&mut self, extension: &str) {
        count(&mut self.in_samples, extension);
    }

    pub(crate) fn merge(&mut self, other: LeftOut) {
        for (all, others) in [
            (&mut self.other_kinds, other.other_kinds),
            (&mut self.in_samples, other.in_samples),
        ] {
            for (extension, number) in others {
                *all.entry(extension).or_default() += number;
            }
        }
        self.hidden.merge(other.hidden);
        self.loose.merge(other.loose);
        self.special.merge(other.special);
        self.broken_links.merge(other.broken_links);
        self.outside.merge(other.outside);
        self.obstructed.merge(other.obstructed);
        self.repeated_folders.merge(other.repeated_folders);
        self.deep.merge(other.deep);
        self.replaced.merge(other.replaced);
        self.without_image.merge(other.without_image);
        self.nested.merge(other.nested);
    }

    /// The report, one line per kind; empty if every file is an image of a class.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kinds, one, many) in [
            (
                &self.other_kinds,
                "file of other kinds",
                "files of other kinds",
            ),
            (
                &self.in_samples,
                "member of a sample besides its image and class",
                "members of samples besides image and class",
            ),
        ] {
            match kinds.values().sum() {
                0 => {}
                1u64 => lines.push(format!("1 {one}: {}", listed(kinds))),
                total => lines.push(format!("{total} {many}: {}", listed(kinds))),
            }
        }
        for (count, one, many) in [
            (
                &self.hidden,
                "hidden file or folder",
                "hidden files and folders",
            ),
            (
                &self.loose,
                "image outside the class folders",
                "images outside the class folders",
            ),
            (
                &self.special,
                "pipe, socket or device",
                "pipes, sockets and devices",
            ),
            (
                &self.broken_links,
                "link without a target",
                "links without a target",
            ),
            (
                &self.outside,
                "member that leads out of its archive",
                "members that lead out of their archive",
            ),
            (
                &self.obstructed,
                "member that unpacking would not create, as another is in its place",
                "members that unpacking would not create, as others are in their place",
            ),
            (
                &self.repeated_folders,
                "link to a folder that contains it or was read already",
                "links to folders that contain them or were read already",
            ),
            (
                &self.deep,
                "folder more than a hundred levels deep",
                "folders more than a hundred levels deep",
            ),
            (
                &self.replaced,
                "member that a later one of the same path replaces",
                "members that later ones of the same path replace",
            ),
            (
                &self.without_image,
                "sample without an image",
                "samples without an image",
            ),
        ] {
            match count.number {
                0 => {}
                1 => lines.push(format!("1 {one}: `{}`", count.example)),
                number => lines.push(format!("{number} {many}, such as `{}`", count.example)),
            }
        }
        let taken = &self.taken;
        for (names, why) in [
            (&self.unlabelled, "whose images are in no class folders"),
            (&self.unused, "as there is another folder for the split"),
        ] {
            if !names.is_empty() {
                let names = quoted(names);
                lines.push(format!("{names}, {why}; `{taken}` is used"));
            }
        }
        lines
    }

    /// A remark on files that are read, but perhaps not as intended.
    pub fn remark(&self) -> Option<String> {
        (self.nested.number > 0).then(|| {
            format!(
                "all images are in folders inside the class folders, such as `{}`; the outer folder \
                 is the class",
                self.nested.example
            )
        })
    }
}

/// Counts an extension. Names are untrusted: keep only as much as a message needs.
fn count(kinds: &mut BTreeMap<String, u64>, extension: &str) {
    const KINDS: usize = 100;
    let short: String = extension.chars().take(16).collect();
    let known = kinds.len() < KINDS || kinds.contains_key(&short);
    let key = if known { short } else { "…".to_owned() };
    *kinds.entry(key).or_default() += 1;
}

/// `8 .txt, 3 .bmp, 1 without extension`, the most frequent first.
fn listed(kinds: &BTreeMap<String, u64>) -> String {
    const SHOWN: usize = 5;
    let mut kinds: Vec<_> = kinds.iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut shown: Vec<String> = kinds
        .iter()
        .take(SHOWN)
        .map(|(extension, number)| match extension.as_str() {
            "" => format!("{number} without extension"),
            extension => format!("{number} .{extension}"),
        })
        .collect();
    if kinds.len() > SHOWN {
        let more: u64 = kinds[SHOWN..].iter().map(|(_, number)| **number).sum();
        shown.push(format!("{more} others"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_for_each_reason() {
        let mut left_out = LeftOut::default();
        assert!(left_out.lines().is_empty());
        for name in ["a.txt", "b.TXT", "c.bmp", "README"] {
            left_out.other_kind(name);
        }
        left_out.hidden.add(".git");
        left_out.loose.add("x.jpg");
        left_out.loose.add("y.jpg");
        left_out.unlabelled.push("test".to_owned());
        left_out.taken = "val".to_owned();
        assert_eq!(
            left_out.lines(),
            [
                "4 files of other kinds: 2 .txt, 1 without extension, 1 .bmp",
                "1 hidden file or folder: `.git`",
                "2 images outside the class folders, such as `x.jpg`",
                "`test`, whose images are in no class folders; `val` is used",
            ]
        );
    }

    #[test]
    fn extensions_of_anyones_files_take_bounded_memory() {
        let mut left_out = LeftOut::default();
        for number in 0..1000 {
            left_out.other_kind(&format!("x.{number}{}", "y".repeat(100)));
        }
        assert!(left_out.other_kinds.len() <= 101);
        assert!(left_out.lines()[0].len() < 300, "{:?}", left_out.lines());
    }
}
