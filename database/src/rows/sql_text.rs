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
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.find("*/").map_or("", |end| &comment[end + 2..]);
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
                self.rest = "";
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

/// The module of a virtual table, in lower case; `None` for the SQL of anything else.
pub(crate) fn module_of(sql: &str) -> Option<String> {
    let mut tokens = Tokens { rest: sql };
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
    for token in (Tokens { rest: sql }) {
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

/// Whether a text is a single literal: a number with or without a sign, a string, a blob, NULL, TRUE or
/// FALSE. Nothing else of a hostile schema is run.
pub(crate) fn is_literal(sql: &str) -> bool {
    let sql = sql.trim();
    if matches!(sql.to_ascii_lowercase().as_str(), "null" | "true" | "false") {
        return true;
    }
    if let Some(digits) = sql.strip_prefix(['x', 'X']).and_then(inside) {
        return digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    }
    if let Some(text) = inside(sql) {
        return !text.replace("''", "").contains('\'');
    }
    sql.strip_prefix(['+', '-']).unwrap_or(sql).parse::<f64>().is_ok_and(f64::is_finite)
        && sql.bytes().any(|byte| byte.is_ascii_digit())
}

/// What stands between single quotes.
fn inside(sql: &str) -> Option<&str> {
    sql.strip_prefix('\'')?.strip_suffix('\'')
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
    fn strict_counts_as_an_option_only() {
        assert!(is_strict("CREATE TABLE t(a INT) STRICT"));
        assert!(is_strict("CREATE TABLE t(a INT, PRIMARY KEY(a)) WITHOUT ROWID, strict -- )"));
        assert!(!is_strict("CREATE TABLE strict(strict INT, CHECK (strict > 1))"));
        assert!(!is_strict("CREATE TABLE t(a INT) /* STRICT */"));
        assert!(!is_strict("CREATE TABLE t(a INT DEFAULT ') STRICT')"));
    }

    #[test]
    fn literals_are_told_from_expressions() {
        for literal in ["1", "-1.5e3", "+2", "''", "'a''b'", "x'0aFF'", "NULL", "true"] {
            assert!(is_literal(literal), "{literal}");
        }
        for other in ["", "inf", "nan", "'a' || 'b'", "x'0'", "random()", "1); DROP", "current_time", "- 1"] {
            assert!(!is_literal(other), "{other}");
        }
    }
}
