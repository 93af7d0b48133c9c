//! Words for messages.

/// A number with its noun.
///
/// ```
/// use sdpoint_core::words::plural;
/// assert_eq!(plural(1, "class", "classes"), "1 class");
/// assert_eq!(plural(10, "class", "classes"), "10 classes");
/// ```
pub fn plural(number: usize, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{number} {noun}")
}
