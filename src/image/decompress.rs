//! Layers as their bytes say they are compressed: not at all, gzip, or zstd.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Plain bytes of a stream.
pub(super) enum Plain<R: Read> {
    As(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<Frames<R>>),
}

/// zstd frames one after the other, with those between them that carry no
/// data. The decoder refuses windows of more than 128 MiB by itself, as the
/// zstd command does.
pub(super) struct Frames<R> {
    reader: BufReader<R>,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: Read> Plain<R> {
    /// Looks at the first bytes.
    pub(super) fn new(stream: R) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(128 * 1024, stream);
        let start = reader.fill_buf()?;
        Ok(if start.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip(Box::new(MultiGzDecoder::new(reader)))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(start) {
            let frames = Frames { reader, decoder: FrameDecoder::new(), within: false };
            Self::Zstd(Box::new(frames))
        } else {
            Self::As(reader)
        })
    }

    /// Gives back the compressed stream, with what was not read of it yet.
    pub(super) fn into_inner(self) -> BufReader<R> {
        match self {
            Self::As(reader) => reader,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(frames) => frames.reader,
        }
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::As(reader) => reader.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(frames) => frames.read(buffer),
        }
    }
}

/// Whether a frame without data begins here (RFC 8878, 3.1.2).
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl<R: Read> Frames<R> {
    /// Begins a frame, or passes one over that carries no data.
    fn begin(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.reader) {
            Ok(()) => self.within = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = u64::from(length);
                let mut frame = self.reader.by_ref().take(length);
                if io::copy(&mut frame, &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within {
                if self.reader.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.begin()?;
            } else if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            } else if self.decoder.is_finished() {
                self.within = false;
            } else {
                let step = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.reader, step).map_err(io::Error::other)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn plain(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Plain::new(bytes)?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn several_frames_and_members_are_one_stream() {
        let frame = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
        let empty = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let all = [empty.clone(), frame("one "), empty, frame("two")].concat();
        assert_eq!(plain(&all).expect("fine"), b"one two");
        assert!(plain(&all[..all.len() - 2]).is_err(), "cut off");

        let member = |text: &str| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            io::Write::write_all(&mut packer, text.as_bytes()).expect("packed");
            packer.finish().expect("packed")
        };
        let all = [member("one "), member("two")].concat();
        assert_eq!(plain(&all).expect("fine"), b"one two");
        assert!(plain(&all[..all.len() - 2]).is_err(), "cut off");
        assert_eq!(plain(b"neither").expect("fine"), b"neither");
    }
}
