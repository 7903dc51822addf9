//! What the head of an MP4 or 3GP file says: how long it plays, and how large its picture is (ISO/IEC 14496-12).

use std::io::{self, Read, Seek, SeekFrom};

/// How many boxes are looked at before the search is given up.
const MAX_BOXES: usize = 4_096;

/// What is known of a film.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Film {
    /// In pixels.
    pub width: Option<u32>,
    /// In pixels.
    pub height: Option<u32>,
    /// How long it plays.
    pub seconds: Option<u32>,
}

/// Reads what a file says of itself. Only a few bytes of each box are read, wherever they are.
pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Film> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut film, mut left) = (Film::default(), MAX_BOXES);
    look(file, 0, end, &mut film, &mut left)?;
    Ok(film)
}

fn look(file: &mut (impl Read + Seek), mut at: u64, end: u64, film: &mut Film, left: &mut usize) -> io::Result<()> {
    while at + 8 <= end {
        *left = left.checked_sub(1).ok_or_else(too_much)?;
        file.seek(SeekFrom::Start(at))?;
        let (size, name) = (number(file)?, bytes::<4>(file)?);
        let (size, head) = match size {
            0 => (end - at, 8),
            1 => (u64::from(number(file)?) << 32 | u64::from(number(file)?), 16),
            size => (size.into(), 8),
        };
        let next = at.checked_add(size).filter(|next| *next <= end && size >= head).ok_or_else(too_much)?;
        match &name {
            b"moov" | b"trak" => look(file, at + head, next, film, left)?,
            b"mvhd" => {
                let long = bytes::<4>(file)?[0] == 1;
                file.seek(SeekFrom::Current(if long { 16 } else { 8 }))?;
                let scale = number(file)?;
                let length = if long { u64::from(number(file)?) << 32 } else { 0 } | u64::from(number(file)?);
                let seconds = length.checked_div(scale.into()).and_then(|seconds| u32::try_from(seconds).ok());
                film.seconds = seconds.filter(|_| length != u64::from(u32::MAX)).map(|seconds| seconds.max(1));
            }
            b"tkhd" => {
                // Width and height are the last fields, with 16 bits behind the point.
                file.seek(SeekFrom::Start(next.saturating_sub(8)))?;
                let (width, height) = (number(file)? >> 16, number(file)? >> 16);
                if width > 0 && height > 0 && film.width.is_none() {
                    (film.width, film.height) = (Some(width), Some(height));
                }
            }
            _ => {}
        }
        at = next;
    }
    Ok(())
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(file: &mut impl Read) -> io::Result<u32> {
    bytes(file).map(u32::from_be_bytes)
}

fn too_much() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
pub mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn named(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes(), &name[..], content].concat()
    }

    /// A film without a picture or a sound, of 320 by 240 pixels and 7.5 seconds.
    pub fn film() -> Vec<u8> {
        let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
        let mvhd = [numbers(&[0, 0, 0, 1000, 7500]), vec![0; 80]].concat();
        let tkhd = [vec![0; 76], numbers(&[320 << 16, 240 << 16])].concat();
        let moov = [named(b"mvhd", &mvhd), named(b"trak", &named(b"tkhd", &tkhd))].concat();
        [named(b"ftyp", b"isom\0\0\x02\0isomiso2"), named(b"mdat", &[9; 5000]), named(b"moov", &moov)].concat()
    }

    #[test]
    fn a_film_says_how_long_and_how_large_it_is() {
        let expected = Film { width: Some(320), height: Some(240), seconds: Some(7) };
        assert_eq!(read(&mut Cursor::new(film())).unwrap(), expected);
        // The same with times of 64 bits.
        let numbers = [1 << 24, 0, 1, 0, 2, 1000, 1, 7500].map(u32::to_be_bytes).concat();
        let moov = named(b"moov", &named(b"mvhd", &[numbers, vec![0; 80]].concat()));
        let seconds = u32::try_from(((1_u64 << 32) + 7500) / 1000).unwrap();
        assert_eq!(read(&mut Cursor::new(moov)).unwrap(), Film { seconds: Some(seconds), ..Film::default() });
    }

    proptest! {
        #[test]
        fn whatever_stands_there_ends(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0..5000usize) {
            let mut film = film();
            let at = at.min(film.len());
            film.splice(at..at, noise.clone());
            let _ = read(&mut Cursor::new(film));
            let _ = read(&mut Cursor::new(named(b"moov", &noise)));
        }
    }
}
