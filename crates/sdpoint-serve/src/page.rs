//! The page at `/`: a few static files in the binary, which need no token. What they show
//! comes from the endpoints, which do.

mod report;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub use report::report;

/// A static file.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! file {
    ($name:literal, $kind:expr) => {
        File {
            path: concat!("/page/", $name),
            kind: $kind,
            text: include_str!(concat!("page/", $name)),
        }
    };
}

impl File {
    /// The text without what browsers do not need: indentation, lines of comments, and the
    /// spaces around the punctuation of style sheets. Lines stay where they are.
    fn served(&self) -> String {
        let mut in_comment = false;
        let lines = self.text.lines().map(|line| {
            let line = line.trim_start();
            let is_comment = in_comment || line.starts_with("/*") || line.starts_with("//");
            in_comment = (in_comment || line.starts_with("/*")) && !line.ends_with("*/");
            if is_comment { "" } else { line }
        });
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        if self.kind != STYLE {
            return text;
        }
        let short = [": ", "; ", ", ", " { ", " }"];
        short
            .iter()
            .fold(text, |text, spaced| text.replace(spaced, spaced.trim()))
    }
}

/// All files. Their sizes as served add up to less than 100 KB.
const FILES: [File; 11] = [
    File {
        path: "/",
        kind: "text/html; charset=utf-8",
        text: include_str!("page/index.html"),
    },
    file!("style.css", STYLE),
    file!("icon.svg", "image/svg+xml"),
    file!("main.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("picture.js", SCRIPT),
    file!("orientation.js", SCRIPT),
    file!("pane.js", SCRIPT),
    file!("load.js", SCRIPT),
    file!("curve.js", SCRIPT),
    file!("draw.js", SCRIPT),
];

/// Only files of this server, and nothing inline: a name that becomes markup cannot run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Whether a path is one of the page's files.
pub(crate) fn is_file(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

/// Whether a path is one of the page's files, or of what only the page needs.
pub(crate) fn shows(path: &str) -> bool {
    is_file(path) || path == "/models" || path.starts_with("/models/")
}

/// The routes of the files.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        router.route(file.path, get(async || respond(file)))
    })
}

fn respond(file: &'static File) -> Response {
    let headers: [(HeaderName, &str); 6] = [
        (header::CONTENT_TYPE, file.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new version of the server has new files under the same names.
        (header::CACHE_CONTROL, "no-cache"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(self), microphone=(), geolocation=()",
        ),
    ];
    (headers, file.served()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_small() {
        let bytes: usize = FILES.iter().map(|file| file.served().len()).sum();
        assert!(bytes < 100_000, "{bytes} bytes");
    }

    #[test]
    fn comments_and_spaces_are_left_out() {
        let served = |kind, text| {
            let path = "/";
            File { path, kind, text }.served()
        };
        let script = "// one\n/** two\n *  three */\nlet a = { b: 1 };\n  a; // four\n";
        assert_eq!(
            served(SCRIPT, script),
            "\n\n\nlet a = { b: 1 };\na; // four\n"
        );
        let style = "/* one */\na, b { top: 0; left: 1px; }\n";
        assert_eq!(served(STYLE, style), "\na,b{top:0;left:1px;}\n");
        for file in &FILES {
            let lines = file.text.lines().count();
            assert_eq!(file.served().lines().count(), lines, "{}", file.path);
        }
    }

    #[test]
    fn nothing_is_inline_or_from_elsewhere() {
        let index = FILES[0].text;
        for forbidden in ["<style", " style=", "onclick=", "javascript:"] {
            assert!(!index.contains(forbidden), "{forbidden}");
        }
        assert_eq!(
            index.matches("<script").count(),
            index
                .matches("<script type=\"module\" src=\"/page/")
                .count()
        );
        for file in &FILES {
            let text = file.text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "eval(",
            ] {
                assert!(!text.contains(forbidden), "{forbidden} in {}", file.path);
            }
        }
    }
}
