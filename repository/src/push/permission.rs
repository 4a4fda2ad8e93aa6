//! Whether a push may still be committed, asked when everything else is done: a push can take hours,
//! and who let it in may have changed their mind.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// A question that is asked right before a version is created. The default is that it may be.
#[derive(Clone, Default)]
pub struct Permission(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Permission {
    /// `ask` says whether the version may be made. It is called on the thread of the push and may block.
    pub fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Permission {
        Permission(Some(Arc::new(ask)))
    }

    pub(super) fn ask(&self) -> Result<(), Error> {
        match &self.0 {
            Some(ask) if !ask() => Err(Error::Withdrawn),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Permission(asked)" } else { "Permission(given)" })
    }
}
