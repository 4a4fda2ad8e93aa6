//! How long it takes to map the pages of a database, and to find the rows that may differ from another
//! state of it:
//!
//! ```text
//! cargo run --release -p sqlrsync-database --example touched -- OLD [NEW]
//! ```
//!
//! Both are copies of database files that nobody writes to. Pages are read from the page cache one by one;
//! what is printed as "pages read" is what a repository would be asked for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use roaring::RoaringBitmap;
use rusqlite::{Connection, OpenFlags};
use sqlrsync_database::btree::{ParentMap, Ranges, Roots, touched};
use sqlrsync_database::rows::Schema;
use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let old_path = args.next().ok_or("usage: touched OLD [NEW]")?;
    let mut old = OnDisk::open(Path::new(&old_path))?;
    let began = Instant::now();
    let mut parents = ParentMap::build(&mut old).map_err(text)?;
    println!("map made in {:?}, of {} MB", began.elapsed(), old.geometry.bytes() >> 20);
    let began = Instant::now();
    let blob = parents.encode();
    let bits = blob.len() as f64 * 8.0 / f64::from(old.geometry.page_count.get());
    println!("encoded in {:?}: {} bytes, {bits:.2} bits a page", began.elapsed(), blob.len());
    let Some(new_path) = args.next() else { return Ok(()) };
    let mut new = OnDisk::open(Path::new(&new_path))?;
    let changed = changed(&mut old, &mut new)?;
    println!("{} pages differ", changed.len());
    let changed = ChangedPages::Known(changed);
    let (roots_old, roots_new) = (roots(&old_path)?, roots(&new_path)?);
    (old.reads, new.reads) = (0, 0);
    let began = Instant::now();
    let roots = (&roots_old, &roots_new);
    let found = touched(&mut old, &mut new, &changed, &mut parents, roots).map_err(text)?;
    let took = began.elapsed();
    println!("rows found in {took:?}: pages read {} and {}, {:?}", old.reads, new.reads, found.read_more);
    for (table, ranges) in &found.tables {
        match ranges {
            Ranges::All => println!("{table}: any"),
            Ranges::Rowids(ranges) => println!("{table}: {} ranges of rowids", ranges.len()),
            Ranges::Keys(keys) => println!("{table}: {} keys", keys.len()),
        }
    }
    Ok(())
}

fn text(error: ContentError) -> String {
    error.to_string()
}

/// By comparing the bytes. A repository compares hashes.
fn changed(old: &mut OnDisk, new: &mut OnDisk) -> Result<RoaringBitmap, Failure> {
    if old.geometry.page_size != new.geometry.page_size {
        return Err("the page sizes differ".into());
    }
    let mut changed = RoaringBitmap::new();
    let len = old.geometry.page_size.bytes();
    let (mut page_old, mut page_new) = (vec![0; len], vec![0; len]);
    let counts = (old.geometry.page_count, new.geometry.page_count);
    for index in 0..counts.0.max(counts.1).get() {
        let Some(page) = PageNumber::from_index(index) else { break };
        if !counts.0.contains(page) || !counts.1.contains(page) {
            changed.insert(page.get());
            continue;
        }
        old.read(page, &mut page_old).map_err(text)?;
        new.read(page, &mut page_new).map_err(text)?;
        if page_old != page_new {
            changed.insert(page.get());
        }
    }
    Ok(changed)
}

fn roots(path: &str) -> Result<Roots, Failure> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let schema = Schema::read(&connection)?;
    Ok(Roots { tables: schema.table_roots(), indexes: schema.index_roots() })
}

/// A database file as a content.
struct OnDisk {
    file: File,
    geometry: Geometry,
    reads: u64,
}

impl OnDisk {
    fn open(path: &Path) -> Result<OnDisk, Failure> {
        let file = File::open(path)?;
        let mut header = [0; 18];
        file.read_exact_at(&mut header, 0)?;
        let size = u32::from(u16::from_be_bytes([header[16], header[17]]));
        let page_size = PageSize::from_bytes(if size == 1 { 65_536 } else { size }).ok_or("no database")?;
        let page_count = PageCount(u32::try_from(file.metadata()?.len() >> page_size.log2())?);
        Ok(OnDisk { file, geometry: Geometry { page_size, page_count }, reads: 0 })
    }
}

impl Content for OnDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        HeaderFields::default()
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        self.reads += 1;
        let at = page.offset(self.geometry.page_size);
        self.file.read_exact_at(into, at).map_err(|source| -> ContentError {
            Box::new(sqlrsync_database::Error::Io {
                doing: "reading a page",
                path: "the copy".into(),
                source,
            })
        })?;
        if page == PageNumber::FIRST {
            make_canonical(into);
        }
        Ok(())
    }
}
