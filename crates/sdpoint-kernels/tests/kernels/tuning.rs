//! Checks that the log entries named in `src/conv/tuning.rs` exist.

use std::path::Path;

/// The quoted texts in a source file's comments.
fn quoted(source: &str) -> Vec<String> {
    let comments: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("//"))
        .map(|comment| comment.trim_start_matches(['/', '!']).trim())
        .collect();
    let comments = comments.join(" ");
    let odd = comments.split('"').skip(1).step_by(2);
    odd.map(str::to_owned).collect()
}

#[test]
fn constants_name_entries_of_the_log() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let log = read("../../docs/performance.md").to_lowercase();
    let names = quoted(&read("src/conv/tuning.rs"));
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let row = format!("| {}", name.to_lowercase());
        assert!(log.contains(&row), "no entry begins with '{name}'");
    }
}
