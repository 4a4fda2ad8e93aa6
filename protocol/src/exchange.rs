//! What a conversation asks of the two things it stands between: one that has pages and one that
//! takes them. A live file, a version in a repository, a new file and a push into a repository each
//! implement one of the two traits; the conversations know none of them.
//!
//! All calls block, on a thread of their own where need be. The order of the calls is written above
//! each trait and is kept by the conversation, whatever the peer sends.

use roaring::RoaringBitmap;

use crate::block::Block;
use crate::canonical::HeaderFields;
use crate::hash::{PageHash, Root};
use crate::page::{ConflictNumber, Geometry, PageCount, PageNumber, VersionNumber};
use crate::sponge::Hash20;
use crate::tree::NodeId;

/// A content that both sides may know: the base of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// Its number in the repository; `None` where only the content is known.
    pub version: Option<VersionNumber>,
    /// What it hashes to.
    pub root: Root,
}

/// Chosen by who pushes, and stored there before a byte is sent: a push repeated after a lost answer
/// is recognised by it and makes no second version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PushId(pub [u8; 16]);

/// What the pages sent are to be a difference to.
#[derive(Clone, Debug)]
pub enum Since {
    /// Nothing: every page is sent.
    Nothing,
    /// A base that [`OriginPages::knows`] or the replica accepted: what changed since is sent.
    Base(Base),
    /// What the hash rounds found: these pages are sent, every page past `held` pages, and whatever
    /// changed in the origin since it answered the hash rounds.
    Compared {
        /// Pages known to differ.
        differing: RoaringBitmap,
        /// How many pages were compared: as many as both sides had.
        held: PageCount,
    },
}

/// What the pages sent are a difference to, as [`ReplicaPages::accept`] is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    /// To nothing: every page comes.
    Nothing {
        /// Whether the origin knows the content that [`ReplicaPages::begin`] named for one of its
        /// own (and sends everything for another reason, such as another page size). False where
        /// `begin` named none.
        recognised: bool,
    },
    /// To what [`ReplicaPages::begin`] named, which the origin knows for one of its own.
    Held,
    /// To the base that the origin last agreed on, which is not what `begin` named.
    Proposed(Base),
    /// To what is there, which the origin does not know: hashes were compared. A replica that must
    /// not lose changes of its own refuses here. Versions 1 and 2 always end up here unless there
    /// was nothing.
    Compared,
}

/// A block that an earlier, cut push left with the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedBlock {
    /// Its pages, ascending, as runs of first page and length.
    pub runs: Vec<(PageNumber, u16)>,
    /// [`staged_hash`] of its pages' hashes.
    pub hash: PageHash,
}

/// What a [`StagedBlock`] hashes to: BLAKE3 over its pages' hashes in order.
pub fn staged_hash<'a>(pages: impl IntoIterator<Item = &'a PageHash>) -> PageHash {
    let mut hasher = blake3::Hasher::new_derive_key("sqlrsync 2026 staged block");
    for page in pages {
        hasher.update(&page.0);
    }
    PageHash(*hasher.finalize().as_bytes())
}

/// The form in which the pages are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Single pages as they are in the file, through [`OriginPages::next_page`] (versions 1 and 2).
    Pages,
    /// Blocks of canonical pages, through [`OriginPages::next_block`] (version 3).
    Blocks,
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What the replica has.
    pub since: Since,
    /// What a cut push left there.
    pub staged: Vec<StagedBlock>,
    /// In which form.
    pub form: Form,
}

/// What the origin says when all pages are out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proof {
    /// Pages of the whole.
    pub page_count: PageCount,
    /// What the whole hashes to. In versions 1 and 2 it does not travel.
    pub root: Root,
    /// What canonical page 1 leaves out.
    pub fields: HeaderFields,
}

/// Something that has pages.
///
/// ```text
/// geometry → base → push_id → ( group_hash* | knows? , node* )
///          → begin → ( next_page* | reused, pages_to_send, next_block* ) → proof → acknowledged
/// ```
pub trait OriginPages {
    /// Why it cannot; says itself what the peer is told.
    type Error: Fault;

    /// Page size and count as far as known before the exchange of hashes.
    fn geometry(&mut self) -> Result<Geometry, Self::Error>;

    /// The base that this side last agreed on with the replica; version 3 proposes it.
    fn base(&mut self) -> Result<Option<Base>, Self::Error>;

    /// The id that the replica is to commit under; `None` where the origin is no pusher.
    fn push_id(&mut self) -> Result<Option<PushId>, Self::Error>;

    /// Whether it can tell what changed since a content that the replica says it has. Asked for the
    /// replica's own content, and so also how "nothing changed" is found.
    fn knows(&mut self, base: &Base) -> Result<bool, Self::Error>;

    /// The hash that versions 1 and 2 compare: of one page, or of the hashes of a group of `count`
    /// (1 or more). A page that does not exist adds nothing, the lock page counts as zeros, page 1 is
    /// as it is in the file.
    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Self::Error>;

    /// The children of a node of the page tree; empty where it has no such node. Of a live file that is the tree of
    /// one state, which may have another number of pages than [`OriginPages::geometry`] said before.
    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Self::Error>;

    /// Fixes the image that is sent from here on.
    fn begin(&mut self, wanted: Wanted) -> Result<(), Self::Error>;

    /// Which of the staged blocks are, whole, what would be sent: their places in [`Wanted::staged`].
    /// Version 3, once, before the first block, where [`Wanted::staged`] is not empty.
    fn reused(&mut self) -> Result<Vec<u32>, Self::Error>;

    /// How many pages will be sent, where that is known once `begin` has run: for progress bars on
    /// both sides, and nothing else.
    fn pages_to_send(&mut self) -> Result<Option<u32>, Self::Error> {
        Ok(None)
    }

