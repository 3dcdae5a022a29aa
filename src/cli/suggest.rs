//! What may have been meant by a name that is not known.

/// What may have been meant by `word`: the names that it begins, else those within two edits; empty for none. Begins
/// with a comma, to end a message.
pub fn suggestion(word: &str, names: impl Iterator<Item = String>) -> String {
    // A dash, or two, begins every option.
    let begins = word.trim_start_matches('-').len() > 1;
    let (begun, others): (Vec<String>, Vec<String>) = names.partition(|name| begins && name.starts_with(word));
    let meant = match begun.is_empty() {
        true => others
            .into_iter()
            .filter(|name| edit_distance(word, name) <= 2)
            .collect(),
        false => begun,
    };
    match meant.is_empty() {
        true => String::new(),
        false => format!(", did you mean {}?", meant.join(" or ")),
    }
}

/// Levenshtein's distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
