//! What the head of a JPEG file says: how large its picture is, how it is turned, and how much memory it takes to unpack
//! it (ITU-T T.81).

use std::io::{self, Read, Seek, SeekFrom};

use image::metadata::Orientation;

/// How many bytes of tables are kept. No file needs so many.
const MAX_TABLES: usize = 64 * 1024;

/// Everything before the picture itself.
#[derive(Debug)]
pub struct Head {
    /// Width and height in pixels, before it is turned.
    pub size: (u32, u32),
    /// How it is to be turned.
    pub turned: Orientation,
    /// How much memory unpacking it takes, in bytes, beside the file itself. None: it is not to be unpacked.
    pub memory: Option<u64>,
    /// What is needed of all this to unpack it. What follows in the file belongs behind it.
    ///
    /// Whoever unpacks this sees what was counted here. In the file itself, where something broken is passed over,
    /// another might find another picture.
    pub tables: Vec<u8>,
}

/// How the picture is packed.
struct Frame {
    size: (u32, u32),
    progressive: bool,
    /// How many blocks of each component a unit has, across and down.
    components: Vec<(u64, u64)>,
}

/// Reads a file up to where the picture begins.
pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Head> {
    let mut tables = bytes::<2>(file)?.to_vec();
    if tables != [0xff, 0xd8] {
        return Err(broken());
    }
    let (mut frame, mut turned) = (None, Orientation::NoTransforms);
    loop {
        let marker = next_marker(file)?;
        let length = bytes::<2>(file)?;
        let left = u16::from_be_bytes(length).checked_sub(2).ok_or_else(broken)?;
        // Frames, tables, restarts, colours, the scan; and Exif.
        if !matches!(marker, 0xc0..=0xcf | 0xda | 0xdb | 0xdd | 0xee | 0xe1) {
            file.seek(SeekFrom::Current(left.into()))?;
            continue;
        }
        let mut content = vec![0; left.into()];
        file.read_exact(&mut content)?;
        if marker == 0xe1 {
            let exif = content.strip_prefix(b"Exif\0\0").and_then(Orientation::from_exif_chunk);
            turned = exif.unwrap_or(turned);
            continue;
        }
        if tables.len() + content.len() > MAX_TABLES {
            return Err(broken());
        }
        tables.extend([0xff, marker]);
        tables.extend(length);
        tables.extend(&content);
        match marker {
            0xc4 => {}
            0xc0..=0xcf if frame.is_none() => frame = Some(Frame::read(marker, &content).ok_or_else(broken)?),
            0xc0..=0xcf => return Err(broken()),
            0xda => {
                let frame = frame.ok_or_else(broken)?;
                let whole = content.first().map(|count| usize::from(*count)) == Some(frame.components.len());
                return Ok(Head { size: frame.size, turned, memory: frame.memory(whole), tables });
            }
            _ => {}
        }
    }
}

impl Frame {
    fn read(marker: u8, content: &[u8]) -> Option<Self> {
        // Neither lossless nor arithmetic ones, which nobody sends.
        let progressive = match marker {
            0xc0 | 0xc1 => false,
            0xc2 => true,
            _ => return None,
        };
        let (head, components) = content.split_first_chunk::<6>()?;
        let [_, high, low, wide, narrow, count] = *head;
        let size = (u16::from_be_bytes([wide, narrow]), u16::from_be_bytes([high, low]));
        if components.len() != usize::from(count) * 3 || !(1..=4).contains(&count) || size.0 == 0 || size.1 == 0 {
            return None;
        }
        let components: Vec<_> =
            components.chunks_exact(3).map(|one| (u64::from(one[1] >> 4), u64::from(one[1] & 15))).collect();
        let fits = components.iter().all(|(across, down)| (1..=4).contains(across) && (1..=4).contains(down));
        fits.then_some(Self { size: (size.0.into(), size.1.into()), progressive, components })
    }

    /// How much memory unpacking it takes; `whole` is whether its first scan has all components.
    fn memory(&self, whole: bool) -> Option<u64> {
        // What is not progressive can have one scan after another, without an end: nobody sends such a file either.
        if !whole && !self.progressive {
            return None;
        }
        let (width, height) = (u64::from(self.size.0), u64::from(self.size.1));
        let across = self.components.iter().map(|(across, _)| across).max()?;
        let down = self.components.iter().map(|(_, down)| down).max()?;
        let units = (width.div_ceil(8 * across), height.div_ceil(8 * down));
        let picture = width * height * if self.components.len() == 1 { 1 } else { 3 };
        // A row of units, as packed and with all components as large as the largest: two bytes a value.
        let blocks: u64 = self.components.iter().map(|(across, down)| across * down).sum();
        let packed = units.0 * blocks * 64 * 2;
        let spread = units.0 * across * down * 64 * 2 * self.components.len() as u64;
        // Of a progressive one all rows are kept until the last scan.
        let rows = if self.progressive { packed * units.1 } else { 0 };
        Some(picture + rows + packed + spread)
    }
}

