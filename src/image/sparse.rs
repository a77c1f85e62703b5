//! Maps of sparse files, as GNU tar's manual has them ("Storing Sparse
//! Files"): the old format's blocks, and PAX versions 0.0, 0.1 and 1.0.

use std::io;

use tar::GnuSparseHeader;

use super::tarball::bad;

/// Pieces of data of one file at most: as many as a file of 4 GiB has whose
/// every second block is a hole, and that is beyond any real one.
const PIECES: usize = 500_000;

/// A piece of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A decimal number and nothing else.
pub(super) fn decimal(text: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(text).ok();
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| bad("a number is none"))
}

pub(super) fn check_count(count: usize) -> io::Result<()> {
    if count > PIECES { Err(bad("a sparse file has too many pieces")) } else { Ok(()) }
}

/// The pieces in a header of the old format.
pub(super) fn old(headers: &[GnuSparseHeader]) -> io::Result<Vec<Segment>> {
    let used = headers.iter().filter(|header| !header.is_empty());
    used.map(|header| Ok(Segment { offset: header.offset()?, length: header.length()? })).collect()
}

/// Version 0.1: `offset,length,offset,length...`.
pub(super) fn listed(map: &[u8]) -> io::Result<Vec<Segment>> {
    let numbers: Vec<u64> =
        map.split(|byte| *byte == b',').map(decimal).collect::<io::Result<_>>()?;
    check_count(numbers.len() / 2)?;
    if !numbers.len().is_multiple_of(2) {
        return Err(bad("a sparse file's map is incomplete"));
    }
    let pairs = numbers.chunks_exact(2);
    Ok(pairs.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Version 0.0: one record each, in turns.
pub(super) fn paired(records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Vec<Segment>> {
    check_count(records.len() / 2)?;
    let mut segments = Vec::new();
    for pair in records.chunks(2) {
        match pair {
            [(first, offset), (second, length)]
                if first == b"GNU.sparse.offset" && second == b"GNU.sparse.numbytes" =>
            {
                segments.push(Segment { offset: decimal(offset)?, length: decimal(length)? });
            }
            _ => return Err(bad("a sparse file's map is incomplete")),
        }
    }
    Ok(segments)
}

/// Version 1.0: lines at the beginning of the data, padded to whole blocks.
pub(super) fn leading(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Vec<Segment>> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut line: Vec<u8> = Vec::new();
    let mut wanted = 1;
    while numbers.len() < wanted {
        let mut block = [0_u8; 512];
        let mut filled = 0;
        while filled < block.len() {
            match read(&mut block[filled..])? {
                0 => return Err(bad("the map of a sparse file ends early")),
                length => filled += length,
            }
        }
        for byte in block {
            if numbers.len() == wanted {
                break;
            }
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let number = decimal(&line)?;
            line.clear();
            numbers.push(number);
            if numbers.len() == 1 {
                let pieces = usize::try_from(number).unwrap_or(usize::MAX);
                check_count(pieces)?;
                wanted = 1 + 2 * pieces;
            }
        }
        if line.len() > 20 {
            return Err(bad("a number is none"));
        }
    }
    let pairs = numbers[1..].chunks_exact(2);
    Ok(pairs.map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Refuses maps that go backwards, beyond the end, or beyond the data.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> io::Result<()> {
    check_count(segments.len())?;
    let mut end = 0;
    let mut sum = 0_u64;
    for segment in segments {
        if segment.offset < end {
            return Err(bad("the pieces of a sparse file overlap"));
        }
        end = segment.offset.saturating_add(segment.length);
        sum = sum.saturating_add(segment.length);
    }
    if end > size || sum > stored {
        return Err(bad("a piece of a sparse file lies beyond its end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, length: u64) -> Segment {
        Segment { offset, length }
    }

    #[test]
    fn all_spellings_of_a_map_mean_the_same() {
        let expected = [piece(0, 5), piece(4096, 1)];
        assert_eq!(listed(b"0,5,4096,1").expect("fine"), expected);
        let record = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let records = [
            record("GNU.sparse.offset", "0"),
            record("GNU.sparse.numbytes", "5"),
            record("GNU.sparse.offset", "4096"),
            record("GNU.sparse.numbytes", "1"),
        ];
        assert_eq!(paired(&records).expect("fine"), expected);
        let mut data = b"2\n0\n5\n4096\n1\n".to_vec();
        data.resize(512, 0);
        let mut rest = data.as_slice();
        assert_eq!(leading(|buffer| io::Read::read(&mut rest, buffer)).expect("fine"), expected);
        assert!(rest.is_empty());
    }

    #[test]
    fn maps_that_lie_are_refused() {
        assert!(check(&[piece(0, 5), piece(4, 1)], 10, 10).is_err());
        assert!(check(&[piece(8, 5)], 10, 10).is_err());
        assert!(check(&[piece(u64::MAX, 5)], 10, 10).is_err());
        assert!(check(&[piece(0, 5)], 10, 4).is_err());
        assert!(check(&[piece(0, 5), piece(5, 5)], 10, 10).is_ok());
        assert!(listed(b"1,2,3").is_err() && listed(b"a,1").is_err() && listed(b"+1,1").is_err());
        let mut endless: &[u8] = b"99999999999\n";
        assert!(leading(|buffer| io::Read::read(&mut endless, buffer)).is_err());
        assert!(
            leading(|buffer| {
                buffer.fill(b'1');
                Ok(buffer.len())
            })
            .is_err()
        );
    }
}
