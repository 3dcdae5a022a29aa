//! Tokens, and the names that they make.

/// Bound of `tables`, `copies` and `sequences`.
pub(super) const MAX_OBJECTS: usize = 16_384;
/// Bound of every other list of the summary.
pub(super) const MAX_OTHERS: usize = 1024;

/// The name of a table or sequence, without quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema; empty when the dump does not name one.
    pub schema: String,
    /// The name within the schema.
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.schema.is_empty() {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name, without quotes.
    pub name: String,
    /// The words of its type and what follows them, such as `timestamp with time zone not null`; empty where the dump
    /// does not create the table.
    pub kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// An unquoted word in lower case, or a number.
    Word(String),
    /// A quoted identifier, unquoted.
    Ident(String),
    /// A string constant, unquoted.
    Str(String),
    Punct(u8),
    /// Something whose text is not known: a dollar quote, or a token that is too long.
    Other,
}

/// Adds to a list that has a bound.
pub(super) fn bounded<T>(list: &mut Vec<T>, item: T, bound: usize) {
    if list.len() < bound {
        list.push(item);
    }
}

/// The unquoted word at a position, else an empty string.
pub(super) fn word(tokens: &[Token], at: usize) -> &str {
    match tokens.get(at) {
        Some(Token::Word(word)) => word,
        _ => "",
    }
}

pub(super) fn name(tokens: &[Token], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some(Token::Word(name) | Token::Ident(name)) => Some(name),
        _ => None,
    }
}

/// `name` or `schema.name`, and the position after it.
pub(super) fn qualified_name(tokens: &[Token], at: usize) -> Option<(TableName, usize)> {
    let first = name(tokens, at)?.to_owned();
    if tokens.get(at + 1) == Some(&Token::Punct(b'.')) {
        let name = name(tokens, at + 2)?.to_owned();
        return Some((TableName { schema: first, name }, at + 3));
    }
    let schema = String::new();
    Some((TableName { schema, name: first }, at + 1))
}

/// The table of `COPY table [(columns)] FROM stdin ...`; none of any other COPY, which reads or writes elsewhere.
pub(super) fn copied_table(tokens: &[Token]) -> Option<TableName> {
    let (table, mut at) = qualified_name(tokens, 1)?;
    if let Some([Token::Punct(b'('), Token::Punct(b')')]) = tokens.get(at..at + 2) {
        at += 2;
    }
    (word(tokens, at) == "from" && word(tokens, at + 1) == "stdin").then_some(table)
}

/// Takes apart the text of a `regclass` constant, such as `public."Odd Name_id_seq"`.
pub(super) fn parse_qualified(text: &str) -> Option<TableName> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let part = parts.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ if quoted => part.push(c),
            _ => part.push(c.to_ascii_lowercase()),
        }
    }
    let name = parts.pop()?;
    let schema = parts.pop().unwrap_or_default();
    (!quoted && parts.is_empty() && !name.is_empty()).then_some(TableName { schema, name })
}

/// Whether a statement acts outside of the database that is connected to, by its first words: on another database, on
/// roles, on the server; or says something of one of these. COPY to and from files and programs is told by
/// [`copied_table`].
pub(super) fn outside(tokens: &[Token]) -> bool {
    match (word(tokens, 0), word(tokens, 1)) {
        // Mappings of users belong to the database.
        ("create" | "drop" | "alter", "user") => word(tokens, 2) != "mapping",
        ("create" | "drop" | "alter", "database" | "role" | "group" | "tablespace") | ("alter", "system") => true,
        // DROP OWNED and REASSIGN OWNED reach what the role has in common with other databases.
        ("drop" | "reassign", "owned") => true,
        // Without an object, it is a role that is granted.
        ("grant" | "revoke", _) => {
            shared_object(tokens).is_some() || !(0..tokens.len()).any(|at| word(tokens, at) == "on")
        }
        ("comment" | "security", _) => shared_object(tokens).is_some(),
        _ => false,
    }
}

/// Whether it says of a database, without creating it, what pg_dump before version 11 says of the one that it dumps.
pub(super) fn describes_database(tokens: &[Token]) -> bool {
    matches!(word(tokens, 0), "comment" | "security") && shared_object(tokens) == Some("database")
}

/// The kind of what a statement is `ON`, where all databases of the server have that in common. A table may be called
/// like the kind, and is then followed by no name.
fn shared_object(tokens: &[Token]) -> Option<&str> {
    const SHARED: [&str; 4] = ["database", "parameter", "role", "tablespace"];
    let at = (0..tokens.len()).find(|&at| word(tokens, at) == "on")? + 1;
    let is_named = name(tokens, at + 1).is_some() && !["to", "from", "is"].contains(&word(tokens, at + 1));
    Some(word(tokens, at)).filter(|kind| is_named && SHARED.contains(kind))
}
