//! Words of a POSIX shell: quoting them for a shell, and reading them from a file that is never run.

/// Quotes a text so that a POSIX shell takes it for one word and nothing else (POSIX.1-2017, XCU 2.2.2).
/// Plain words stay as they are. A shell cannot carry a NUL; the caller has refused it.
pub fn quote(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/+@:,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    quote_always(text)
}

/// As [`quote`], in quotes also where none are needed.
pub fn quote_always(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The words of one line of shell, where the line is no more than words: plain, in single or double
/// quotes, with backslashes. `None` where a shell would do anything else with it: expand, substitute,
/// redirect, combine. `"$@"` alone is allowed, and stands for nothing.
pub fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_matches([' ', '\t', '\r']);
    while !rest.is_empty() {
        if let Some(after) =
            rest.strip_prefix("\"$@\"").filter(|after| after.is_empty() || after.starts_with([' ', '\t']))
        {
            rest = after.trim_start_matches([' ', '\t']);
            continue;
        }
        if rest.starts_with('#') {
            break;
        }
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after.trim_start_matches([' ', '\t']);
    }
    Some(words)
}

/// One word, and what stands behind it.
fn word(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut rest = text;
    loop {
        let mut characters = rest.chars();
        let Some(character) = characters.next() else { return Some((out, rest)) };
        match character {
            ' ' | '\t' => return Some((out, rest)),
            '\'' => {
                let (inside, after) = characters.as_str().split_once('\'')?;
                out.push_str(inside);
                rest = after;
            }
            '"' => rest = double_quoted(characters.as_str(), &mut out)?,
            '\\' => {
                out.push(characters.next().filter(|&next| next != '\n')?);
                rest = characters.as_str();
            }
            '$' | '`' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '{' | '}' | '*' | '?' | '[' | '!'
            | '\n' => {
                return None;
            }
            other => {
                out.push(other);
                rest = characters.as_str();
            }
        }
    }
}

/// The inside of double quotes up to the closing one; returns what stands behind it.
fn double_quoted<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(characters.as_str()),
            '$' | '`' => return None,
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => out.push(escaped),
                other => out.extend(['\\', other]),
            },
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const HOSTILE: [&str; 10] =
        ["", "a b", "it's", "\"x\"", "$(touch x)", "`x`", "-rf", "a\nb", "\\", "~/x;& *?[]{}!#|<>"];

    #[test]
    fn a_shell_gives_back_what_was_quoted() {
        for text in HOSTILE {
            let script = format!("printf %s {}", quote(text));
            let out = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), text);
        }
    }

    #[test]
    fn words_are_read_as_a_shell_reads_them() {
        for text in HOSTILE {
            let line = format!("  x {} --k=\"a b\" y\\ z \"$@\" # end", quote(text));
            // A line has no line feed of its own; inside quotes it may have.
            assert_eq!(words(&line).unwrap(), ["x", text, "--k=a b", "y z"], "{text:?}");
        }
    }

    #[test]
    fn a_line_that_would_do_more_than_name_words_is_not_read() {
        for line in [
            "a; b",
            "a && b",
            "a $(b)",
            "a \"$(b)\"",
            "a `b`",
            "a > b",
            "a $HOME",
            "a 'b",
            "a \"b",
            "a \"$@x\"",
            "a *",
        ] {
            assert_eq!(words(line), None, "{line:?}");
        }
    }
}
