//! The stub guest's file, and its parts as a machine without a loader needs
//! them. It runs nothing.

use crate::record::Workload;

/// The stub: a guest of a few instructions, an ELF file with a PVH entry.
/// There is one for x86-64 only.
#[cfg(target_arch = "x86_64")]
pub const EXECUTABLE: Option<&[u8]> =
    Some(include_bytes!(concat!(env!("OUT_DIR"), "/unladen-stub")));
/// The stub: a guest of a few instructions. There is one for x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
pub const EXECUTABLE: Option<&[u8]> = None;

/// The file name under which it is unpacked.
pub const FILE_NAME: &str = "unladen-stub.elf";

/// The one thing that it can do.
pub const WORKLOAD: Workload = Workload::Exit;

/// An ELF file that is not what our build makes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the stub is not a 64-bit ELF file for x86-64 with all its parts")]
pub struct ImageError;

/// The parts of a program and where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What is loaded, with its physical address.
    pub segments: Vec<(u64, Vec<u8>)>,
    /// Address of the first instruction.
    pub entry: u64,
}

/// Takes a 64-bit little-endian ELF file apart (elf(5)): its `PT_LOAD`
/// segments and its entry.
///
/// # Errors
/// When it is something else or incomplete.
pub fn parts(file: &[u8]) -> Result<Parts, ImageError> {
    if !file.starts_with(b"\x7fELF\x02\x01") || number(file, 18, 2)? != 62 {
        return Err(ImageError);
    }
    let (table, size, count) = (number(file, 32, 8)?, number(file, 54, 2)?, number(file, 56, 2)?);
    let mut segments = Vec::new();
    for index in 0..count {
        let header = index.checked_mul(size).and_then(|at| at.checked_add(table));
        let header = header.ok_or(ImageError)?;
        let field = |at: u64, len| number(file, header.checked_add(at).ok_or(ImageError)?, len);
        if field(0, 4)? == 1 {
            let bytes = slice(file, field(8, 8)?, field(32, 8)?)?.to_vec();
            segments.push((field(24, 8)?, bytes));
        }
    }
    let entry = number(file, 24, 8)?;
    if segments.is_empty() { Err(ImageError) } else { Ok(Parts { segments, entry }) }
}

/// Address of the first instruction of a 64-bit little-endian ELF file.
///
/// # Errors
/// When it is something else.
pub fn entry(file: &[u8]) -> Result<u64, ImageError> {
    if file.starts_with(b"\x7fELF\x02\x01") { number(file, 24, 8) } else { Err(ImageError) }
}

/// Where a PVH loader enters a 64-bit ELF file: note 18 of the name `Xen`
/// (xen.git, xen/include/public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY), in a
/// segment of notes (elf(5)).
///
/// # Errors
/// When there is none.
pub fn pvh_entry(file: &[u8]) -> Result<u64, ImageError> {
    entry(file)?;
    let (table, size, count) = (number(file, 32, 8)?, number(file, 54, 2)?, number(file, 56, 2)?);
    for index in 0..count {
        let header = index.checked_mul(size).and_then(|at| at.checked_add(table));
        let header = header.ok_or(ImageError)?;
        let field = |at: u64, len| number(file, header.checked_add(at).ok_or(ImageError)?, len);
        if field(0, 4)? == 4 {
            let notes = slice(file, field(8, 8)?, field(32, 8)?)?;
            if let Some(found) = pvh_note(notes) {
                return Ok(found);
            }
        }
    }
    Err(ImageError)
}

/// The entry in a segment of notes: each has the lengths of its name and its
/// value, its type, and both, padded to four bytes.
fn pvh_note(mut notes: &[u8]) -> Option<u64> {
    loop {
        let word = |at| number(notes, at, 4).ok();
        let (name, value, kind) = (word(0)?, word(4)?, word(8)?);
        let start = 12 + name.next_multiple_of(4);
        if kind == 18 && slice(notes, 12, name).ok()? == b"Xen\0" {
            return number(notes, start, value.min(8)).ok();
        }
        let end = usize::try_from(start + value.next_multiple_of(4)).ok()?;
        notes = notes.get(end..)?;
    }
}

/// A number of `len` bytes at a place of the file.
fn number(file: &[u8], at: u64, len: u64) -> Result<u64, ImageError> {
    let bytes = slice(file, at, len)?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn slice(file: &[u8], at: u64, len: u64) -> Result<&[u8], ImageError> {
    let start = usize::try_from(at).map_err(|_| ImageError)?;
    let end = at.checked_add(len).and_then(|end| usize::try_from(end).ok()).ok_or(ImageError)?;
    file.get(start..end).ok_or(ImageError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::protocol::{RESULT, WorkResult};
    use crate::payload::{expected_result, request};

    #[test]
    fn the_stub_says_what_the_payload_would() {
        let Some(file) = EXECUTABLE else { return };
        let mut said = vec![0xA1, 0xA2];
        let result: WorkResult = expected_result(WORKLOAD);
        said.extend(request(RESULT, &result.encode()));
        let parts = parts(file).expect("an ELF file");
        let holds = |bytes: &[u8]| bytes.windows(said.len()).any(|window| window == said);
        assert!(parts.segments.iter().any(|(_, bytes)| holds(bytes)));
        let inside =
            |(at, bytes): &(u64, Vec<u8>)| (*at..*at + bytes.len() as u64).contains(&parts.entry);
        assert!(parts.segments.iter().any(inside), "the entry {:#x} is loaded", parts.entry);
    }

    #[test]
    fn a_loader_that_knows_pvh_enters_where_a_plain_one_does() {
        let Some(file) = EXECUTABLE else { return };
        let entered = entry(file).expect("an ELF file");
        assert_eq!(pvh_entry(file), Ok(entered));
        assert_eq!(parts(file).map(|parts| parts.entry), Ok(entered));
    }

    #[test]
    fn a_damaged_file_is_refused_at_every_length() {
        let Some(file) = EXECUTABLE else { return };
        for len in 0..file.len().min(400) {
            assert_eq!(parts(&file[..len]), Err(ImageError), "{len}");
            // Notes come early; all that counts is that nothing breaks.
            let _ = pvh_entry(&file[..len]);
        }
        let mut other = file.to_vec();
        other[18] = 183;
        assert_eq!(parts(&other), Err(ImageError));
    }
}
