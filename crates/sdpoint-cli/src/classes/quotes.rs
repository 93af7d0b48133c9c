//! Quotation marks around names, as in CSV.

use super::several_columns;
use crate::output::name as shown;

/// Names without the quotation marks around them; a pair of marks within these is a
/// single one. A name with a quoted part, `"Weird Al" Yankovic`, stays as it is.
pub(super) fn removed(names: Vec<&str>) -> Result<Vec<String>, String> {
    // Apostrophes are parts of names, unless all names are between two.
    if !names.is_empty() && names.iter().all(|name| in_apostrophes(name).is_some()) {
        let names = names.into_iter().filter_map(in_apostrophes);
        return Ok(names.map(str::to_owned).collect());
    }
    names.into_iter().map(name).collect()
}

fn name(text: &str) -> Result<String, String> {
    if !text.starts_with('"') {
        return Ok(text.to_owned());
    }
    let Some((name, rest)) = field(text) else {
        return Err(format!(
            "'{}' starts with a quotation mark that is not closed",
            shown(text)
        ));
    };
    match rest.trim_start() {
        "" if name.trim().is_empty() => Err("one of its names is empty".into()),
        "" => Ok(name.trim().to_owned()),
        rest if rest.starts_with([',', ';']) => Err(several_columns(text)),
        _ => Ok(text.to_owned()),
    }
}

/// The content of a field that starts with a quotation mark, and what follows it.
/// `None` if the field does not end.
pub(super) fn field(text: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let (part, behind) = rest.split_once('"')?;
        content.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                content.push('"');
                rest = more;
            }
            None => return Some((content, behind)),
        }
    }
}

fn in_apostrophes(name: &str) -> Option<&str> {
    let name = name.strip_prefix('\'')?.strip_suffix('\'')?;
    (!name.is_empty() && !name.contains('\'')).then_some(name)
}
