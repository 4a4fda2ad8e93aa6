//! Colour where there is a terminal that shows it, and how wide that is. Where there is no colour, whatever
//! colour says is also said by a mark.

use std::io::IsTerminal;

/// The narrowest terminal that anything is fitted to, in characters.
const WIDTH_MIN: usize = 40;

/// The width that rows are fitted to where there is no terminal.
pub const WIDTH_ELSEWHERE: usize = 120;

/// A colour or a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// Heavier: headings.
    Bold,
    /// Lighter: what is the same everywhere.
    Dim,
    /// New, or mine.
    Green,
    /// Gone.
    Red,
    /// Changed, or theirs.
    Yellow,
}

/// How things are shown on an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With colours.
    pub colour: bool,
    /// Into so many characters a line.
    pub width: usize,
    /// It is a terminal: a table that is wider would be broken.
    pub terminal: bool,
}

impl Style {
    /// What stdout is.
    pub fn of_stdout() -> Style {
        let out = std::io::stdout();
        if !out.is_terminal() {
            return Style { colour: false, width: WIDTH_ELSEWHERE, terminal: false };
        }
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let size = rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col));
        let width = size.filter(|columns| *columns > 0).unwrap_or(80).max(WIDTH_MIN);
        Style { colour: !set("NO_COLOR") && !dumb, width, terminal: true }
    }

    /// Plain, in lines of so many characters.
    pub const fn plain(width: usize) -> Style {
        Style { colour: false, width, terminal: true }
    }

    /// A text in a colour, where there is colour.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            _ if !self.colour || text.is_empty() => return text.to_owned(),
            Paint::Plain => return text.to_owned(),
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Green => 32,
            Paint::Red => 31,
            Paint::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_nothing_is_painted() {
        let text = |colour| Style { colour, ..Style::plain(80) }.paint(Paint::Green, "a");
        assert_eq!(text(false), "a");
        assert_eq!(text(true), "\x1b[32ma\x1b[0m");
    }
}
