//! A reader that comes to an end whatever reads it: what strangers wrote can send a parser in circles.

use std::{
    io::{self, Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often all of a file may be read, counted in bytes, and each call as one byte more.
const TIMES: u64 = 4;
/// What may be read of the smallest file, counted likewise.
const LEAST: u64 = 64 * 1024;

/// Lets so much be read, and for so long; from then on every call fails.
pub struct Bounded<R> {
    inner: R,
    left: u64,
    until: Instant,
}

impl<R> Bounded<R> {
    /// For a file of `size` bytes.
    pub fn new(inner: R, size: u64) -> Self {
        let left = size.saturating_mul(TIMES).saturating_add(LEAST);
        Self { inner, left, until: Instant::now() + PATIENCE }
    }

    /// Whether the end has come: what was made of the file until then may be of a part of it only.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    fn spend(&mut self, cost: u64) -> io::Result<()> {
        self.left = self.left.saturating_sub(cost);
        if self.left > 0 && Instant::now() < self.until {
            return Ok(());
        }
        self.left = 0;
        Err(io::ErrorKind::QuotaExceeded.into())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.spend(1)?;
        let count = self.inner.read(into)?;
        self.spend(count as u64)?;
        Ok(count)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.spend(1)?;
        self.inner.seek(to)
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::Cursor;

    use super::*;

    /// Counts what is done with it, and does not go along with more than so much.
    pub struct Counted {
        pub inner: Cursor<Vec<u8>>,
        pub done: u64,
        pub most: u64,
    }

    impl Counted {
        pub fn new(bytes: Vec<u8>) -> Self {
            let most = bytes.len() as u64 * TIMES + LEAST;
            Self { inner: Cursor::new(bytes), done: 0, most }
        }

        fn count(&mut self, cost: u64) {
            self.done += cost;
            assert!(self.done <= self.most, "more is read than may be");
        }
    }

    impl Read for Counted {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.inner.read(into)?;
            self.count(count as u64);
            Ok(count)
        }
    }

    impl Seek for Counted {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.count(1);
            self.inner.seek(to)
        }
    }

    #[test]
    fn what_is_read_again_and_again_ends() {
        let mut reader = Bounded::new(Counted::new(vec![7; 100]), 100);
        let mut read = Vec::new();
        assert_eq!(reader.read_to_end(&mut read).unwrap(), 100, "all of it can be read");
        let mut turns = 0;
        while reader.rewind().is_ok() && reader.read_to_end(&mut read).is_ok() {
            turns += 1;
        }
        assert!((2..1_000).contains(&turns), "{turns}");
        assert!(reader.is_spent() && reader.rewind().is_err() && reader.read(&mut [0]).is_err(), "and stays so");
    }

    #[test]
    fn what_takes_long_ends() {
        let mut reader = Bounded::new(Cursor::new([7; 100]), 100);
        assert_eq!(reader.read(&mut [0; 10]).unwrap(), 10);
        reader.until = Instant::now();
        assert!(reader.read(&mut [0; 10]).is_err() && reader.seek(SeekFrom::Start(0)).is_err() && reader.is_spent());
    }
}
