//! SQL as text: quoting names, and the little that must be known of a CREATE statement that no pragma tells
//! without running a virtual table's code.

/// A name as an identifier: in double quotes, with those in it doubled. The one place where that is done.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A token of SQL, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A word that is not quoted.
    Word(&'a str),
    /// A quoted name or string, quotes taken off.
    Quoted(String),
    /// Any other character.
    Mark(char),
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn into_name(self) -> Option<String> {
        match self {
            Token::Word(word) => Some(word.to_owned()),
            Token::Quoted(name) => Some(name),
            Token::Mark(_) => None,
        }
    }
}

/// The tokens of a text, without blanks and comments. What is cut off within a quote ends it.
struct Tokens<'a> {
    rest: &'a str,
    /// Whether the text ended within a quote or a comment.
    left_open: bool,
}

impl<'a> Tokens<'a> {
    const fn of(sql: &'a str) -> Tokens<'a> {
        Tokens { rest: sql, left_open: false }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let end = comment.find("*/");
                self.left_open |= end.is_none();
                self.rest = end.map_or("", |end| &comment[end + 2..]);
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        let closing = match first {
            '"' | '\'' | '`' => Some(first),
            '[' => Some(']'),
            _ => None,
        };
        if let Some(closing) = closing {
            return Some(Token::Quoted(self.quoted(closing)));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        let len = self.rest.find(|c| !word(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(if len == 0 { first.len_utf8() } else { len });
        self.rest = rest;
        Some(if len == 0 { Token::Mark(first) } else { Token::Word(taken) })
    }
}

impl Tokens<'_> {
    /// What stands up to the closing quote; doubled it stands for itself, but for a bracket.
    fn quoted(&mut self, closing: char) -> String {
        let mut name = String::new();
        let mut rest = &self.rest[1..];
        loop {
            let Some(end) = rest.find(closing) else {
                name.push_str(rest);
                (self.rest, self.left_open) = ("", true);
                return name;
            };
            name.push_str(&rest[..end]);
            rest = &rest[end + closing.len_utf8()..];
            if closing == ']' || !rest.starts_with(closing) {
                self.rest = rest;
                return name;
            }
            name.push(closing);
            rest = &rest[1..];
        }
    }
}

/// All that could be a name in a statement: words, and what stands in quotes.
pub(crate) fn names_in(sql: &str) -> impl Iterator<Item = String> {
    Tokens::of(sql).filter_map(Token::into_name)
}

/// The module of a virtual table, in lower case; `None` for the SQL of anything else.
pub(crate) fn module_of(sql: &str) -> Option<String> {
    let mut tokens = Tokens::of(sql);
    if !tokens.next()?.is("create") || !tokens.next()?.is("virtual") {
        return None;
    }
    let mut tokens = tokens.skip_while(|token| !token.is("using"));
    tokens.next();
    // A virtual table whose module cannot be read is one all the same.
    Some(tokens.next().and_then(Token::into_name).unwrap_or_default().to_ascii_lowercase())
}

/// Whether a CREATE TABLE ends with the option STRICT.
pub(crate) fn is_strict(sql: &str) -> bool {
    let mut depth = 0_usize;
    let mut strict = false;
    for token in Tokens::of(sql) {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => {
                depth = depth.saturating_sub(1);
                // What was before the last list of columns is no option.
                strict = false;
            }
            token => strict |= depth == 0 && token.is("strict"),
        }
    }
    strict
}

/// Whether the SQL of a default, as SQLite tells it, is a literal: a number with or without a sign, a string,
/// a blob, NULL, TRUE or FALSE, or a bare word or a name in double quotes, which are strings there. Nothing
/// else of a hostile schema is run.
pub(crate) fn is_literal(sql: &str) -> bool {
    let sql = sql.trim();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if sql.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && sql.chars().all(word) {
        // CURRENT_TIME and the like are another at each look.
        return !sql.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("current_"));
    }
    if let Some(digits) = sql.strip_prefix(['x', 'X']).and_then(|sql| inside(sql, '\'')) {
        return digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    }
    for quote in ['\'', '"'] {
        if let Some(text) = inside(sql, quote) {
            return !text.replace(&format!("{quote}{quote}"), "").contains(quote);
        }
    }
    let number = sql.strip_prefix(['+', '-']).unwrap_or(sql).trim_start();
    if let Some(digits) = number.strip_prefix("0x").or(number.strip_prefix("0X")) {
        return (1..=16).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    }
    // A second sign would be the beginning of a comment.
    number.starts_with(|c: char| c.is_ascii_digit() || c == '.') && number.parse::<f64>().is_ok()
}

/// Whether a text from `sqlite_schema` is one statement and nothing else, so that it can stand in a script
/// before others. SQLite reads no further than the first statement's end, so a hostile file may have any
/// other behind it; and a comment that is left open would take in what follows.
pub(crate) fn is_one_statement(sql: &str, trigger: bool) -> bool {
    if sql.contains('\0') {
        return false;
    }
    let mut tokens = Tokens::of(sql);
    let mut last = Token::Mark(' ');
    let mut ended = false;
    for token in tokens.by_ref() {
        if ended && token != Token::Mark(';') {
            return false;
        }
        // A trigger ends with the first END that follows a semicolon; all else with a semicolon.
        ended |= match trigger {
            true => token.is("end") && last == Token::Mark(';'),
            false => token == Token::Mark(';'),
        };
        last = token;
    }
    (ended || !trigger) && !tokens.left_open
}

/// What has to follow a statement so that another can: a semicolon, where its last token is none. SQLite keeps what
/// stands before it; one in a comment ends nothing, and a comment at the end would take one in.
pub(crate) fn end_of(statement: &str) -> &'static str {
    if Tokens::of(statement).last() == Some(Token::Mark(';')) {
        return "\n";
    }
    let last_line = statement.rsplit('\n').next().unwrap_or_default();
    if last_line.contains("--") { "\n;\n" } else { ";\n" }
}

