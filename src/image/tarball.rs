//! Reading a tar stream: ustar, GNU and PAX, with long names, extended
//! attributes and sparse files of all four kinds.
//!
//! The `tar` crate reads each header; what belongs together is put together
//! here, since its own iterator puts no limit to extended headers, does not
//! know PAX sparse files, and fills holes with zeros.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::Limits;
use super::sparse::{self, Segment};

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Folder,
    Fifo,
    CharacterDevice,
    BlockDevice,
    /// Something that this format does not know.
    Other(u8),
}

/// An entry with all its headers put together.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    /// Apparent size of the file.
    pub(super) size: u64,
    /// Extended attributes.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where data is in a sparse file, in order.
    pub(super) segments: Option<Vec<Segment>>,
}

impl Member {
    pub(super) fn is_sparse(&self) -> bool {
        self.segments.is_some()
    }

    /// The file's data in order, as (offset, length).
    pub(super) fn data(&self) -> Vec<Segment> {
        self.segments.clone().unwrap_or_else(|| vec![Segment { offset: 0, length: self.size }])
    }
}

/// A tar stream.
pub(super) struct Tarball<R> {
    reader: R,
    limits: Limits,
    position: u64,
    /// Bytes of the current entry not read yet, and its padding.
    left: u64,
    padding: u64,
    /// PAX records that hold for all entries that follow.
    global: Records,
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What headers in front of an entry say about it.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
    /// `GNU.sparse.offset` and `.numbytes`, which come many times.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Tarball<R> {
    pub(super) fn new(reader: R, limits: Limits) -> Self {
        Self { reader, limits, position: 0, left: 0, padding: 0, global: Records::new() }
    }

    /// Where the next byte comes from.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Gives back the stream.
    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// The next entry; the rest of the one before is passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        self.advance(Self::discard)
    }

    /// Reads data of the current entry.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.reader.read(&mut buffer[..room])?;
        if length == 0 && room > 0 {
            return Err(bad("the archive ends within an entry"));
        }
        self.left -= length as u64;
        self.position += length as u64;
        Ok(length)
    }

    /// Goes to the next entry; `pass` gets rid of this many bytes.
    fn advance(
        &mut self,
        pass: fn(&mut Self, u64) -> io::Result<()>,
    ) -> io::Result<Option<Member>> {
        let mut extended = Extended::default();
        loop {
            let rest = self.left + self.padding;
            (self.left, self.padding) = (0, 0);
            pass(self, rest)?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size()?;
            self.expect(size);
            match header.entry_type() {
                EntryType::GNULongName => extended.name = Some(self.text()?),
                EntryType::GNULongLink => extended.link = Some(self.text()?),
                EntryType::XHeader => {
                    let bytes = self.small()?;
                    extended.read(&bytes)?;
                }
                EntryType::XGlobalHeader => {
                    let bytes = self.small()?;
                    let mut all = Extended::default();
                    all.read(&bytes)?;
                    self.global.append(&mut all.records);
                    if self.global.len() > 1000 {
                        return Err(bad("there are too many global records"));
                    }
                }
                _ => return self.member(&header, extended).map(Some),
            }
        }
    }

    /// Says how long the entry that begins here is.
    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// A header, or nothing at the end: at a block of zeros, or where the
    /// stream ends between two entries.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0_u8; BLOCK];
        if !self.block(&mut block)? || block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // The checksum counts itself as blanks.
        let sum = |byte: u8| u32::from(byte);
        let outside = block[..148].iter().chain(&block[156..]);
        let found: u32 = outside.copied().map(sum).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(found) {
            return Err(bad("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Reads one block; false at the end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(bad("the archive ends within a header")),
                length => filled += length,
            }
        }
        self.position += BLOCK as u64;
        Ok(true)
    }

    /// The whole of a small entry.
    fn small(&mut self) -> io::Result<Vec<u8>> {
        if self.left > self.limits.header {
            let limit = self.limits.header;
            return Err(bad(&format!("an extended header has more than {limit} bytes")));
        }
        let mut bytes = vec![0_u8; usize::try_from(self.left).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_data(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    /// A long name, which ends with a NUL.
    fn text(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.small()?;
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            bytes.truncate(end);
        }
        Ok(bytes)
    }

    fn discard(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.reader.by_ref().take(count), &mut io::sink())?;
        self.position += passed;
        if passed < count {
            return Err(bad("the archive ends within an entry"));
        }
        Ok(())
    }

    /// Puts an entry together.
    fn member(&mut self, header: &Header, extended: Extended) -> io::Result<Member> {
        let Extended { name, link, records, pairs } = extended;
        let global = std::mem::take(&mut self.global);
        let get = |key: &str| records.get(key.as_bytes()).or_else(|| global.get(key.as_bytes()));
        let number = |key: &str| get(key).map(|value| sparse::decimal(value)).transpose();
        let kind = kind(header.entry_type());
        // What is no file has no data, whatever its header says: so reads
        // Go's archive/tar, by which engines write and read their layers.
        let stored = match kind {
            Kind::File | Kind::Other(_) => {
                number("size")?.map_or_else(|| header.entry_size(), Ok)?
            }
            _ => 0,
        };
        self.expect(stored);
        let name = get("GNU.sparse.name").or_else(|| get("path")).cloned().or(name);
        let link = get("linkpath").cloned().or(link);
        let old = header.as_old();
        let mut member = Member {
            name: name.unwrap_or_else(|| header.path_bytes().into_owned()),
            kind,
            link: link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
            mode: or_zero(&old.mode, header.mode())? & 0o7777,
            uid: number("uid")?.map_or_else(|| or_zero(&old.uid, header.uid()), Ok)?,
            gid: number("gid")?.map_or_else(|| or_zero(&old.gid, header.gid()), Ok)?,
            mtime: match get("mtime") {
                Some(text) => seconds(text)?,
                None => {
                    let seconds = or_zero(&old.mtime, header.mtime())?;
                    (i64::try_from(seconds).unwrap_or(i64::MAX), 0)
                }
            },
            device: (
                header.device_major().ok().flatten().unwrap_or(0),
                header.device_minor().ok().flatten().unwrap_or(0),
            ),
            size: stored,
            xattrs: attributes(&global, &records),
            segments: None,
        };
        if kind == Kind::File {
            let map = [get("GNU.sparse.major"), get("GNU.sparse.map")];
            let real = get("GNU.sparse.realsize").or_else(|| get("GNU.sparse.size"));
            let real = real.map(|value| sparse::decimal(value)).transpose()?;
            self.sparse(header, &mut member, map, real, &pairs)?;
        }
        self.global = global;
        // A folder of old formats is a file whose name ends with a slash.
        if member.kind == Kind::File && member.name.ends_with(b"/") {
            member.kind = Kind::Folder;
        }
        Ok(member)
    }

    /// Reads the map of a sparse file, if it is one.
    fn sparse(
        &mut self,
        header: &Header,
        member: &mut Member,
        [major, map]: [Option<&Vec<u8>>; 2],
        real: Option<u64>,
        pairs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let mut segments = if header.entry_type() == EntryType::GNUSparse {
            let gnu =
                header.as_gnu().ok_or_else(|| bad("a sparse entry is not of GNU's format"))?;
            member.size = gnu.real_size()?;
            let mut segments = sparse::old(&gnu.sparse)?;
            let mut more = gnu.is_extended();
            while more {
                let mut block = GnuExtSparseHeader::new();
                let bytes: &mut [u8; BLOCK] = block.as_mut_bytes();
                // These blocks do not count in the entry's size.
                if !self.block(bytes)? {
                    return Err(bad("the archive ends within a sparse file's map"));
                }
                segments.extend(sparse::old(block.sparse())?);
                sparse::check_count(segments.len())?;
                more = block.is_extended();
            }
            segments
        } else if major.is_some_and(|major| major == b"1") {
            sparse::leading(|buffer| self.read_data(buffer))?
        } else if let Some(map) = map {
            sparse::listed(map)?
        } else if !pairs.is_empty() {
            sparse::paired(pairs)?
        } else {
            return Ok(());
        };
        if header.entry_type() != EntryType::GNUSparse {
            member.size = real.ok_or_else(|| bad("a sparse file has no size"))?;
        }
        segments.retain(|segment| segment.length > 0);
        sparse::check(&segments, member.size, self.left)?;
        member.segments = Some(segments);
        Ok(())
    }
}

