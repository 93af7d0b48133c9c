//! A curve as one self-contained HTML file, drawn by the code of the page.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sdpoint::core::{CombinedRecord, Record};
use serde_json::json;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("style.css");

/// The modules, each after those that it imports.
const MODULES: [&str; 3] = [
    include_str!("draw.js"),
    include_str!("curve.js"),
    include_str!("report.js"),
];

/// The measured instances and combinations of a model, as an HTML file with a picture and a
/// table. It needs no server and no other file, and its content security policy allows no
/// other code than its own. `title` and `about` are shown as text.
pub fn report(title: &str, about: &str, records: &[Record], combined: &[CombinedRecord]) -> String {
    let most = records.iter().map(|record| record.macs).max().unwrap_or(0);
    let share = |macs: u64| macs as f64 / most.max(1) as f64;
    let instances = records.iter().map(|record| {
        json!({
            "name": record.instance.to_string(), "kind": "instance", "macs": record.macs,
            "share": share(record.macs), "top1": record.reported().map(|scores| scores.top1),
        })
    });
    let combinations = combined.iter().map(|record| {
        json!({
            "name": record.combination.to_string(), "kind": record.combination.kind(),
            "macs": record.macs, "share": share(record.macs), "top1": record.reported().top1,
        })
    });
    let rows: Vec<_> = instances.chain(combinations).collect();
    let data = json!({"title": title, "about": about, "rows": rows});
    // No text can end the element that contains it.
    let data = data.to_string().replace('<', "\\u003c");
    let script = bundle();
    let parts = [
        ("{style-hash}", hash(STYLE)),
        ("{script-hash}", hash(&script)),
        ("{style}", STYLE.to_owned()),
        ("{script}", script),
        ("{data}", data),
    ];
    fill(TEMPLATE, &parts)
}

/// Replaces the names of parts in a template, and nothing within the parts.
fn fill(template: &str, parts: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    loop {
        let next = parts
            .iter()
            .filter_map(|(name, part)| Some((rest.find(name)?, name, part)));
        let Some((at, name, part)) = next.min_by_key(|(at, ..)| *at) else {
            filled.push_str(rest);
            return filled;
        };
        filled.push_str(&rest[..at]);
        filled.push_str(part);
        rest = &rest[at + name.len()..];
    }
}

/// The modules as one, without their imports and exports.
fn bundle() -> String {
    let lines = MODULES.iter().flat_map(|module| module.lines());
    let own = lines.filter(|line| !line.starts_with("import "));
    let lines = own.map(|line| line.strip_prefix("export ").unwrap_or(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A hash as content security policies have it.
fn hash(content: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_report_leads_out_of_it() {
        let title = "</script><script>alert(1)</script><img src=x> {script} \u{2028}";
        let text = report(title, title, &[], &[]);
        assert_eq!(text.matches("</script>").count(), 2);
        assert!(!text.contains("<img"));
        let (_, data) = text.split_once("id=\"data\">").unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["title"], title);
        let text = report("title", "about", &[], &[]);
        for outside in ["http://", "https://", "src=", "href=", "url("] {
            let known = text.matches("http://www.w3.org/2000/svg").count();
            let found = text.matches(outside).count();
            let expected = if outside == "http://" { known } else { 0 };
            assert_eq!(found, expected, "{outside}");
        }
    }

    #[test]
    fn the_modules_become_one_script() {
        let script = bundle();
        for line in script.lines() {
            assert!(
                !line.starts_with("import") && !line.starts_with("export"),
                "{line}"
            );
        }
        let text = report("t", "a", &[], &[]);
        assert!(text.contains(&script) && text.contains(&hash(&script)));
        assert!(!text.contains("{style}") && text.contains(&hash(STYLE)));
    }
}
