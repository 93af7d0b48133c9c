//! Every public item of the crates below is reachable by exactly one path.

use std::collections::BTreeMap;
use std::path::Path;

/// The names in the `pub use` declarations and the public modules of a source
/// file, except for glob imports and renamed crates.
fn exports(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let mut names = Vec::new();
    for declaration in code.split("pub use ").skip(1) {
        let (declaration, _) = declaration.split_once(';').unwrap();
        let list = match declaration.split_once('{') {
            Some((_, list)) => list.trim_end().trim_end_matches('}'),
            None => declaration.rsplit("::").next().unwrap(),
        };
        let list = list
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names.extend(
            list.filter(|name| !name.contains(" as "))
                .map(str::to_owned),
        );
    }
    for module in code.split("pub mod ").skip(1) {
        if let Some((name, rest)) = module.split_once(';')
            && !name.contains(|c: char| !c.is_alphanumeric())
        {
            let _ = rest;
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn every_item_has_one_path() {
    let mut paths: BTreeMap<String, usize> = BTreeMap::new();
    for name in exports("src/lib.rs") {
        *paths.entry(name).or_default() += 1;
    }
    for krate in ["core", "data", "engine"] {
        let names = exports(&format!("../sdpoint-{krate}/src/lib.rs"));
        assert!(names.len() > 20, "{krate}: {names:?}");
        for name in names {
            // Two crates have a limit of this name.
            let expected = if name == "MAX_SIDE" { 2 } else { 1 };
            assert_eq!(paths.get(&name), Some(&expected), "{krate}::{name}");
        }
    }
}
