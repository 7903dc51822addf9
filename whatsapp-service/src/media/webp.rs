//! What the head of a WebP file says (RFC 9649). Nothing more of it is read: what unpacks it takes as much memory as
//! the file says, and says so in places that are not the head.

use std::io::{self, Read};

/// How many bytes the longest head has.
const HEAD: u64 = 30;

/// What is known of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebP {
    /// Its width and height, in pixels.
    pub size: Option<(u32, u32)>,
    /// Whether it moves.
    pub is_animated: bool,
}

/// Reads what a file says of itself.
pub fn read(file: &mut impl Read) -> io::Result<WebP> {
    let mut head = Vec::with_capacity(HEAD as usize);
    file.take(HEAD).read_to_end(&mut head)?;
    if head.get(..4) != Some(b"RIFF") || head.get(8..12) != Some(b"WEBP") {
        return Ok(WebP::default());
    }
    let number = |at: usize, bytes: usize| {
        let bytes = head.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0, |number: u32, byte| number << 8 | u32::from(*byte)))
    };
    let size = match head.get(12..16) {
        // The upper two bits say how it is to be shown.
        Some(b"VP8 ") if head.get(23..26) == Some(b"\x9d\x01\x2a") => {
            number(26, 2).zip(number(28, 2)).map(|(width, height)| (width & 0x3fff, height & 0x3fff))
        }
        Some(b"VP8L") if head.get(20) == Some(&0x2f) => {
            number(21, 4).map(|bits| ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        Some(b"VP8X") => number(24, 3).zip(number(27, 3)).map(|(width, height)| (width + 1, height + 1)),
        _ => None,
    };
    let is_animated = head.get(12..16) == Some(b"VP8X") && head.get(20).is_some_and(|flags| flags & 2 > 0);
    Ok(WebP { size, is_animated })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The head of a file that begins with this chunk.
    pub fn webp(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let chunk = [&name[..], &(content.len() as u32).to_le_bytes(), content].concat();
        [b"RIFF", &(chunk.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &chunk].concat()
    }

    #[test]
    fn each_of_the_three_heads_says_how_large_the_picture_is() {
        let lossy = webp(b"VP8 ", b"\x10\x02\0\x9d\x01\x2a\x80\x42\xf0\0");
        let lossless = webp(b"VP8L", &[&[0x2f][..], &(639_u32 | 479 << 14).to_le_bytes(), b"\x07"].concat());
        let extended = webp(b"VP8X", b"\x08\0\0\0\x7f\x02\0\xdf\x01\0");
        for (bytes, size) in [(lossy, (640, 240)), (lossless, (640, 480)), (extended, (640, 480))] {
            assert_eq!(read(&mut &bytes[..]).unwrap(), WebP { size: Some(size), is_animated: false });
            for end in 0..26 {
                // A head that breaks off says nothing.
                let _ = read(&mut &bytes[..end.min(bytes.len())]).unwrap();
            }
            assert_eq!(read(&mut &bytes[..22]).unwrap().size, None);
        }
        assert_eq!(read(&mut &webp(b"ABCD", &[0; 20])[..]).unwrap(), WebP::default());
    }

    #[test]
    fn one_that_moves_says_so() {
        let animated = webp(b"VP8X", b"\x12\0\0\0\x7f\x02\0\xdf\x01\0");
        assert!(read(&mut &animated[..]).unwrap().is_animated);
    }
}
