//! Asking for a key, on a terminal only.

use std::io::IsTerminal;

use crate::error::Error;
use crate::plan::{Credential, KeySource, parse_key};

/// Asks for a key that may `push` or `pull` what is named. It is not shown while it is typed.
///
/// # Errors
/// [`Error::NoKey`] where there is no terminal to ask on, or nothing was typed; [`Error::BadKey`].
pub fn ask_for_key(verb: &'static str, what: &str) -> Result<Credential, Error> {
    let none = || Error::NoKey { verb, what: what.to_owned() };
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(none());
    }
    let text = rpassword::prompt_password(format!("Key to {verb} {what} with: ")).map_err(|_| none())?;
    if text.trim().is_empty() {
        return Err(none());
    }
    parse_key(&text, "the prompt", KeySource::Prompt)
}
