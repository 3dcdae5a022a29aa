//! Names of files for workflows, whose own names people choose.

/// Bytes of a workflow's name, and of its ID, that are kept: with both, a name is well below the limits of file systems.
const MAX_NAME: usize = 80;
const MAX_ID: usize = 40;

/// A name without its suffix for the file of a workflow: made of its name and ID, of letters, digits, `-` and `_` only, so
/// that it has no meaning for a shell, a path or an operating system (`CON.txt` is a device to one).
pub fn file_name(name: &str, id: &str) -> String {
    let (name, id) = (part(name, MAX_NAME), part(id, MAX_ID));
    match name.is_empty() {
        true => format!("workflow-{id}"),
        false => format!("{name}-{id}"),
    }
}

fn part(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_alphanumeric() || c == '-' { c } else { '_' };
        // Also a run of what is replaced is one.
        if c == '_' && (out.is_empty() || out.ends_with('_')) {
            continue;
        }
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(c);
    }
    out.trim_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_on_any_file_system() {
        for (name, wanted) in [
            ("Invoices", "Invoices-id1"),
            ("../../etc/passwd", "etc_passwd-id1"),
            ("-rf", "rf-id1"),
            (".hidden", "hidden-id1"),
            ("CON", "CON-id1"),
            ("CON.txt", "CON_txt-id1"),
            ("a\n\tb\u{1b}[31m", "a_b_31m-id1"),
            ("\u{65e5}\u{672c} 1", "\u{65e5}\u{672c}_1-id1"),
            ("", "workflow-id1"),
            ("...", "workflow-id1"),
            ("a\u{202e}b", "a_b-id1"),
        ] {
            assert_eq!(file_name(name, "id1"), wanted);
        }
        assert_eq!(file_name(&"x".repeat(128), "id1").len(), MAX_NAME + 4);
        assert_eq!(file_name(&"\u{65e5}".repeat(128), "id1").len(), 78 + 4);
        assert_eq!(file_name("n", "../x"), "n-x");
    }
}