/// The next marker. What stands before it is passed over, as everybody does.
fn next_marker(file: &mut impl Read) -> io::Result<u8> {
    loop {
        while bytes::<1>(file)? != [0xff] {}
        loop {
            match bytes::<1>(file)?[0] {
                0xff => {}
                0 => break,
                0xd9 => return Err(broken()),
                marker => return Ok(marker),
            }
        }
    }
}

fn bytes<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn broken() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
pub mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        [&[0xff, marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
    }

    /// The head of a file with components of so many blocks, and one less in its first scan if it is not `whole`.
    pub fn head(marker: u8, (width, height): (u16, u16), components: &[(u8, u8)], whole: bool) -> Vec<u8> {
        let count = components.len() as u8;
        let mut frame = [&[8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[count]].concat();
        for (id, (across, down)) in (1..).zip(components) {
            frame.extend([id, across << 4 | down, 0]);
        }
        let scanned = if whole { count } else { 1 };
        let mut scan = vec![scanned];
        (1..=scanned).for_each(|id| scan.extend([id, 0]));
        // The one code that there is says that a block is as the one before.
        let codes = [&[0, 1][..], &[0; 15], &[0]].concat();
        let last = if marker == 0xc2 { 0 } else { 63 };
        scan.extend([0, last, 0]);
        [
            &[0xff, 0xd8][..],
            &segment(0xdb, &[&[0][..], &[1; 64]].concat()),
            &segment(marker, &frame),
            &segment(0xc4, &codes),
            &segment(0xda, &scan),
        ]
        .concat()
    }

    /// A grey progressive picture.
    pub fn progressive(width: u16, height: u16) -> Vec<u8> {
        let blocks = usize::from(width.div_ceil(8)) * usize::from(height.div_ceil(8));
        [head(0xc2, (width, height), &[(1, 1)], true), vec![0; blocks.div_ceil(8)], vec![0xff, 0xd9]].concat()
    }

    fn read_all(bytes: Vec<u8>) -> io::Result<Head> {
        read(&mut Cursor::new(bytes))
    }

    #[test]
    fn a_head_says_how_large_the_picture_is_and_what_memory_it_takes() {
        let usual = [(2, 2), (1, 1), (1, 1)];
        let memory = |marker, components: &[_], whole| {
            let head = read_all(head(marker, (4_000, 3_000), components, whole)).unwrap();
            assert_eq!(head.size, (4_000, 3_000));
            head.memory
        };
        let pixels = 4_000 * 3_000;
        let about = |bytes: u64| bytes..bytes + 2_000_000;
        assert!(about(3 * pixels).contains(&memory(0xc0, &usual, true).unwrap()), "the picture and some rows");
        assert!(about(3 * pixels + 3 * pixels).contains(&memory(0xc2, &usual, true).unwrap()), "colours are halved");
        assert!(about(3 * pixels + 6 * pixels).contains(&memory(0xc2, &[(1, 1); 3], true).unwrap()));
        assert!(about(3 * pixels + 8 * pixels).contains(&memory(0xc2, &[(1, 1); 4], true).unwrap()));
        assert!(about(pixels).contains(&memory(0xc1, &[(1, 1)], true).unwrap()));
        assert_eq!(memory(0xc0, &usual, false), None, "a scan for each component");
        assert!(memory(0xc2, &usual, false).is_some());
        // Units may be much larger than the picture.
        let line = read_all(head(0xc2, (65_535, 1), &[(4, 4); 3], true)).unwrap();
        assert!(line.memory.unwrap() > 65_535 * 32 * 3 * 2);
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let plain = head(0xc0, (64, 48), &[(1, 1); 3], true);
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let junk = [segment(0xe0, b"AVI1"), segment(0xe1, exif), segment(0xe2, &[7; 60_000]), b"xx\xff\0".to_vec()];
        let long = [&plain[..2], &junk.concat(), &[0xff, 0xff], &plain[2..], b"the picture"].concat();
        let mut file = Cursor::new(long);
        let head = read(&mut file).unwrap();
        assert_eq!((head.size, head.turned), ((64, 48), Orientation::Rotate90));
        assert_eq!(head.tables, plain);
        assert_eq!(file.get_ref()[file.position() as usize..], *b"the picture");
        let two = [&plain[..plain.len() - 14], &segment(0xc2, &[0; 9]), &plain[plain.len() - 14..]].concat();
        assert!(read_all(two).is_err(), "one picture only");
        let long = [&plain[..2], &segment(0xc4, &[7; 40_000]).repeat(2), &plain[2..]].concat();
        assert!(read_all(long).is_err(), "too much");
    }

    proptest! {
        #[test]
        fn whatever_stands_there_ends(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0..200usize) {
            let mut bytes = head(0xc2, (640, 480), &[(2, 1), (1, 1), (1, 1)], true);
            let at = at.min(bytes.len());
            bytes.splice(at..at, noise.clone());
            let _ = read_all(bytes);
            let _ = read_all([&[0xff, 0xd8][..], &noise].concat());
        }
    }
}
