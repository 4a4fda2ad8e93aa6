//! What becomes of a push that was made from an older version than the latest, by replica.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is done with such a push.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Its changes are put on the latest version where they do not overlap with those of others; where they
    /// do, it is kept as a conflict.
    #[default]
    Merge = 0,
    /// It fails, and is told the latest version.
    Reject = 1,
    /// It becomes the next version as it is; the others' changes stay in the versions before it.
    LatestWins = 2,
}

impl Rule {
    /// As it is typed and told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Rule::Merge => "merge",
            Rule::Reject => "reject",
            Rule::LatestWins => "latest-wins",
        }
    }

    const fn from_number(number: u8) -> Option<Rule> {
        match number {
            0 => Some(Rule::Merge),
            1 => Some(Rule::Reject),
            2 => Some(Rule::LatestWins),
            _ => None,
        }
    }
}

/// The rule, and what of merging is allowed that is not by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// The rule.
    pub rule: Rule,
    /// Two updates of one row that touch different columns are merged.
    pub cells: bool,
    /// Of two rows that were inserted under one generated key, the later one gets a new one.
    pub renumber: bool,
}

impl Policy {
    pub(super) fn from_columns(rule: u8, cells: bool, renumber: bool) -> Option<Policy> {
        Some(Policy { rule: Rule::from_number(rule)?, cells, renumber })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule.as_str())?;
        if self.cells {
            f.write_str(" --cells")?;
        }
        if self.renumber {
            f.write_str(" --renumber")?;
        }
        Ok(())
    }
}
