//! How much room a text takes on a terminal: characters of East Asian scripts and most emoji take two places, marks
//! that stand on others none. Widths everywhere in [`super`] are counted so.

use unicode_width::UnicodeWidthChar;

/// How many places a text takes.
pub fn of(text: &str) -> usize {
    text.chars().map(of_one).sum()
}

fn of_one(c: char) -> usize {
    c.width().unwrap_or_default()
}

/// The longest beginning of a text that takes no more places than `width`.
pub fn cut(text: &str, width: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += of_one(*c);
        used > width
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// A text with spaces behind it, up to `width`.
pub fn to_the_left(text: &str, width: usize) -> String {
    format!("{text}{}", missing(text, width))
}

/// A text with spaces in front of it, up to `width`.
pub fn to_the_right(text: &str, width: usize) -> String {
    format!("{}{text}", missing(text, width))
}

fn missing(text: &str, width: usize) -> String {
    " ".repeat(width.saturating_sub(of(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_places_and_marks_on_others_none() {
        assert_eq!(["abc", "日本", "é", "e\u{301}", "👩", ""].map(of), [3, 4, 1, 1, 2, 0]);
    }

    #[test]
    fn a_text_is_cut_before_what_does_not_fit() {
        assert_eq!([4, 3, 2, 1, 0].map(|width| cut("日本語", width)), ["日本", "日", "日", "", ""]);
        assert_eq!(cut("abc", 9), "abc");
        assert_eq!(cut("e\u{301}a", 1), "e\u{301}", "a mark goes with its letter");
    }

    #[test]
    fn padding_counts_places() {
        assert_eq!((to_the_left("日", 4), to_the_right("日", 4)), ("日  ".into(), "  日".into()));
        assert_eq!(to_the_left("abc", 2), "abc");
    }
}