/// What stands between two quotes.
fn inside(sql: &str, quote: char) -> Option<&str> {
    sql.strip_prefix(quote)?.strip_suffix(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_whatever_is_in_it() {
        assert_eq!(quoted("a"), "\"a\"");
        assert_eq!(quoted("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    }

    #[test]
    fn a_statement_ends_with_its_own_semicolon_and_not_with_that_of_a_comment() {
        for ended in ["CREATE TABLE t(a);", "CREATE TABLE t(a); -- end", "CREATE TABLE t(a) ; /* end */\n"] {
            assert_eq!(end_of(ended), "\n", "{ended}");
        }
        for commented in ["CREATE TABLE t(a)--; ", "CREATE TABLE t(a -- x\n) -- z;", "SELECT '--'"] {
            assert_eq!(end_of(commented), "\n;\n", "{commented}");
        }
        for open in
            ["CREATE TABLE t(a)", "CREATE TABLE t(a -- x;\n)", "CREATE TABLE t(a) /* ; */", "SELECT ';'"]
        {
            assert_eq!(end_of(open), ";\n", "{open}");
        }
    }

    #[test]
    fn the_module_of_a_virtual_table_is_found() {
        let cases = [
            ("CREATE VIRTUAL TABLE a USING fts5(x)", Some("fts5")),
            ("create /* no */ virtual table \"using\" -- x\n using [FTS4]", Some("fts4")),
            ("CREATE VIRTUAL TABLE a", Some("")),
            ("CREATE TABLE virtual(x)", None),
            ("", None),
        ];
        for (sql, module) in cases {
            assert_eq!(module_of(sql).as_deref(), module, "{sql}");
        }
    }

    #[test]
    fn names_are_found_however_they_are_quoted_and_not_in_comments() {
        let names: Vec<_> =
            names_in("INSERT INTO main.[a b](\"x\", `y`) /* z */ VALUES (1, 's') -- t").collect();
        assert_eq!(names, ["INSERT", "INTO", "main", "a b", "x", "y", "VALUES", "1", "s"]);
    }

    #[test]
    fn strict_counts_as_an_option_only() {
        assert!(is_strict("CREATE TABLE t(a INT) STRICT"));
        assert!(is_strict("CREATE TABLE t(a INT, PRIMARY KEY(a)) WITHOUT ROWID, strict -- )"));
        assert!(!is_strict("CREATE TABLE strict(strict INT, CHECK (strict > 1))"));
        assert!(!is_strict("CREATE TABLE t(a INT) /* STRICT */"));
        assert!(!is_strict("CREATE TABLE t(a INT DEFAULT ') STRICT')"));
    }

    #[test]
    fn literals_are_told_from_expressions() {
        let literals = [
            "1", "-1.5e3", "+ 2", ".5", "''", "'a''b'", "x'0aFF'", "NULL", "true", "0xff", "-0x1", "word",
            "\"a b\"",
        ];
        for literal in literals {
            assert!(is_literal(literal), "{literal}");
        }
        let others = [
            "",
            "'a' || 'b'",
            "x'0'",
            "random()",
            "1); DROP",
            "current_time",
            "CURRENT_TIMESTAMP",
            "--1",
            "+-1",
            "1e",
            "0x",
            "'''",
            "\"a\" || \"b\"",
            "a.b",
            "é",
        ];
        for other in others {
            assert!(!is_literal(other), "{other}");
        }
    }

    #[test]
    fn what_a_hostile_schema_has_behind_a_statement_is_found() {
        let trigger = "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END";
        for (sql, is_trigger) in [
            ("CREATE TABLE t(a DEFAULT ';') -- ;", false),
            ("CREATE VIEW v AS SELECT 1;", false),
            (trigger, true),
        ] {
            assert!(is_one_statement(sql, is_trigger), "{sql}");
        }
        let hidden = [
            ("CREATE TABLE t(a); DROP TABLE u".to_owned(), false),
            ("CREATE TABLE t(a) /* open".into(), false),
            ("CREATE TABLE t(a) \0 ;".into(), false),
            (format!("{trigger}; DROP TABLE t; SELECT 1; END"), true),
            ("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1".into(), true),
        ];
        for (sql, is_trigger) in hidden {
            assert!(!is_one_statement(&sql, is_trigger), "{sql}");
        }
    }
}