    /// The next page, ascending, put into `page` (one page long), with the header fields as in the
    /// file; `None` after the last. The lock page is never given. [`Form::Pages`] only.
    fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, Self::Error>;

    /// The next block, ascending; `None` after the last. [`Form::Blocks`] only.
    fn next_block(&mut self) -> Result<Option<Block>, Self::Error>;

    /// After the last page or block.
    fn proof(&mut self) -> Result<Proof, Self::Error>;

    /// The replica has it: committed as that version, where it keeps versions. Version 3 only;
    /// the older ones end without an answer.
    fn acknowledged(&mut self, committed: Committed) -> Result<(), Self::Error>;
}

/// What a replica has when a conversation begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// `None` where there is nothing yet.
    pub geometry: Option<Geometry>,
    /// Version (where known) and root of what it has; `None` where there is nothing, or the version
    /// spoken has no use for it.
    pub base: Option<Base>,
}

/// What ends a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Versions 1 and 2: the page count, nothing to prove it by.
    PageCount(PageCount),
    /// Version 3.
    Proof(Proof),
}

/// How a transfer ended at the replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Committed {
    /// The version that holds the content, where the replica keeps versions.
    pub version: Option<VersionNumber>,
    /// Nothing changed: the version is one that was there before.
    pub unchanged: bool,
    /// The base was not the latest version; the content went on top of it all the same.
    pub overtook: bool,
    /// The base was not the latest version; the version holds the changes of both sides, and so is not the
    /// content that was sent.
    pub merged: bool,
    /// The content is kept and no version was made of it: its changes overlap with those of others. The
    /// number of the conflict that waits to be settled.
    pub conflict: Option<ConflictNumber>,
}

impl Committed {
    /// Whether the version, if any, holds the very content that was sent.
    pub fn as_sent(&self) -> bool {
        !self.merged && self.conflict.is_none()
    }
}

/// Something that takes pages.
///
/// ```text
/// begin → staged → ( group_hash* | node* ) → accept* → reuse → ( take_page* | take_block* ) → finish
/// ```
///
/// Dropped before `finish`, it has changed nothing (and keeps, if it can, what a later push may reuse).
pub trait ReplicaPages {
    /// Why it cannot; says itself what the peer is told.
    type Error: Fault;

    /// Says what is there. `version` is the protocol version agreed on (1 to 3). A page size that it
    /// cannot take is an error here.
    fn begin(&mut self, origin: Geometry, version: u8) -> Result<Held, Self::Error>;

    /// What a cut push left. Version 3, once.
    fn staged(&mut self) -> Result<Vec<StagedBlock>, Self::Error>;

    /// As [`OriginPages::group_hash`], of what the replica has.
    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Self::Error>;

    /// As [`OriginPages::node`], of what the replica has.
    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Self::Error>;

    /// What the pages that follow are a difference to. False, for [`Ground::Proposed`] only, where
    /// it does not have that base; the origin then finds another ground, and this is called again.
    /// It comes before the first page or block: an error here is the way to refuse what would be lost.
    fn accept(&mut self, ground: Ground, push: Option<PushId>) -> Result<bool, Self::Error>;

    /// Takes these of the staged blocks for pages received: places in what
    /// [`ReplicaPages::staged`] gave, ascending. Once, where that was not empty.
    fn reuse(&mut self, staged: &[u32]) -> Result<(), Self::Error>;

    /// A page as it is in the origin's file. In no particular order; the last one given counts.
    fn take_page(&mut self, number: PageNumber, page: &[u8]) -> Result<(), Self::Error>;

    /// A block of canonical pages. Blocks come in ascending order.
    fn take_block(&mut self, block: Block) -> Result<(), Self::Error>;

    /// All pages are there: prove, then commit or apply. An error here has changed nothing.
    fn finish(&mut self, end: End) -> Result<Committed, Self::Error>;
}

/// What kind of refusal an error is: whose fault, and what the other side can do about it. Travels in
/// version 3, and becomes an exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// This side failed: a disk, a bug. Exit 1.
    Failed = 1,
    /// The peer sent what it may not send. Exit 1.
    Invalid = 2,
    /// A conflict waits to be settled. Exit 3.
    Conflict = 3,
    /// The key does not allow it. Exit 4.
    NotAllowed = 4,
    /// Busy, or a limit: try again later. Exit 5.
    TryLater = 5,
    /// This side wants none of it, and what it has is as it was: a dry run, or changes of its own that would be
    /// lost. Exit 1.
    NotWanted = 6,
    /// No such replica or version. Exit 10.
    NotFound = 10,
    /// What arrived, or what is stored, is not what it should be. Exit 12.
    Integrity = 12,
}

impl Refusal {
    /// From its number on the wire; what is not known counts as [`Refusal::Failed`].
    pub const fn from_u8(code: u8) -> Refusal {
        match code {
            2 => Refusal::Invalid,
            3 => Refusal::Conflict,
            4 => Refusal::NotAllowed,
            5 => Refusal::TryLater,
            6 => Refusal::NotWanted,
            10 => Refusal::NotFound,
            12 => Refusal::Integrity,
            _ => Refusal::Failed,
        }
    }

    /// The exit code of a program that ends with it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Refusal::Failed | Refusal::Invalid | Refusal::NotWanted => 1,
            other => other as u8,
        }
    }
}

/// An error that knows what the peer may be told of it.
pub trait Fault: std::error::Error + Send + Sync + 'static {
    /// Its kind.
    fn refusal(&self) -> Refusal;

    /// One line for the peer, without anything that is not the peer's business (paths, keys).
    fn public_text(&self) -> String;
}