impl<R: Read + Seek> Tarball<R> {
    /// As [`Tarball::next`], without reading what is passed over.
    pub(super) fn next_seek(&mut self) -> io::Result<Option<Member>> {
        self.advance(|tarball, count| {
            let to = tarball.position.checked_add(count).ok_or_else(|| bad("a size is absurd"))?;
            tarball.reader.seek(SeekFrom::Start(to))?;
            tarball.position = to;
            Ok(())
        })
    }
}

impl Extended {
    /// Reads PAX records: `LENGTH KEY=VALUE` and a line feed each, the length
    /// counting all of that. Values are bytes and may hold line feeds.
    fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let broken = || bad("an extended header is malformed");
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length =
                usize::try_from(sparse::decimal(&bytes[..blank])?).map_err(|_| broken())?;
            let record = bytes.get(blank + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let (key, value) = (record[..equals].to_vec(), record[equals + 1..].to_vec());
            bytes = &bytes[length..];
            if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
                self.pairs.push((key, value));
            } else {
                self.records.insert(key, value);
            }
        }
        Ok(())
    }
}

/// Extended attributes as star and GNU tar write them. (libarchive's own
/// spelling always comes together with this one.)
fn attributes(global: &Records, records: &Records) -> Records {
    let all = global.iter().chain(records);
    all.filter_map(|(key, value)| {
        let name = key.strip_prefix(b"SCHILY.xattr.")?;
        Some((name.to_vec(), value.clone()))
    })
    .collect()
}

/// A number of a header; an empty field is 0, as other readers have it.
fn or_zero<T: Default>(field: &[u8], value: io::Result<T>) -> io::Result<T> {
    let empty = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if empty { Ok(T::default()) } else { value }
}

fn kind(kind: EntryType) -> Kind {
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Directory => Kind::Folder,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::CharacterDevice,
        EntryType::Block => Kind::BlockDevice,
        other => Kind::Other(other.as_byte()),
    }
}

/// A time such as `-12.345`.
fn seconds(text: &[u8]) -> io::Result<(i64, u32)> {
    let wrong = || bad("a time is no number");
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| wrong())?;
    // The fraction of a negative time counts downwards.
    if whole.starts_with('-') && nanoseconds > 0 {
        return Ok((seconds.saturating_sub(1), 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}

pub(super) fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}
